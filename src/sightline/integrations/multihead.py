"""Listening to `nn.MultiheadAttention` in any module tree: nn.Transformer and its parts, and models built of them."""

from __future__ import annotations

import threading
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace

import torch
from torch import nn

from ..errors import Unsupported
from ..functional import Observed
from ..matrix import AttentionMatrix
from ..nn.multihead import Heads, MultiheadAttention
from ..nn.replacing import attentions, change_class
from ..recording import Call, Kind
from ..reductions import Reduction
from ._sessions import deliver, sessions_of

__all__ = ["attached"]


@contextmanager
def attached(model: nn.Module) -> Generator[None]:
    """Compute every nn.MultiheadAttention in `model` with Sightline inside the block, and deliver its calls.

    Each gets its own class back afterwards, also after an exception. Blocks may nest and overlap; the last to end
    restores. Raises Unsupported, and changes nothing, where there is none, or one of a subclass with code of its own.
    """
    found = attentions(model)
    for part in found:
        if type(part) not in (nn.MultiheadAttention, MultiheadAttention, Recorded):
            raise Unsupported(
                f"{type(model).__name__} was asked to be recorded; it holds a {type(part).__name__}, a subclass of "
                "sightline.nn.MultiheadAttention whose own code would be lost. Pass observe= to that module's forward."
            )
    kinds: dict[int, Kind] = {}
    for layer in model.modules():
        if isinstance(layer, nn.TransformerDecoderLayer):
            kinds |= {id(layer.self_attn): "decoder", id(layer.multihead_attn): "cross"}
    with _lock:
        for part in found:
            held = _held.get(id(part), _Held(part, type(part), None, 0))
            kind = held.kind or kinds.get(id(part))
            _held[id(part)] = replace(held, kind=kind, holders=held.holders + 1)
            change_class(part, Recorded)
    try:
        yield
    finally:
        with _lock:
            for part in found:
                held = _held.pop(id(part))
                if held.holders > 1:
                    _held[id(part)] = replace(held, holders=held.holders - 1)
                else:
                    change_class(part, held.former)


class Recorded(MultiheadAttention):
    """A multi-head attention whose calls are delivered to the sessions that listen to it.

    A call is "cross" where key is another tensor than query or the layer attends to its memory; "decoder" where it is
    causal or the layer is a decoder's; "encoder" otherwise.
    """

    @torch.compiler.disable(reason="listeners are plain Python; the model around them still compiles")
    def attend(self, heads: Heads, reductions: Mapping[str, Reduction]) -> Observed:
        calls = [
            (
                s,
                Call(
                    name=s.names[self],
                    module=self,
                    matrix=AttentionMatrix(heads.q, heads.k, mask=heads.mask, bias=heads.bias),
                    value=heads.v,
                    query_start=0 if heads.own else None,
                    kind=self._kind(heads),
                ),
            )
            for s in sessions_of(self)
        ]
        return deliver(calls, reductions, lambda together: super(Recorded, self).attend(heads, together))

    def _kind(self, heads: Heads) -> Kind:
        held = _held.get(id(self))
        if held is not None and held.kind is not None:
            return held.kind
        return "cross" if not heads.own else "decoder" if heads.causal else "encoder"


@dataclass(frozen=True)
class _Held:
    """A module attached to, its class before, what its layer says it is, and how many blocks hold it."""

    module: nn.MultiheadAttention
    former: type[nn.MultiheadAttention]
    kind: Kind | None
    holders: int


_lock = threading.Lock()
_held: dict[int, _Held] = {}
