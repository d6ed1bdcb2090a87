"""Reductions down a column: what each key receives. They need settled weights, since they cross rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Self

import torch
from torch import Tensor

from .._dims import Dims
from ._law import BY_HEAD, Like, State, Sweep, Tile, by_head, floating, gather_heads, spread


@dataclass(frozen=True, eq=False)
class Received(Sweep):
    """Σ_i w_i P_ij: the attention each key receives from all queries -> [b, h, m].

    weights: [b|1, h|1, n], how much each query counts; by default 1. Rows without keys contribute 0.
    """

    weights: Tensor | None = field(default=None, metadata=BY_HEAD)

    def dense(self, s: Tensor, p: Tensor) -> Tensor:
        return (
            p.sum(-2) if self.weights is None else (p * spread(self.weights.to(p.dtype), p.shape[1])[..., None]).sum(-2)
        )

    def like(self, dims: Dims, dtype: torch.dtype) -> tuple[Like, ...]:
        return (((dims.b, dims.h, dims.m), dtype),)

    def bind(self, dims: Dims, device: torch.device) -> Self:
        if self.weights is None:
            return self
        weights = by_head("Received.weights", self.weights, (dims.n,), dims, "[b|1, h|1, n]")
        return replace(self, weights=floating("Received.weights", weights, device))

    def absorb(self, buffers: State, tile: Tile) -> None:
        part = (
            tile.w.sum(-2) if self.weights is None else (self._rows(tile, self.weights)[:, :, None] @ tile.w)[:, :, 0]
        )
        buffers[0][:, :, tile.j0 : tile.j1] += part

    def _rows(self, tile: Tile, weights: Tensor) -> Tensor:
        return spread(weights, tile.w.shape[1])[:, :, tile.i0 : tile.i1]

    def sensitivity(self, grads: Sequence[Tensor | None], tile: Tile, into: Tensor) -> None:
        if grads[0] is not None:
            g = grads[0][:, :, None, tile.j0 : tile.j1]
            into += g if self.weights is None else g * self._rows(tile, self.weights)[..., None]

    def operand_gradient(self, grads: Sequence[Tensor | None], tile: Tile, into: Sequence[Tensor]) -> None:
        if grads[0] is not None and self.weights is not None:
            part = (tile.w @ grads[0][:, :, tile.j0 : tile.j1, None])[..., 0]
            into[0][:, :, tile.i0 : tile.i1] += gather_heads(part, self.weights)


@dataclass(frozen=True, eq=False)
class ColumnMoment(Sweep):
    """Pᵀ w: what each key receives of w from the queries that look at it -> [b, h, m, c], in w's dtype.

    w: [b|1, h|hk|1, n, c]. Gradients flow to q, k and w.
    """

    w: Tensor = field(metadata=BY_HEAD)

    def dense(self, s: Tensor, p: Tensor) -> Tensor:
        return (p.mT @ spread(self.w.to(p.dtype), p.shape[1])).to(self.w.dtype)

    def like(self, dims: Dims, dtype: torch.dtype) -> tuple[Like, ...]:
        return (((dims.b, dims.h, dims.m, self.w.shape[-1]), self.w.dtype),)

    def bind(self, dims: Dims, device: torch.device) -> Self:
        w = by_head("ColumnMoment.w", self.w, (dims.n, -1), dims, "[b|1, h|hk|1, n, c]")
        return replace(self, w=floating("ColumnMoment.w", w, device))

    def absorb(self, buffers: State, tile: Tile) -> None:
        buffers[0][:, :, tile.j0 : tile.j1] += tile.w.mT @ self._rows(tile)

    def _rows(self, tile: Tile) -> Tensor:
        return spread(self.w[:, :, tile.i0 : tile.i1], tile.w.shape[1])

    def sensitivity(self, grads: Sequence[Tensor | None], tile: Tile, into: Tensor) -> None:
        if grads[0] is not None:
            into += self._rows(tile) @ grads[0][:, :, tile.j0 : tile.j1].mT

    def operand_gradient(self, grads: Sequence[Tensor | None], tile: Tile, into: Sequence[Tensor]) -> None:
        if grads[0] is not None:
            part = tile.w @ grads[0][:, :, tile.j0 : tile.j1]
            into[0][:, :, tile.i0 : tile.i1] += gather_heads(part, self.w)


@dataclass(frozen=True)
class ColumnMax(Sweep):
    """max_i P_ij: the largest weight any query gives each key -> [b, h, m]. A selection: it carries no gradient."""

    differentiable = False

    def dense(self, s: Tensor, p: Tensor) -> Tensor:
        return p.amax(-2)

    def like(self, dims: Dims, dtype: torch.dtype) -> tuple[Like, ...]:
        return (((dims.b, dims.h, dims.m), dtype),)

    def start(self, dims: Dims, dtype: torch.dtype, device: torch.device) -> State:
        return lowest(self.like(dims, dtype), device)

    def absorb(self, buffers: State, tile: Tile) -> None:
        seen = buffers[0][:, :, tile.j0 : tile.j1]
        torch.maximum(seen, tile.w.amax(-2), out=seen)
        # Keys that the tile leaves out are 0 in these rows.
        buffers[0][:, :, : tile.j0].clamp_(min=0)
        buffers[0][:, :, tile.j1 :].clamp_(min=0)


def lowest(like: tuple[Like, ...], device: torch.device) -> State:
    """Buffers for maxima, of weights or of a signed field: −inf."""
    return tuple(torch.full(shape, -torch.inf, dtype=dtype, device=device) for shape, dtype in like)
