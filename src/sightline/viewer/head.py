"""One head's matrix, of one batch entry of one call, from which any window of weights is computed."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from ..matrix import AttentionMatrix
from ..recording import Record
from ..reductions.blocks import pooled
from .crew import each, shares
from .geometry import Place

__all__ = ["Head", "shrunk"]

_STRIP = 1 << 18
"""Weights computed at once: few enough to stay in a core's own cache while they are pooled."""

_LOG2_E = 1 / math.log(2)


@dataclass(frozen=True)
class Head:
    """P [1, 1, n, m], whose log-sum-exp is known, so that a window costs what the window costs."""

    matrix: AttentionMatrix

    @staticmethod
    def of(record: Record, head: int, batch: int) -> Head:
        """Read from the trace. Raises SpecError where q and k were not kept, TraceError where the file is damaged."""
        read = record.matrix(head)
        at = slice(batch, batch + 1)
        return Head(
            AttentionMatrix._of(
                read.q[at].contiguous(),
                read.k[at].contiguous(),
                read.scores.heads(at, slice(None)),
                "auto",
                read.lse()[at].contiguous(),
            )
        )

    @property
    def nbytes(self) -> int:
        """What it holds in memory."""
        return sum(tensor.nbytes for tensor in (self.matrix.q, self.matrix.k, self.matrix.lse()))

    def weights(self, rows: range, keys: range) -> Tensor:
        """P over these rows and keys, [len(rows), len(keys)]: exactly `matrix[0, 0, rows, keys]`.

        Where a row has nothing of its own but an interval of keys, that is one product and one pass:
        2^((scale · q·k − lse) / ln 2), since PyTorch's exp2 takes a quarter of the time of its exp.
        """
        P, scores = self.matrix, self.matrix.scores
        i, j = slice(rows.start, rows.stop), slice(keys.start, keys.stop)
        if any(t is not None for t in (scores.softcap, scores.relative, scores.additive, scores.allowed)):
            return P[0, 0, i, j]
        lse = P.lse()[0, 0, i, None]
        q, k = P.q[0, 0, i].to(lse.dtype), P.k[0, 0, j].to(lse.dtype)
        p = torch.addmm(lse, q, k.T, beta=-_LOG2_E, alpha=scores.scale * _LOG2_E).exp2_()
        if scores.lo is not None and scores.hi is not None:
            lo, hi = scores.lo[0, i, None], scores.hi[0, i, None]
            if int(lo.max()) > keys.start or int(hi.min()) < keys.stop:
                at = torch.arange(keys.start, keys.stop)
                p.masked_fill_((at < lo) | (at >= hi), 0)
        return p

    def sees(self, rows: range, keys: range) -> bool:
        """Whether these rows may see any of these keys."""
        lo, hi = self.matrix.scores.lo, self.matrix.scores.hi
        if lo is None or hi is None:
            return True
        i = slice(rows.start, rows.stop)
        first, last = lo[0, i].clamp(min=keys.start), hi[0, i].clamp(max=keys.stop)
        return bool((first < last).any())

    def pooled(self, place: Place) -> tuple[Tensor, Tensor]:
        """Of each cell the sum of its weights and the largest: two float32 tensors of `place.cells`."""
        # More shares than threads: those that a mask leaves empty are done at once.
        parts = [Place(place.block, rows, place.keys) for rows in shares(place.rows, place.block, of=4)]
        mass, largest = zip(*each(self._pooled, parts), strict=True)
        return torch.cat(mass), torch.cat(largest)

    def _pooled(self, place: Place) -> tuple[Tensor, Tensor]:
        mass, largest = torch.zeros(2, *place.cells, dtype=torch.float32).unbind(0)
        block, keys = place.block, place.keys
        height = max(1, _STRIP // (len(keys) * block)) * block
        for start in range(place.rows.start, place.rows.stop, height):
            rows = range(start, min(place.rows.stop, start + height))
            if self.sees(rows, keys):
                p = self.weights(rows, keys)
                at = (start - place.rows.start) // block
                into = slice(at, at + -(-len(rows) // block))
                mass[into] = shrunk(p, block, torch.sum)
                largest[into] = shrunk(p, block, torch.amax)
        return mass, largest

    def rows(self, rows: range) -> AttentionMatrix:
        """The matrix [1, 1, len(rows), m] of some rows, with every key."""
        return self.matrix._rows(rows.start, rows.stop)

    def row(self, i: int) -> Tensor:
        """P_i over all keys, float32 [m]."""
        return self.weights(range(i, i + 1), range(self.matrix.shape[3]))[0].float()

    def column(self, j: int) -> Tensor:
        """P over all rows of one key, float32 [n]."""
        return self.weights(range(self.matrix.shape[2]), range(j, j + 1))[:, 0].float()


def shrunk(p: Tensor, block: int, by: Callable[..., Tensor]) -> Tensor:
    """Sums or maxima of blocks, [n, m] -> [⌈n/block⌉, ⌈m/block⌉]. Rows first: one pass over memory as it lies."""
    return p if block == 1 else pooled(pooled(p, -2, 0, block, by), -1, 0, block, by)
