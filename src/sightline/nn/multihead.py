"""Multi-head attention as a module: PyTorch's, computed by Sightline."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..biases import Bias
from ..errors import ShapeError, SpecError, Unsupported
from ..functional import Observed, named, observe
from ..masks import Mask
from ..reductions import Reduction, Rows
from ._masks import Sizes, lower
from ._nested import nest, unnest


@dataclass(frozen=True)
class Heads:
    """One call after its projections. q: [b, h, n, d]; k, v: [b, h, m, d], the module's own keys at the end.

    own: whether keys and queries are the same tokens; causal: whether the call said so.
    """

    q: Tensor
    k: Tensor
    v: Tensor
    mask: Mask | None
    bias: Bias | None
    own: bool
    causal: bool


class MultiheadAttention(nn.MultiheadAttention):
    """`torch.nn.MultiheadAttention`, exact at any length, and what it attends to: `forward(…, observe={…})`.

    Constructor, parameters, initialisation, `state_dict` and the arguments and results of `forward` are PyTorch's, and
    it is an instance of PyTorch's class. With h heads and d = embed_dim / h:
    concat_h(softmax(q_h k_hᵀ / √d + masks) v_h) W_oᵀ + b_o, where q, k, v are the projected inputs (Vaswani et al.
    2017, §3.2.2). Memory is linear in the lengths unless weights are asked for. What is not PyTorch's:

    - `observe={name: Reduction}` returns observations in the place of the weights;
    - `is_causal=True` needs no `attn_mask`, and where there is one it is checked to be the causal one;
    - a query that may attend to no key gets weights 0 and the output b_o, where PyTorch gives NaN or 0, depending on
      `need_weights` and on whether it takes its fast path;
    - dropout of weights is refused in training, `Unsupported`. In eval mode there is none, as in PyTorch;
    - `key_padding_mask` and `attn_mask` may be of different types.

    PyTorch's layers never bypass this module for a fused kernel of their own. Nested tensors (strided, as
    `nn.TransformerEncoder` makes them) are padded for the call. It copies, pickles and compiles as PyTorch's does.

    Raises SpecError for sizes that contradict each other.

    >>> import torch, sightline.nn
    >>> attention = sightline.nn.MultiheadAttention(16, 4, batch_first=True)
    >>> x = torch.randn(2, 5, 16)
    >>> output, seen = attention(x, x, x, is_causal=True, observe={"entropy": Entropy()})
    >>> output.shape, seen["entropy"].shape
    (torch.Size([2, 5, 16]), torch.Size([2, 4, 5]))
    """

    def __init__(
        self,
        embed_dim: int,
        num_heads: int,
        dropout: float = 0.0,
        bias: bool = True,
        add_bias_kv: bool = False,
        add_zero_attn: bool = False,
        kdim: int | None = None,
        vdim: int | None = None,
        batch_first: bool = False,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        if embed_dim < 1 or num_heads < 1 or embed_dim % num_heads:
            raise SpecError(
                f"embed_dim must be a positive multiple of num_heads; they are {embed_dim} and {num_heads}. "
                "Change one of them."
            )
        super().__init__(
            embed_dim, num_heads, dropout, bias, add_bias_kv, add_zero_attn, kdim, vdim, batch_first, device, dtype
        )
        called_as_itself(self)

    def _reset_parameters(self) -> None:
        # PyTorch's asks `_qkv_same_embed_dim`, see `called_as_itself`. The same draws in the same order: a seed gives
        # the same module.
        packed = self.in_proj_weight is not None
        for name in ("in_proj_weight",) if packed else ("q_proj_weight", "k_proj_weight", "v_proj_weight"):
            nn.init.xavier_uniform_(getattr(self, name))
        if self.in_proj_bias is not None:
            nn.init.zeros_(self.in_proj_bias)
            nn.init.zeros_(self.out_proj.bias)
        for extra in (self.bias_k, self.bias_v):
            if extra is not None:
                nn.init.xavier_normal_(extra)

    def forward(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        key_padding_mask: Tensor | None = None,
        need_weights: bool = True,
        attn_mask: Tensor | None = None,
        average_attn_weights: bool = True,
        is_causal: bool = False,
        *,
        observe: Mapping[str, Reduction] | None = None,
    ) -> tuple[Tensor, Any]:
        """The attention, and what was asked about its weights.

        query: [L, N, embed_dim], or [N, L, embed_dim] with batch_first, or [L, embed_dim]; key, value: the same with
        length S and widths kdim and vdim. key_padding_mask: [N, S] or [S], boolean, True = ignore this key, or floating
        point, added to the logits. attn_mask: [L, S] or [N·num_heads, L, S], boolean, True = may *not* attend, or
        floating point, added to the logits. is_causal: query i attends to keys j ≤ i; attn_mask may then be left out.

        Returns the output, in query's layout, and

        - with observe={name: Reduction, …}: a dict of their results [b, h, …], heads apart and b = 1 for inputs without
          a batch. need_weights is not read;
        - else with need_weights: the weights [N, L, S], the mean over heads, or with average_attn_weights=False
          [N, num_heads, L, S], without N for inputs without a batch. They take the memory that they take;
        - else None.

        The module's own keys come after the S given: that of add_bias_kv, then that of add_zero_attn. Weights and
        observations count them.

        Raises ShapeError for tensors that do not fit; SpecError for masks of integers, for is_causal with an attn_mask
        that is another, and for what are no reductions; Unsupported for dropout in training, and for nested tensors
        with masks or a jagged layout.
        """
        if self.training and self.dropout > 0:
            raise Unsupported(
                f"dropout={self.dropout} was asked of the attention weights in training; Sightline computes exact "
                "attention only. Set the module's `dropout` to 0, or call eval()."
            )
        lengths = None
        if query.is_nested or key.is_nested or value.is_nested:
            if key_padding_mask is not None or attn_mask is not None or not self.batch_first:
                raise Unsupported(
                    "nested tensors were given with a mask or to a module without batch_first; their lengths are their "
                    "mask, and their first dimension is the batch. Leave the masks out, or pad the tensors."
                )
            (query, key, value), lengths = unnest(query, key, value)
        sizes = self._sizes(query, key, value)
        mask, bias = lower(sizes, attn_mask, key_padding_mask, lengths, is_causal)
        wanted: Mapping[str, Reduction] = {}
        if observe is not None:
            named(observe)
            wanted = observe
        elif need_weights:
            wanted = {"weights": Rows(torch.arange(sizes.n))}
        q, k, v = (self._heads(t) for t in self._project(query, key, value))
        k, v = self._extended(k, self.bias_k), self._extended(v, self.bias_v)
        seen = self.attend(Heads(q, k, v, mask, bias, query is key, is_causal), wanted)
        output = F.linear(self._joined(seen.output, query), self.out_proj.weight, self.out_proj.bias)
        if lengths is not None:
            output = nest(output, lengths)
        if observe is not None:
            return output, dict(seen)
        if not need_weights:
            return output, None
        weights = seen["weights"].mean(1) if average_attn_weights else seen["weights"]
        return output, (weights if sizes.batched else weights[0]).to(output.dtype)

    def attend(self, heads: Heads, reductions: Mapping[str, Reduction]) -> Observed:
        """The attention of one call, per head, with observations. To be overridden by who listens to calls."""
        return observe(heads.q, heads.k, heads.v, reductions, mask=heads.mask, bias=heads.bias)

    # -- shapes and projections

    def _sizes(self, query: Tensor, key: Tensor, value: Tensor) -> Sizes:
        """Check the inputs. Raises ShapeError."""
        layout = "[N, L, E]" if self.batch_first else "[L, N, E]"
        if query.ndim not in (2, 3):
            raise ShapeError(
                f"query must be {layout}, or [L, E] without a batch; it has shape {tuple(query.shape)}. "
                "Add or join dimensions."
            )
        asked = (("query", query, self.embed_dim), ("key", key, self.kdim), ("value", value, self.vdim))
        for name, t, width in asked:
            if t.ndim != query.ndim or t.shape[-1] != width:
                raise ShapeError(
                    f"{name} must have {query.ndim} dimensions, as query has, and be {width} wide; it has shape "
                    f"{tuple(t.shape)}. Reshape or project it."
                )
        if key.shape[:-1] != value.shape[:-1]:
            raise ShapeError(
                f"key and value must have the same length and batch; they have shapes {tuple(key.shape)} and "
                f"{tuple(value.shape)}. Give each key its value."
            )
        length, batch = (1, 0) if self.batch_first and query.ndim == 3 else (0, 1)
        b = query.shape[batch] if query.ndim == 3 else 1
        if query.ndim == 3 and key.shape[batch] != b:
            raise ShapeError(
                f"query and key must share the batch size; they have {b} and {key.shape[batch]} in {layout}. "
                "Expand one of them, or check batch_first."
            )
        extra = (self.bias_k is not None) + bool(self.add_zero_attn)
        return Sizes(b, self.num_heads, query.shape[length], key.shape[length], extra, query.ndim == 3, query.device)

    def _project(self, query: Tensor, key: Tensor, value: Tensor) -> tuple[Tensor, ...]:
        """The inputs by their weights, in their layout."""
        bias = self.in_proj_bias
        if self.in_proj_weight is None:
            weights: tuple[Tensor, ...] = (self.q_proj_weight, self.k_proj_weight, self.v_proj_weight)
        elif query is key and key is value:
            return F.linear(query, self.in_proj_weight, bias).chunk(3, -1)
        else:
            weights = self.in_proj_weight.chunk(3)
        biases = (None, None, None) if bias is None else bias.chunk(3)
        return tuple(F.linear(t, w, b) for t, w, b in zip((query, key, value), weights, biases, strict=True))

    def _heads(self, t: Tensor) -> Tensor:
        """[N, L, E], [L, N, E] or [L, E] -> [b, h, L, d]."""
        t = t.unflatten(-1, (self.num_heads, self.head_dim))
        if t.ndim == 3:
            return t.transpose(0, 1)[None]
        return t.transpose(1, 2) if self.batch_first else t.permute(1, 2, 0, 3)

    def _joined(self, output: Tensor, like: Tensor) -> Tensor:
        """[b, h, L, d] -> the layout of `like`: `_heads` turned back."""
        if like.ndim == 2:
            return output[0].transpose(0, 1).flatten(-2)
        return (output.transpose(1, 2) if self.batch_first else output.permute(2, 0, 1, 3)).flatten(-2)

    def _extended(self, t: Tensor, learned: Tensor | None) -> Tensor:
        """Keys or values [b, h, m, d] with the module's own after them."""
        b, h, _, d = t.shape
        own: list[Tensor] = []
        if learned is not None:
            own.append(learned.to(t.dtype).view(1, h, 1, d).expand(b, h, 1, d))
        if self.add_zero_attn:
            own.append(t.new_zeros(b, h, 1, d))
        return torch.cat([t, *own], 2) if own else t


def called_as_itself(module: nn.MultiheadAttention) -> None:
    """Tell nn.TransformerEncoderLayer to call this module, rather than a fused kernel with the module's weights.

    It asks `_qkv_same_embed_dim`: only packed projections can be handed to the kernel. Which layout they have is told
    by `in_proj_weight` as well, and nothing here asks for the other.
    """
    module._qkv_same_embed_dim = False
