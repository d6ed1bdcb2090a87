"""A head looked over as a whole, bit by bit: its map of blocks, from which far-out tiles are pooled, and its tracks."""

from __future__ import annotations

import time

import torch

from ..matrix import AttentionMatrix
from ..reductions import BlockMass, BlockMax, ColumnMoment, Entropy, Reduction
from .crew import each, shares
from .geometry import SIDE, Pyramid
from .head import Head

__all__ = ["BLOCK", "Survey", "block_of"]

BLOCK = 16
"""Weights on a side of a block of the map. A tile of smaller blocks has at most (8 · 256)² weights, and is computed
when it is looked at."""

_LARGEST = 16 * SIDE
"""Blocks on a side of the map, at most: two float32 maps of 4096 × 4096 are 134 MB."""

_PRODUCTS = 1 << 25
"""Weights computed between two looks at the clock."""


def block_of(pyramid: Pyramid) -> int:
    """Weights on a side of a block of this matrix's map."""
    return max(BLOCK, pyramid.block(0) * SIDE // _LARGEST)


class Survey:
    """What one pass over a head's rows gives, as far as it has come.

    mass, largest: [⌈n/block⌉, ⌈m/block⌉], sums and maxima of blocks. entropy: [n], in nats. received: [m], the sum of
    each key's weights over the rows that are `done`.
    """

    def __init__(self, n: int, m: int) -> None:
        self.block = block_of(Pyramid(n, m))
        self.n, self.m, self.done = n, m, 0
        self.mass, self.largest = torch.zeros(2, -(-n // self.block), -(-m // self.block)).unbind(0)
        self.entropy = torch.zeros(n)
        self.received = torch.zeros(m, dtype=torch.float64)
        height = max(1, _PRODUCTS // (max(1, m) * self.block)) * self.block
        self._height = height

    @property
    def nbytes(self) -> int:
        """What it holds in memory."""
        return sum(t.nbytes for t in (self.mass, self.largest, self.entropy, self.received))

    @property
    def complete(self) -> bool:
        """Whether all rows are done."""
        return self.done >= self.n

    def advance(self, head: Head, seconds: float) -> None:
        """Go on for about this long, a step at least."""
        stop = time.perf_counter() + seconds
        while not self.complete:
            rows = range(self.done, min(self.n, self.done + self._height))
            parts = shares(rows, self.block)
            for part, found in zip(parts, each(lambda part: self._observed(head.rows(part)), parts), strict=True):
                into = slice(part.start // self.block, -(-part.stop // self.block))
                self.mass[into], self.largest[into] = found["mass"][0, 0], found["max"][0, 0]
                self.entropy[part.start : part.stop] = found["entropy"][0, 0]
                self.received += found["received"][0, 0, :, 0]
            self.done = rows.stop
            if time.perf_counter() >= stop:
                break

    def _observed(self, matrix: AttentionMatrix) -> dict[str, torch.Tensor]:
        asked: dict[str, Reduction] = {
            "mass": BlockMass(self.block, self.block),
            "max": BlockMax(self.block, self.block),
            "entropy": Entropy(),
            "received": ColumnMoment(torch.ones(1, 1, matrix.shape[2], 1)),
        }
        return matrix.reduce(asked)
