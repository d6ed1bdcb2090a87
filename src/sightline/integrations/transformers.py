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
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel

from ..errors import Unsupported
from ..recording import Kind, Listener
from ._attention import sightline_attention
from ._hiding import hidden_keys
from ._kinds import watching
from ._lazy_bias import lazy_biases
from ._lazy_mask import lazy_mask
from ._refusals import check
from ._sessions import session
from ._source import dispatches

__all__ = ["NAME", "attached", "hearing", "hiding", "listening"]

NAME = "sightline"
"""The name of the implementation. It must not contain "sdpa", "flash", "flex_attention" or "paged|": Transformers
looks for these in names."""


@contextmanager
def attached(model: nn.Module) -> Generator[None]:
    """Compute the attention of this model, its submodels included, with Sightline inside the block.

    T5 and its kin are handed their position bias as a specification, by hooks that go with the block (`_lazy_bias`);
    switched by `set_attn_implementation` alone they make it as a tensor, and are as exact.

    The implementations set before are set again afterwards, also after an exception. Blocks may nest and overlap, on
    one model or on several that share a configuration; the last to end restores.

    Raises Unsupported where the model, or a submodel, has attention that cannot be replaced; nothing is changed then.
    """
    roots = _outermost(check(model))
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
            for config in _configs_of_attention(root):
                config._attn_implementation_internal = NAME
        with lazy_biases(model, NAME):
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
    with hearing(model), session(model, listener):
        yield


@contextmanager
def hearing(model: nn.Module) -> Generator[None]:
    """`attached`, and calls know whose tokens attend to whose; sessions begun inside are delivered to."""
    with attached(model), watching(model):
        yield


@contextmanager
def hiding(model: nn.Module, keys: Tensor, kind: Kind = "decoder") -> Generator[None]:
    """`attached`, and the queries of this model's calls of one kind may not attend to some keys inside the block.

    keys: boolean [b, length] or [1, length], True where hidden; keys at positions from `length` on are not. The model's
    own masks, windows and positions stay as they are: hidden keys lose their weight, the rest is normalised again. Only
    calls made in the same context are concerned. Raises Unsupported as `attached` does, ShapeError for a b that is not
    the batch's.
    """
    with hearing(model), hidden_keys(model, keys, kind):
        yield


def register() -> None:
    """Register the attention function and the mask function with Transformers. Doing it again changes nothing."""
    AttentionInterface.register(NAME, sightline_attention)
    AttentionMaskInterface.register(NAME, lazy_mask)


def _outermost(parts: list[PreTrainedModel]) -> list[PreTrainedModel]:
    nested = {id(child) for part in parts for child in part.modules() if child is not part}
    return [part for part in parts if id(part) not in nested]


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
    waiting += _configs_of_attention(root)
    seen: set[int] = set()
    while waiting:
        config = waiting.pop()
        if config is None or id(config) in seen:
            continue
        seen.add(id(config))
        yield config
        waiting += [getattr(config, name, None) for name in config.sub_configs]


def _configs_of_attention(root: PreTrainedModel) -> list[Any]:
    """The configurations that attention modules hold. A model put together from others replaces theirs, not these."""
    return [part.config for part in root.modules() if dispatches(type(part)) and hasattr(part, "config")]


_lock = threading.Lock()
_held: dict[int, tuple[Any, str | None, int]] = {}
"""For each configuration attached to: itself (so that its id stays its own), what was set before, and by how many."""

register()
