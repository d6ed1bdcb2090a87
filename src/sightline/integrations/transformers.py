"""Sightline inside Hugging Face Transformers models.

Importing this module registers "sightline" as an attention implementation, so that
`model.set_attn_implementation("sightline")` works. `attached` does that for a block and restores what was set before;
`listening` also delivers every attention call of the model to a listener; `sightline.record` is built on it.

Two functions are registered, always together: one computes attention, the other makes the mask. Under a name without a
mask function Transformers passes no mask at all, and padding is silently attended to.

Source: Transformers' AttentionInterface and AttentionMaskInterface; written against transformers 5.23.
"""

from __future__ import annotations

import threading
from collections.abc import Generator, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel

from ..biases import Bias, DenseBias
from ..errors import ShapeError, Unsupported
from ..functional import Observed, attention, observe
from ..masks import Causal, DenseMask
from ..matrix import AttentionMatrix
from ..recording import Call, Listener
from ..reductions import Reduction
from ._lazy_mask import LazyMask, lazy_mask
from ._mask_lowering import Lowered
from ._sessions import Session, session, sessions_of

__all__ = ["NAME", "attached", "listening"]

NAME = "sightline"
"""The name of the implementation. It must not contain "sdpa", "flash", "flex_attention" or "paged|": Transformers
looks for these in names."""

_READ_ELSEWHERE: Mapping[str, str] = {
    "sliding_window": "the mask is made from the same number",
    "position_ids": "q and k arrive after the rotary embedding, and packed positions are in the mask",
    "position_embeddings": "q and k arrive after the rotary embedding",
    "cache_position": "k and v arrive after the cache, and the mask carries its positions",
    "past_key_values": "k and v arrive after the cache",
    "use_cache": "says what the model returns",
    "output_hidden_states": "says what the model returns",
    "output_router_logits": "says what the model returns",
    "return_dict": "says what the model returns",
    "num_items_in_batch": "scales the loss",
    "encoder_hidden_states": "k and v were made from them",
    "max_length_q": "restates cu_seq_lens_q, which is refused",
    "max_length_k": "restates cu_seq_lens_k, which is refused",
    "deterministic": "chooses among flash-attention's backward passes",
}
"""Keyword arguments that models pass along and that do not change the attention weights, each with the reason."""

_REFUSED: Mapping[str, str] = {
    "output_attentions": "the matrix is never stored. Use sightline.record, or the model's own eager implementation",
    "cu_seq_lens_q": "packed sequences are read from position_ids: pass those, with use_cache=False and no "
    "attention_mask, and leave cu_seq_lens out",
    "cu_seq_lens_k": "packed sequences are read from position_ids: pass those, with use_cache=False and no "
    "attention_mask, and leave cu_seq_lens out",
    "seq_idx": "packed sequences are read from position_ids: pass those, with use_cache=False and no attention_mask",
    "indices": "this model chooses the keys of each query while it runs (sparse attention), which a mask made before "
    "cannot say. Use the model's own implementation",
    "block_indices": "this model chooses the keys of each query while it runs (sparse attention), which a mask made "
    "before cannot say. Use the model's own implementation",
    "cache": "continuous batching keeps k and v in pages. Use generate() instead",
}
"""Keyword arguments that do change the weights and that Sightline cannot honour, each with what to do."""


@contextmanager
def attached(model: nn.Module) -> Generator[None]:
    """Compute the attention of this model, its submodels included, with Sightline inside the block.

    The implementations set before are set again afterwards, also after an exception. Blocks may nest and overlap, on
    one model or on several that share a configuration; the last to end restores.

    Raises Unsupported where the model, or a submodel, has attention that cannot be replaced; nothing is changed then.
    """
    roots = _roots(model)
    register()
    configs = {id(config): config for root in roots for config in _configs(root)}
    with _lock:
        for key, config in configs.items():
            _, former, holders = _held.get(key, (config, config._attn_implementation_internal, 0))
            _held[key] = (config, former, holders + 1)
    try:
        for root in roots:
            root.set_attn_implementation(NAME)
            _check_attached(root)
        yield
    finally:
        with _lock:
            for key in configs:
                config, former, holders = _held.pop(key)
                if holders > 1:
                    _held[key] = (config, former, holders - 1)
                else:
                    # The attribute and not the method: the method spreads one name over all submodels.
                    config._attn_implementation_internal = former


@contextmanager
def listening(model: nn.Module, listener: Listener) -> Generator[None]:
    """`attached`, and every attention call of this model inside the block is delivered to the listener.

    Modules are named as in `model.named_modules()`. Calls of other models are not delivered; calls of this one made in
    other threads are. Several listeners may listen to one model. Raises Unsupported as `attached` does.
    """
    with attached(model), session(model, listener):
        yield


def register() -> None:
    """Register the attention function and the mask function with Transformers. Doing it again changes nothing."""
    AttentionInterface.register(NAME, sightline_attention)
    AttentionMaskInterface.register(NAME, lazy_mask)


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
    _check_arguments(module, dropout, kwargs)
    placed = _place(module, query, key, attention_mask, is_causal)
    logits: dict[str, Any] = {
        "mask": placed.mask,
        "bias": _bias(attention_mask, position_bias),
        "scale": scaling,
        "softcap": softcap,
        "sinks": s_aux,
    }
    sessions = sessions_of(module)
    if sessions:
        matrix = AttentionMatrix(query, key, **logits)
        output = _deliver(sessions, module, matrix, value, placed, query, key, logits)
    else:
        output = attention(query, key, value, **logits)
    return output.transpose(1, 2).contiguous(), None


def _deliver(
    sessions: list[Session],
    module: nn.Module,
    matrix: AttentionMatrix,
    value: Tensor,
    placed: Lowered,
    query: Tensor,
    key: Tensor,
    logits: Mapping[str, Any],
) -> Tensor:
    """One pass for all listeners: their reductions are observed together, and each is handed its own."""
    calls = [Call(s.names[module], module, matrix, value, placed.query_start, placed.key_start) for s in sessions]
    wanted = [s.listener.reductions(call) for s, call in zip(sessions, calls, strict=True)]
    together: dict[str, Reduction] = {
        f"{i}:{name}": reduction for i, reductions in enumerate(wanted) for name, reduction in reductions.items()
    }
    observed = observe(query, key, value, together, **logits)
    for i, (s, call, reductions) in enumerate(zip(sessions, calls, wanted, strict=True)):
        own = Observed(observed.output, {name: observed[f"{i}:{name}"] for name in reductions})
        s.listener.received(call, own)
    return observed.output


def _place(module: nn.Module, query: Tensor, key: Tensor, mask: Tensor | None, is_causal: bool | None) -> Lowered:
    """The mask of a call in Sightline's terms, and where its rows and columns stand. `is_causal` is what was passed."""
    n, m = query.shape[2], key.shape[2]
    if mask is None:
        if is_causal is None:
            is_causal = bool(getattr(module, "is_causal", True))
        if not is_causal or n == 1:  # one causal query is the newest token and sees every key
            return Lowered(None, m - n if is_causal or n == m else None, 0)
        if n != m:
            raise Unsupported(
                f"{type(module).__name__} asked for causal attention of {n} queries over {m} keys and gave no mask; "
                "whether the first or the last of them align is not said, and implementations differ. Pass a mask."
            )
        return Lowered(Causal(), 0, 0)
    # A mask says all there is to say: some models leave is_causal at a value that does not fit it.
    if mask.ndim != 4 or mask.shape[-2:] != (n, m):
        raise ShapeError(
            f"{type(module).__name__} was given an attention mask of shape {tuple(mask.shape)}; this call has {n} "
            f"queries and {m} keys. Pass a mask [b, 1, {n}, {m}], or a 2-D one over the tokens to the whole model."
        )
    if isinstance(mask, LazyMask):
        return mask.lowered(query.device)
    start = m - n if m >= n else None
    if mask.dtype == torch.bool:
        return Lowered(DenseMask(mask), start, 0)
    if mask.is_floating_point():
        return Lowered(None, start, 0)  # added to the logits, see `_bias`
    raise Unsupported(
        f"{type(module).__name__} was given an attention mask of {mask.dtype}; a 4-D mask is boolean (True = may "
        "attend) or floating point (added to the logits). Convert it with .bool()."
    )


def _bias(mask: Tensor | None, position_bias: Tensor | None) -> Bias | None:
    """What is added to the logits: a mask of numbers given by the user, a model's position bias, or their sum."""
    added = mask if mask is not None and not isinstance(mask, LazyMask) and mask.is_floating_point() else None
    if position_bias is not None:
        added = position_bias if added is None else added + position_bias
    return None if added is None else DenseBias(added)


def _check_arguments(module: nn.Module, dropout: float, kwargs: Mapping[str, Any]) -> None:
    """Raise Unsupported for dropout, and for keyword arguments that may mean something. None and False ask nothing."""
    if dropout:
        raise Unsupported(
            f"{type(module).__name__} asked for attention dropout {dropout}; Sightline computes the exact attention "
            "only. Call model.eval(), or set the model's attention dropout to 0."
        )
    for name, value in kwargs.items():
        if value is None or value is False or name in _READ_ELSEWHERE:
            continue
        why = _REFUSED.get(
            name,
            "its meaning is not known here, and leaving it out could change the result without a sign. Use the "
            "model's own implementation, and report this model",
        )
        raise Unsupported(f"{type(module).__name__} passed {name!r} to its attention; {why}.")


def _roots(model: nn.Module) -> list[PreTrainedModel]:
    """The outermost Transformers models in `model`, itself or inside a wrapper. Raises Unsupported, see `attached`."""
    inside = [module for module in model.modules() if isinstance(module, PreTrainedModel)]
    if not inside:
        raise Unsupported(
            f"{type(model).__name__} was asked to compute its attention with Sightline; it is not a Transformers "
            "model and holds none. Call sightline.attention or sightline.observe in its code instead."
        )
    for part in inside:
        if not part._can_set_attn_implementation():
            raise Unsupported(
                f"{type(model).__name__} was asked to compute its attention with Sightline; "
                f"{'it' if part is model else type(part).__name__} computes attention in its own code, not through "
                "Transformers' AttentionInterface, so it can be neither replaced nor observed. Use a model family that "
                "goes through it, such as Llama, Qwen or BERT."
            )
    nested = {id(child) for part in inside for child in part.modules() if child is not part}
    return [part for part in inside if id(part) not in nested]


def _check_attached(root: PreTrainedModel) -> None:
    """Raise Unsupported where a part kept its implementation: it would run unobserved, and nobody would know."""
    for part in root.modules():
        if isinstance(part, PreTrainedModel) and part.config._attn_implementation != NAME:
            raise Unsupported(
                f"{type(root).__name__} was asked to compute its attention with Sightline; {type(part).__name__} stays "
                f'with "{part.config._attn_implementation}" when told to change. Use a model that can be told.'
            )


def _configs(root: PreTrainedModel) -> Iterator[Any]:
    """Every configuration that setting the implementation of `root` may change."""
    waiting: list[Any] = [part.config for part in root.modules() if isinstance(part, PreTrainedModel)]
    seen: set[int] = set()
    while waiting:
        config = waiting.pop()
        if config is None or id(config) in seen:
            continue
        seen.add(id(config))
        yield config
        waiting += [getattr(config, name, None) for name in config.sub_configs]


_lock = threading.Lock()
_held: dict[int, tuple[Any, str | None, int]] = {}
"""For each configuration attached to: itself (so that its id stays its own), what was set before, and by how many."""

register()
