"""Whose tokens attend to whose in a call: an encoder's, a decoder's, or a decoder's to the encoder's.

Attention functions are not told. What says it is what the attention module itself was called with: a module that got
the states of others, as `key_value_states`, attends to those. The rest follows from where the module stands in the
model, and, for models that are not made of an encoder and a decoder, from the mask.
"""

from __future__ import annotations

import inspect
import threading
from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel

from ..recording import Kind
from ._mask_lowering import Lowered
from ._source import dispatches

_STATES_OF_OTHERS = ("key_value_states", "encoder_hidden_states", "cross_attention_states")
"""What attention modules call the states that their keys are made from, where those are not their own."""


@contextmanager
def watching(model: nn.Module) -> Generator[None]:
    """Notice, inside the block, which attention modules of this model are given the states of others."""
    global _all
    new = _Watch(model)
    hooks = [module.register_forward_pre_hook(new.notice, with_kwargs=True) for module in new.places]
    with _lock:
        _all = (*_all, new)
    try:
        yield
    finally:
        with _lock:
            _all = tuple(watch for watch in _all if watch is not new)
        for hook in hooks:
            hook.remove()


def kind_of(module: nn.Module, n: int, m: int, placed: Lowered) -> Kind:
    """The kind of a call of n queries and m keys by a module of a model that is watched."""
    watch = next((watch for watch in _all if module in watch.modules), None)
    if (watch is not None and watch.crosses(module)) or (not placed.causal and n != m):
        return "cross"
    part = None if watch is None else watch.parts.get(module)
    if watch is not None and part == "decoder" and not placed.causal and module not in watch.places:
        return "cross"  # handed keys that were made elsewhere, as many as it has queries by chance
    return part or ("decoder" if placed.causal else "encoder")


class _Watch:
    """What is known of the modules of one model."""

    def __init__(self, model: nn.Module) -> None:
        self.modules = frozenset(model.modules())
        self.parts = _parts(model)
        attentions = [module for module in model.modules() if dispatches(type(module))]
        self.places = {module: places for module in attentions if (places := _places(module))}
        self._cross: dict[tuple[int, nn.Module], bool] = {}  # by thread: several may run one model

    def crosses(self, module: nn.Module) -> bool:
        """Whether this module, which this thread is running, was given the states of others."""
        return self._cross.get((threading.get_ident(), module), False)

    @torch.compiler.disable(reason="what is noticed is kept outside of any graph")
    def notice(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        given = [args[at] if at < len(args) else kwargs.get(name) for name, at in self.places[module].items()]
        self._cross[threading.get_ident(), module] = any(states is not None for states in given)


_all: tuple[_Watch, ...] = ()
_lock = threading.Lock()


def _places(module: nn.Module) -> dict[str, int]:
    """Where in its arguments a module takes the states of others: name → position."""
    names = list(inspect.signature(module.forward).parameters)
    return {name: names.index(name) for name in _STATES_OF_OTHERS if name in names}


def _parts(model: nn.Module) -> dict[nn.Module, Kind]:
    """The modules of every encoder and decoder, where a model has both."""
    found: dict[nn.Module, Kind] = {}
    for whole in model.modules():
        if not isinstance(whole, PreTrainedModel) or not whole.config.is_encoder_decoder:
            continue
        encoder, decoder = whole.get_encoder(), whole.get_decoder()
        if encoder is whole or decoder is whole or encoder is decoder:
            continue  # one half by itself: its masks say which
        found.update(dict.fromkeys(encoder.modules(), "encoder"))
        found.update(dict.fromkeys(decoder.modules(), "decoder"))
    return found
