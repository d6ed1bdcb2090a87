"""From PyTorch's masks to Sightline's.

PyTorch's attn_mask and key_padding_mask say what may *not* be seen, or are added to the logits. A causal mask and a
padding that leaves one run of keys become one key interval per query, whatever was given in memory to say so.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from .._dims import readable
from ..biases import Bias, DenseBias
from ..errors import ShapeError, SpecError, Unsupported
from ..masks import DenseMask, Intervals, Lengths, Mask

_BLOCK_ENTRIES = 1 << 18
"""Entries of a mask looked at together: about a MB."""


@dataclass(frozen=True)
class Sizes:
    """One call: batch, heads, queries, keys given; `extra` keys of the module's own, which every query may see."""

    b: int
    h: int
    n: int
    m: int
    extra: int
    batched: bool
    device: torch.device


def lower(
    sizes: Sizes, attn_mask: Tensor | None, padding: Tensor | None, lengths: Lengths | None, is_causal: bool
) -> tuple[Mask | None, Bias | None]:
    """What all of these say together. Raises ShapeError, SpecError, Unsupported: see `MultiheadAttention.forward`."""
    masks: list[Mask] = [] if lengths is None else [lengths]
    biases: list[Bias] = []
    if attn_mask is not None:
        given = _checked_mask(attn_mask, sizes)
        if is_causal:
            _check_causal(given)
        # A mask may be learned. And the module's own keys are seen by all: then what is admitted is no interval.
        told = is_causal and not sizes.extra and not given.requires_grad
        if not told:
            _add(given, sizes.extra, masks, biases)
    elif is_causal and sizes.extra:
        raise Unsupported(
            "is_causal was given without attn_mask to a module with add_bias_kv or add_zero_attn; the keys that a "
            "query then sees are two intervals. Pass attn_mask, too."
        )
    lo = hi = None
    if is_causal and not sizes.extra:
        lo = torch.zeros(1, sizes.n, dtype=torch.int64, device=sizes.device)
        hi = torch.arange(1, sizes.n + 1, device=sizes.device).clamp(max=sizes.m)[None]
    if padding is not None:
        given = _checked_padding(padding, sizes)
        real = _real(given)
        run = None if real is None or sizes.extra else _run(real)
        if real is None:
            _add(given[:, None, None], sizes.extra, masks, biases)
        elif run is None:
            _add(~real[:, None, None], sizes.extra, masks, biases)
        else:
            first, end = (t[:, None].expand(-1, sizes.n) for t in run)
            lo, hi = (first, end) if lo is None or hi is None else (first, torch.minimum(hi, end))
    if lo is not None and hi is not None:
        masks.append(Intervals(lo, hi))
    mask = None if not masks else masks[0] if len(masks) == 1 else masks[0] & masks[1]
    for further in masks[2:]:
        mask = further if mask is None else mask & further
    return mask, None if not biases else biases[0] if len(biases) == 1 else biases[0] + biases[1]


def _checked_mask(t: Tensor, sizes: Sizes) -> Tensor:
    """attn_mask as [1|b, 1|h, n, m]. Raises ShapeError, SpecError."""
    _check_dtype("attn_mask", t)
    b, h, n, m = sizes.b, sizes.h, sizes.n, sizes.m
    if t.shape == (n, m):
        return t[None, None]
    if t.shape == (b * h, n, m):
        return t.unflatten(0, (b, h))
    raise ShapeError(
        f"attn_mask must be [L, S] = [{n}, {m}] or [N·num_heads, L, S] = [{b * h}, {n}, {m}]; it has shape "
        f"{tuple(t.shape)}. A mask of keys alone is a key_padding_mask."
    )


def _checked_padding(t: Tensor, sizes: Sizes) -> Tensor:
    """key_padding_mask as [b, m]. Raises ShapeError, SpecError."""
    _check_dtype("key_padding_mask", t)
    wanted = (sizes.b, sizes.m) if sizes.batched else (sizes.m,)
    if t.shape != wanted:
        layout = "[N, S]" if sizes.batched else "[S], as the inputs have no batch,"
        raise ShapeError(
            f"key_padding_mask must be {layout} = {list(wanted)}; it has shape {tuple(t.shape)}. "
            "It has the batch first, whatever batch_first is."
        )
    return t if sizes.batched else t[None]


def _check_dtype(name: str, t: Tensor) -> None:
    if t.dtype != torch.bool and not t.is_floating_point():
        raise SpecError(
            f"{name} must be boolean, True where a query may not attend, or floating point, added to the logits; it is "
            f"{t.dtype}. Convert it with .bool()."
        )


def _check_causal(t: Tensor) -> None:
    """Raise SpecError unless the mask [1|b, 1|h, n, m] is the causal one. Looked at in blocks, where it can be."""
    if not readable(t):
        return
    n, m = t.shape[-2:]
    j = torch.arange(m, device=t.device)
    step = max(1, _BLOCK_ENTRIES // (t.shape[0] * t.shape[1] * m))
    for i0 in range(0, n, step):
        block = t[:, :, i0 : i0 + step]
        hidden = j > torch.arange(i0, i0 + block.shape[2], device=t.device)[:, None]
        right = hidden if t.dtype == torch.bool else torch.where(hidden, -math.inf, 0.0).to(t.dtype)
        if bool((block != right).any()):
            at = (block != right).nonzero()[0]
            raise SpecError(
                "is_causal says that attn_mask is the causal one: query i may attend to keys j ≤ i and nothing is "
                f"added; for i = {i0 + int(at[2])} and j = {int(at[3])} it says {block[tuple(at)].item()}. Leave out "
                "is_causal to have the mask followed, or the mask to have causal attention."
            )


def _add(t: Tensor, extra: int, masks: list[Mask], biases: list[Bias]) -> None:
    """One of PyTorch's masks [b|1, h|1, n|1, m] as a mask or a bias over all keys."""
    if t.dtype == torch.bool:
        masks.append(DenseMask(F.pad(~t, (0, extra), value=True) if extra else ~t))
    else:
        biases.append(DenseBias(F.pad(t, (0, extra)) if extra else t))


def _real(padding: Tensor) -> Tensor | None:
    """Which keys [b, m] are not padding; None where the padding is numbers other than 0 and −∞, or may have gradients.

    nn.TransformerEncoder turns a boolean padding into numbers before its layers get it.
    """
    if padding.dtype == torch.bool:
        return ~padding
    if padding.requires_grad or not readable(padding):
        return None
    real = padding == 0
    return real if bool((real | (padding == -math.inf)).all()) else None


def _run(real: Tensor) -> tuple[Tensor, Tensor] | None:
    """First real key of each entry and the end of them, [b] each; None where they are not one run, or nowhere."""
    if not readable(real):
        return None
    bits, m = real.to(torch.uint8), real.shape[1]
    first, end = bits.argmax(1), m - bits.flip(1).argmax(1)
    count = real.sum(1)
    if bool(((end - first != count) & (count > 0)).any()) or not bool(count.any()):
        return None
    return first, torch.where(count > 0, end, first)
