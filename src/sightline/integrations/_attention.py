"""The attention function registered with Transformers: a call in its terms becomes one in Sightline's.

Source: Transformers' AttentionInterface; written against transformers 5.23.
"""

from __future__ import annotations

import warnings
from typing import Any

import torch
from torch import Tensor, nn

from ..biases import Bias, DenseBias
from ..errors import ShapeError, Unsupported
from ..functional import attention, observe
from ..masks import Causal, DenseMask
from ..matrix import AttentionMatrix
from ..recording import Call
from ._arguments import check_arguments
from ._hiding import without_hidden
from ._kinds import kind_of
from ._lazy_bias import LazyBias
from ._lazy_mask import LazyMask
from ._mask_lowering import Lowered
from ._sessions import Session, deliver, sessions_of


@torch.compiler.disable(reason="masks and listeners are plain Python; the model around them still compiles")
def sightline_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    is_causal: bool | None = None,
    softcap: float | None = None,
    s_aux: Tensor | None = None,
    position_bias: Tensor | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """The attention function registered with Transformers.

    query [b,h,n,d], key [b,hk,m,d] and value [b,hk,m,dv] come after rotary embedding and cache; s_aux [h] are the
    logits of the sinks; position_bias [b|1,h,n,m] is added to the logits. Returns the output [b,n,h,dv] and None: there
    is no matrix to return. In a compiled model the graph breaks here.

    Raises Unsupported for dropout and for every keyword argument that is not known to be harmless.
    """
    check_arguments(module, dropout, kwargs)
    placed = _place(module, query, key, attention_mask, is_causal)
    _warn_of_packing(kwargs.get("position_ids"), placed)
    placed = without_hidden(module, query, key, placed)
    logits: dict[str, Any] = {
        "mask": placed.mask,
        "bias": _added(attention_mask, position_bias),
        "scale": scaling,
        "softcap": softcap,
        "sinks": s_aux,
    }
    sessions = sessions_of(module)
    if sessions:
        matrix = AttentionMatrix(query, key, **logits)
        calls = [(s, _call(s, module, matrix, value, placed)) for s in sessions]
        output = deliver(calls, {}, lambda asked: observe(query, key, value, asked, **logits)).output
    else:
        output = attention(query, key, value, **logits)
    return output.transpose(1, 2).contiguous(), None


def _call(session: Session, module: nn.Module, matrix: AttentionMatrix, value: Tensor, placed: Lowered) -> Call:
    """The call as a listener hears it. In cross-attention queries and keys are positions of different sequences."""
    n, m = matrix.shape[2:]
    kind = kind_of(module, n, m, placed)
    query_start = None if kind == "cross" else placed.query_start
    return Call(session.names[module], module, matrix, value, query_start, placed.key_start, kind)


def _warn_of_packing(position_ids: Any, placed: Lowered) -> None:
    """Say where sequences that are packed are not kept apart: Transformers looks for packing only without a cache."""
    # Three rows of positions, as some models of images have, start again for reasons of their own.
    packed = isinstance(position_ids, Tensor) and position_ids.ndim == 2 and isinstance(placed.mask, Causal)
    if packed and bool((position_ids.diff() <= 0).any()):
        warnings.warn(
            "position_ids start again, as those of packed sequences do, and the mask does not part the sequences: each "
            "sees those before it, in every attention implementation. Pass use_cache=False and no attention_mask, and "
            "Transformers parts them.",
            stacklevel=3,
        )


def _place(module: nn.Module, query: Tensor, key: Tensor, mask: Tensor | None, is_causal: bool | None) -> Lowered:
    """The mask of a call in Sightline's terms, and where its rows and columns stand. `is_causal` is what was passed."""
    n, m = query.shape[2], key.shape[2]
    if is_causal is None:
        is_causal = bool(getattr(module, "is_causal", True))
    if mask is None:
        if not is_causal or n == 1:  # one causal query is the newest token and sees every key
            return Lowered(None, m - n if is_causal or n == m else None, 0, is_causal)
        if n != m:
            raise Unsupported(
                f"{type(module).__name__} asked for causal attention of {n} queries over {m} keys and gave no mask; "
                "whether the first or the last of them align is not said, and implementations differ. Pass a mask."
            )
        return Lowered(Causal(), 0, 0, True)
    # A mask says all there is to say: some models leave is_causal at a value that does not fit it.
    if mask.ndim != 4 or mask.shape[-2] not in (1, n) or mask.shape[-1] != m:
        raise ShapeError(
            f"{type(module).__name__} was given an attention mask of shape {tuple(mask.shape)}; this call has {n} "
            f"queries and {m} keys. Pass a mask [b, 1, {n}, {m}] or [b, 1, 1, {m}], or a 2-D one over the tokens to "
            "the whole model."
        )
    if isinstance(mask, LazyMask):
        return mask.lowered(query.device)
    start = m - n if m >= n else None
    if mask.dtype == torch.bool:
        return Lowered(DenseMask(mask), start, 0, is_causal)
    if mask.is_floating_point():
        return Lowered(None, start, 0, is_causal)  # added to the logits, see `_added`
    raise Unsupported(
        f"{type(module).__name__} was given an attention mask of {mask.dtype}; a 4-D mask is boolean (True = may "
        "attend) or floating point (added to the logits). Convert it with .bool()."
    )


def _added(mask: Tensor | None, position_bias: Tensor | None) -> Bias | None:
    """What is added to the logits: a mask of numbers given by the user, a model's position bias, or their sum."""
    parts: list[Bias] = []
    if mask is not None and not isinstance(mask, LazyMask) and mask.is_floating_point():
        parts.append(DenseBias(mask))
    if isinstance(position_bias, LazyBias):
        parts += [] if position_bias.bias is None else [position_bias.bias]
    elif position_bias is not None:
        parts.append(DenseBias(position_bias))
    return None if not parts else parts[0] if len(parts) == 1 else parts[0] + parts[1]
