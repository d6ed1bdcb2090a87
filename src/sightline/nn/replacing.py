"""Putting Sightline's multi-head attention into a module tree, and taking it out again.

A module is replaced by changing its class, as PyTorch's own `nn.utils.parametrize` and lazy modules do: it stays the
same object with the same parameters, hooks, mode and name, so that optimizers and other references to it stay right.
"""

from __future__ import annotations

from typing import TypeVar

from torch import nn

from ..errors import Unsupported
from .multihead import MultiheadAttention, called_as_itself

M = TypeVar("M", bound=nn.Module)


def replace_attention(module: M) -> M:
    """Compute every `nn.MultiheadAttention` in `module`, itself included, with Sightline from now on; returns `module`.

    In place. nn.Transformer and its encoders, decoders and layers then give the same results, also in inference, where
    they would bypass the module for a fused kernel. Nothing else changes; `restore_attention` undoes it.

    PyTorch's layers drop attention weights with their `dropout`, 0.1 unless said otherwise, and Sightline refuses that
    in training: build them with dropout=0, or set `self_attn.dropout` and `multihead_attn.dropout` to 0.

    Raises Unsupported, and changes nothing, where there is none, or where one is of a subclass, whose own code would be
    lost.

    >>> import torch, sightline.nn
    >>> layer = torch.nn.TransformerEncoderLayer(16, 4, batch_first=True).eval()
    >>> type(sightline.nn.replace_attention(layer).self_attn).__module__.split(".")[0]
    'sightline'
    """
    for part in attentions(module):
        if not isinstance(part, MultiheadAttention):
            change_class(part, MultiheadAttention)
    return module


def restore_attention(module: M) -> M:
    """Give every `sightline.nn.MultiheadAttention` in `module` back to PyTorch, in place; returns `module`.

    It does not matter how they came to be Sightline's. Modules of a subclass keep it.
    """
    for part in module.modules():
        if type(part) is MultiheadAttention:
            change_class(part, nn.MultiheadAttention)
    return module


def attentions(module: nn.Module) -> list[nn.MultiheadAttention]:
    """Every multi-head attention in `module`, PyTorch's or Sightline's. Raises Unsupported, see `replace_attention`."""
    found: list[nn.MultiheadAttention] = []
    for name, part in module.named_modules():
        if not isinstance(part, nn.MultiheadAttention):
            continue
        if type(part) is not nn.MultiheadAttention and not isinstance(part, MultiheadAttention):
            raise Unsupported(
                f"{type(module).__name__} was asked to compute its attention with Sightline; {name or 'it'} is a "
                f"{type(part).__name__}, a subclass of nn.MultiheadAttention whose own code would be lost. Derive that "
                "class from sightline.nn.MultiheadAttention; where a parametrization made it, replace before it."
            )
        found.append(part)
    if not found:
        raise Unsupported(
            f"{type(module).__name__} was asked to compute its attention with Sightline; it holds no "
            "nn.MultiheadAttention. Call sightline.attention or sightline.observe in its code instead."
        )
    return found


def change_class(part: nn.MultiheadAttention, to: type[nn.MultiheadAttention]) -> None:
    """Make the module one of PyTorch's class or of Sightline's, which have the same attributes."""
    part.__class__ = to
    if issubclass(to, MultiheadAttention):
        called_as_itself(part)
    else:
        part._qkv_same_embed_dim = part.in_proj_weight is not None
