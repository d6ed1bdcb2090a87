"""Where tiles lie: a pyramid over a matrix, whose deepest level has one cell for each weight."""

from __future__ import annotations

from dataclasses import dataclass

from ..errors import SpecError

__all__ = ["SIDE", "Place", "Pyramid"]

SIDE = 256
"""Cells on a side of a tile."""


@dataclass(frozen=True)
class Place:
    """One tile: cells of `block` × `block` weights over these rows and keys, cut off at the matrix's edges."""

    block: int
    rows: range
    keys: range

    @property
    def cells(self) -> tuple[int, int]:
        """Rows and columns of cells; those of the last row and column may hold fewer weights than the others."""
        return -(-len(self.rows) // self.block), -(-len(self.keys) // self.block)


@dataclass(frozen=True)
class Pyramid:
    """Levels 0 … `deepest` over an n × m matrix: level 0 is one tile, and each level halves the cells of the last."""

    n: int
    m: int

    @property
    def deepest(self) -> int:
        """The level whose cells are single weights."""
        return max(0, (-(-max(self.n, self.m) // SIDE) - 1).bit_length())

    def block(self, z: int) -> int:
        """Weights on a side of a cell of level z. Raises SpecError where there is no such level."""
        if not 0 <= z <= self.deepest:
            raise SpecError(f"level {z} was asked for; there are levels 0 to {self.deepest}. Choose one of them.")
        return 1 << (self.deepest - z)

    def place(self, z: int, x: int, y: int) -> Place:
        """Tile x (from the left) and y (from the top) of level z. Raises SpecError where there is none."""
        block = self.block(z)
        side = SIDE * block
        if not (0 <= x * side < self.m and 0 <= y * side < self.n):
            raise SpecError(
                f"tile {x}, {y} of level {z} was asked for; it lies outside of the {self.n} × {self.m} matrix. "
                f"Choose x below {-(-self.m // side)} and y below {-(-self.n // side)}."
            )
        return Place(block, range(y * side, min(self.n, (y + 1) * side)), range(x * side, min(self.m, (x + 1) * side)))
