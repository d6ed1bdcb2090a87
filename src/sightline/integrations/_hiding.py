"""Keys that a model's queries may not see, on top of whatever its own masks say.

The keys are taken out where attention is computed, by one more mask. Told to the model instead, as a padding mask or a
mask of four dimensions, they would move positions in models that count positions from the mask (ALiBi's), and a mask of
four dimensions would replace the sliding windows.
"""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import replace

from torch import Tensor, nn

from ..errors import ShapeError
from ..masks import DenseMask, Mask
from ..recording import Kind
from ._kinds import kind_of
from ._mask_lowering import Lowered


class _Hidden:
    """Keys [b|1, length] boolean, True where hidden, from the calls of one kind by the modules of one model."""

    def __init__(self, model: nn.Module, keys: Tensor, kind: Kind) -> None:
        self.modules = frozenset(model.modules())
        self.keys = keys
        self.kind: Kind = kind


_of_this_context: ContextVar[tuple[_Hidden, ...]] = ContextVar("sightline_hidden", default=())


@contextmanager
def hidden_keys(model: nn.Module, keys: Tensor, kind: Kind) -> Generator[None]:
    """Hide keys from this model's calls of this kind, inside the block and in this context only."""
    new = _Hidden(model, keys, kind)
    _of_this_context.set((*_of_this_context.get(), new))
    try:
        yield
    finally:
        # Not a token's reset: that fails where a generator or a fixture is closed in another context than it began in.
        _of_this_context.set(tuple(h for h in _of_this_context.get() if h is not new))


def without_hidden(module: nn.Module, query: Tensor, key: Tensor, placed: Lowered) -> Lowered:
    """The mask of a call with what is hidden from this module taken out."""
    for hidden in _of_this_context.get():
        n, m = query.shape[2], key.shape[2]
        if module in hidden.modules and kind_of(module, n, m, placed) == hidden.kind:
            mask = _admitting(hidden.keys, placed.key_start, m, query)
            placed = replace(placed, mask=mask if placed.mask is None else placed.mask & mask)
    return placed


def _admitting(keys: Tensor, start: int, m: int, query: Tensor) -> Mask:
    """[b|1, 1, 1, m], True where admitted. Column j is the key at start + j; those past the last are not hidden."""
    if keys.shape[0] not in (1, query.shape[0]):
        raise ShapeError(
            f"keys were to be hidden from {keys.shape[0]} sequences; this call has {query.shape[0]}. "
            f"Pass [1, keys] or [{query.shape[0]}, keys]."
        )
    admitted = query.new_ones((keys.shape[0], m), dtype=keys.dtype)
    there = keys[:, start : start + m]
    admitted[:, : there.shape[1]] = ~there.to(query.device)
    return DenseMask(admitted[:, None, None])
