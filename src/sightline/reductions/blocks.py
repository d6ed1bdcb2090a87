"""Reductions of blocks: the attention map at any resolution. Blocks may be of any size.

The last ones are what is left.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

from .._dims import Dims
from ..errors import SpecError
from ._law import Like, State, Sweep, Tile, whole_number
from .columns import lowest


@dataclass(frozen=True)
class _Blocks(Sweep):
    rows: int
    cols: int

    def like(self, dims: Dims, dtype: torch.dtype) -> tuple[Like, ...]:
        return (((dims.b, dims.h, -(-dims.n // self.rows), -(-dims.m // self.cols)), dtype),)

    def bind(self, dims: Dims, device: torch.device) -> Self:
        rows, cols = (whole_number(f"{type(self).__name__}.{n}", getattr(self, n)) for n in ("rows", "cols"))
        if rows < 1 or cols < 1:
            raise SpecError(f"{type(self).__name__} needs blocks of at least 1 × 1; it got {self.rows} × {self.cols}.")
        return self

    def _window(self, buffers: State, tile: Tile) -> Tensor:
        """The blocks that a tile touches."""
        rows = slice(tile.i0 // self.rows, -(-tile.i1 // self.rows))
        cols = slice(tile.j0 // self.cols, -(-tile.j1 // self.cols))
        return buffers[0][:, :, rows, cols]


@dataclass(frozen=True)
class BlockMass(_Blocks):
    """Σ of P over blocks of rows × cols: the map's mass at a coarser zoom -> [b, h, ⌈n/rows⌉, ⌈m/cols⌉]."""

    def dense(self, s: Tensor, p: Tensor) -> Tensor:
        return pooled(pooled(p, -2, 0, self.rows, torch.sum), -1, 0, self.cols, torch.sum)

    def absorb(self, buffers: State, tile: Tile) -> None:
        # Rows first: one pass over the tile, then only a few block rows are left to pool along the keys.
        by_row = pooled(tile.w, -2, tile.i0, self.rows, torch.sum)
        self._window(buffers, tile).add_(pooled(by_row, -1, tile.j0, self.cols, torch.sum))

    def sensitivity(self, grads: Sequence[Tensor | None], tile: Tile, into: Tensor) -> None:
        if grads[0] is not None:
            rows = torch.arange(tile.i0, tile.i1, device=into.device) // self.rows
            cols = torch.arange(tile.j0, tile.j1, device=into.device) // self.cols
            into += grads[0][:, :, rows][..., cols]


@dataclass(frozen=True)
class BlockMax(_Blocks):
    """max of P over blocks of rows × cols -> [b, h, ⌈n/rows⌉, ⌈m/cols⌉]. A selection: it carries no gradient."""

    differentiable = False

    def dense(self, s: Tensor, p: Tensor) -> Tensor:
        return pooled(pooled(p, -2, 0, self.rows, torch.amax), -1, 0, self.cols, torch.amax)

    def start(self, dims: Dims, dtype: torch.dtype, device: torch.device) -> State:
        return lowest(self.like(dims, dtype), device)

    def absorb(self, buffers: State, tile: Tile) -> None:
        by_row = pooled(tile.w, -2, tile.i0, self.rows, torch.amax)
        window = self._window(buffers, tile)
        torch.maximum(window, pooled(by_row, -1, tile.j0, self.cols, torch.amax), out=window)
        # Keys that the tile leaves out are 0 in these rows: in every block that holds one.
        rows = slice(tile.i0 // self.rows, -(-tile.i1 // self.rows))
        buffers[0][:, :, rows, : -(-tile.j0 // self.cols)].clamp_(min=0)
        if tile.j1 < tile.m:
            buffers[0][:, :, rows, tile.j1 // self.cols :].clamp_(min=0)


def pooled(t: Tensor, dim: int, first: int, size: int, op: Callable[..., Tensor]) -> Tensor:
    """Pool `dim` (−1 or −2), whose first element has index `first`, into the blocks of `size` that it touches."""
    length = t.shape[dim]
    head = min(-first % size, length)  # up to the first block edge
    whole = (length - head) // size * size
    parts: list[Tensor] = []
    if head:
        parts.append(op(t.narrow(dim, 0, head), dim, keepdim=True))
    if whole:
        parts.append(op(t.narrow(dim, head, whole).unflatten(dim, (-1, size)), dim))
    if head + whole < length:
        parts.append(op(t.narrow(dim, head + whole, length - head - whole), dim, keepdim=True))
    return parts[0] if len(parts) == 1 else torch.cat(parts, dim)
