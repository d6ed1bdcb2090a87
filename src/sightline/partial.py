"""The merge algebra: what some keys contribute to each row, and how contributions join.

Law 1, fold: a row's state is (reference, mass, the folds' own states). Any cut of the keys, merged in any order,
finishes to the same results up to rounding. Tile loops, split caches and shards on other machines all use this merge.
Source: the online softmax of Milakov and Gimelshein 2018; `shift` generalises its rescaling to folds that are not
linear.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from .errors import SpecError
from .reductions._law import RowFold, Settled, State, Tile, encode


@dataclass(frozen=True)
class Partial:
    """The state of rows after some of their keys.

    reference: [b, h, n], the largest logit seen, −inf where none was; mass: [b, h, n], Σ e^(s − reference);
    folds and states: the reductions in progress and the state of each. All float32 or better.
    """

    folds: Mapping[str, RowFold]
    reference: Tensor
    mass: Tensor
    states: Mapping[str, State]

    @staticmethod
    def lift(folds: Mapping[str, RowFold], i0: int, j0: int, s: Tensor, e: Tensor | None = None) -> Partial:
        """The state after one tile of logits s [b, h, ti, tj], whose first row is i0 and first key j0.

        e: a buffer of the same shape for e^(s − reference); left holding it.
        """
        top = s.amax(-1)
        reference = finite(top)
        e = torch.sub(s, reference[..., None], out=e) if e is not None else s - reference[..., None]
        e.exp_()
        tile = Tile(i0, j0, j0 + s.shape[-1], s, e, reference)
        return Partial(folds, top, e.sum(-1), {name: fold.lift(tile) for name, fold in folds.items()})

    def shift(self, reference: Tensor) -> Partial:
        """The same state relative to a reference at least as high."""
        d = torch.where(self.reference == reference, 0, self.reference - reference)
        states = {name: fold.shift(self.states[name], d, self.mass) for name, fold in self.folds.items()}
        return Partial(self.folds, reference, self.mass * d.exp(), states)

    def merge(self, other: Partial) -> Partial:
        """The state after the keys of both. Raises SpecError when they fold different things."""
        if list(self.folds) != list(other.folds) or _shape(self.folds) != _shape(other.folds):
            raise SpecError(
                f"merge needs partials of the same reductions; they fold {list(self.folds)} and {list(other.folds)}."
            )
        reference = torch.maximum(self.reference, other.reference)
        a, b = self.shift(reference), other.shift(reference)
        states = {name: fold.merge(a.states[name], b.states[name]) for name, fold in self.folds.items()}
        return Partial(self.folds, reference, a.mass + b.mass, states)

    def settle(self, sinks: Tensor | None = None) -> tuple[Partial, Settled]:
        """All keys are in: add the sinks' share [h], once.

        The state relative to its final reference, and the rows' mass.
        """
        if sinks is None:
            partial, total = self, self.mass
        else:
            sink = sinks.to(self.mass.dtype)[:, None]
            partial = self.shift(torch.maximum(self.reference, sink))
            total = partial.mass + (sink - partial.reference).exp()
        reference = finite(partial.reference)
        lse = torch.where(partial.mass > 0, reference + total.log(), -torch.inf)
        # A row may lose all its mass to a much larger sink: it still has keys, so its normaliser is the sink's.
        lse = torch.where((self.reference > -torch.inf) & (partial.mass == 0), reference + total.log(), lse)
        return partial, Settled(reference, partial.mass, torch.where(total == 0, 1, total), lse)

    def finish(self, sinks: Tensor | None = None) -> dict[str, Any]:
        """The results by name. Adds the sinks' share [h], so give them once, at the end."""
        partial, rows = self.settle(sinks)
        return {name: fold.pack(fold.finish(partial.states[name], rows)) for name, fold in self.folds.items()}


def _shape(folds: Mapping[str, RowFold]) -> tuple[object, ...]:
    """What two partials must share to be merged: the reductions, their numbers, their operands' shapes."""
    encoded = encode(list(folds.values()))
    return encoded.kinds, encoded.ints, encoded.floats, [t.shape for t in encoded.operands]


def merge(a: Partial, b: Partial) -> Partial:
    """The state after the keys of both: associative and commutative up to rounding, exactly so for top-k keys."""
    return a.merge(b)


def finite(reference: Tensor) -> Tensor:
    """A reference to subtract: 0 in place of the −inf of rows without keys."""
    return torch.where(reference == -torch.inf, 0, reference)
