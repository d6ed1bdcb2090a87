"""Reductions along a row: what each query does with its weights. All fold while the row settles."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Self

import torch
from torch import Tensor

from .._dims import Dims, readable
from ..errors import ShapeError, SpecError
from ._law import BY_HEAD, Like, RowFold, Settled, State, Tile, by_head, floating, grouped_matmul, spread, whole_number


@dataclass(frozen=True, eq=False)
class RowMoment(RowFold):
    """P f: the mean of f over the keys, as each query weighs them -> [b, h, n, c], in f's dtype.

    f: [b|1, h|hk|1, m, c]. With f = v this is attention itself; with f = key positions it is the mean place looked at.
    Rows without keys give 0. Gradients flow to q, k and f. Source: Vaswani et al. 2017, eq. 1.
    """

    linear = True

    f: Tensor = field(metadata=BY_HEAD)

    def dense(self, s: Tensor, p: Tensor) -> Tensor:
        return (p @ spread(self.f.to(p.dtype), p.shape[1])).to(self.f.dtype)

    def like(self, dims: Dims, dtype: torch.dtype) -> tuple[Like, ...]:
        return (((dims.b, dims.h, dims.n, self.f.shape[-1]), self.f.dtype),)

    def bind(self, dims: Dims, device: torch.device) -> Self:
        f = by_head("RowMoment.f", self.f, (dims.m, -1), dims, "[b|1, h|hk|1, m, c]")
        return replace(self, f=floating("RowMoment.f", f, device))

    def lift(self, tile: Tile) -> State:
        return (grouped_matmul(tile.w, self.f[:, :, tile.j0 : tile.j1]),)

    def shift(self, state: State, d: Tensor, mass: Tensor) -> State:
        return (state[0] * d.exp()[..., None],)

    def merge(self, a: State, b: State) -> State:
        return (a[0] + b[0],)

    def finish(self, state: State, rows: Settled) -> tuple[Tensor, ...]:
        return (state[0] / rows.total[..., None],)

    def sensitivity(self, grads: Sequence[Tensor | None], tile: Tile, into: Tensor) -> None:
        if grads[0] is not None:
            g = grads[0][:, :, tile.i0 : tile.i1]
            into += grouped_matmul(g, self.f[:, :, tile.j0 : tile.j1].mT)

    def operand_gradient(self, grads: Sequence[Tensor | None], tile: Tile, into: Sequence[Tensor]) -> None:
        if grads[0] is not None:
            b, _, _, tj = tile.w.shape
            g = grads[0][:, :, tile.i0 : tile.i1]
            heads = self.f.shape[1]
            part = tile.w.reshape(b, heads, -1, tj).mT @ g.reshape(b, heads, -1, g.shape[-1])
            into[0][:, :, tile.j0 : tile.j1] += part if self.f.shape[0] == b else part.sum(0, keepdim=True)


@dataclass(frozen=True, eq=False)
class SegmentMass(RowFold):
    """Σ_{j: ids_j = c} P_ij: the weight each query gives to each segment of the keys -> [b, h, n, segments].

    ids: integers [b, m], the segment of each key; −1 belongs to none. segments: how many there are.
    """

    linear = True

    ids: Tensor = field(metadata=BY_HEAD)
    segments: int

    def dense(self, s: Tensor, p: Tensor) -> Tensor:
        one_hot = spread(self.ids, p.shape[1])[..., None] == torch.arange(self.segments, device=p.device)
        return p @ one_hot.to(p.dtype)

    def like(self, dims: Dims, dtype: torch.dtype) -> tuple[Like, ...]:
        return (((dims.b, dims.h, dims.n, self.segments), dtype),)

    def bind(self, dims: Dims, device: torch.device) -> Self:
        if whole_number("SegmentMass.segments", self.segments) < 1:
            raise SpecError(f"SegmentMass needs at least one segment; segments is {self.segments}.")
        ids = self.ids
        if ids.ndim not in (1, 2, 3) or ids.is_floating_point() or ids.dtype == torch.bool:
            raise ShapeError(
                f"SegmentMass.ids must be integers [b, m]; it is {ids.dtype} with shape {tuple(ids.shape)}."
            )
        ids = by_head("SegmentMass.ids", ids, (dims.m,), dims, "[b|1, m]").to(device=device, dtype=torch.int64)
        if readable(ids) and bool(((ids < -1) | (ids >= self.segments)).any()):
            raise SpecError(
                f"SegmentMass.ids must lie between −1 and {self.segments - 1}; "
                f"they go from {int(ids.min())} to {int(ids.max())}."
            )
        return replace(self, ids=ids)

    def _index(self, tile: Tile) -> Tensor:
        """Column of each key in a buffer with one spare segment for −1: [b, h, ti, tj], nothing copied."""
        ids = spread(self.ids, tile.w.shape[1])[:, :, None, tile.j0 : tile.j1]
        return torch.where(ids < 0, self.segments, ids).expand(tile.w.shape)

    def lift(self, tile: Tile) -> State:
        mass = tile.w.new_zeros((*tile.w.shape[:-1], self.segments + 1))
        return (mass.scatter_add_(-1, self._index(tile), tile.w),)

    def shift(self, state: State, d: Tensor, mass: Tensor) -> State:
        return (state[0] * d.exp()[..., None],)

    def merge(self, a: State, b: State) -> State:
        return (a[0] + b[0],)

    def finish(self, state: State, rows: Settled) -> tuple[Tensor, ...]:
        return (state[0][..., : self.segments] / rows.total[..., None],)

    def sensitivity(self, grads: Sequence[Tensor | None], tile: Tile, into: Tensor) -> None:
        if grads[0] is not None:
            g = torch.nn.functional.pad(grads[0][:, :, tile.i0 : tile.i1], (0, 1))
            into += g.gather(-1, self._index(tile))


@dataclass(frozen=True)
class Entropy(RowFold):
    """H_i = −Σ_j P_ij log P_ij: how spread out a query's weights are, in nats -> [b, h, n].

    0 for all the weight on one key, log m for even weights. With sinks the sum runs over the keys alone.
    A row without keys gives 0. Folded as t = Σ e^(s − r)(s − r), H = (log l)·Σp − t/l: exact where LSE − E[s] cancels.
    """

    def dense(self, s: Tensor, p: Tensor) -> Tensor:
        p = torch.where(p > 0, p, 1)
        return -(p * p.log()).sum(-1)

    def like(self, dims: Dims, dtype: torch.dtype) -> tuple[Like, ...]:
        return (((dims.b, dims.h, dims.n), dtype),)

    def lift(self, tile: Tile) -> State:
        x = _below(tile.s, _present(tile.reference))
        return (x.mul_(tile.w).sum(-1),)

    def shift(self, state: State, d: Tensor, mass: Tensor) -> State:
        # An affine map: t becomes e^d (t + d·l). A part without mass has d = −∞ and nothing to shift.
        return (torch.where(mass > 0, d.exp() * (state[0] + d * mass), 0),)

    def merge(self, a: State, b: State) -> State:
        return (a[0] + b[0],)

    def finish(self, state: State, rows: Settled) -> tuple[Tensor, ...]:
        return ((rows.total.log() * rows.mass - state[0]) / rows.total,)

    def sensitivity(self, grads: Sequence[Tensor | None], tile: Tile, into: Tensor) -> None:
        if grads[0] is not None:
            g = grads[0][:, :, tile.i0 : tile.i1, None]
            into -= _below(tile.s, _present(tile.reference)).add_(1).mul_(g)


@dataclass(frozen=True)
class LogSumExp(RowFold):
    """log Σ_j e^(s_ij): the row's normaliser, in nats, the sink's logit included -> [b, h, n]; P = e^(s − LSE).

    −inf for a row without keys.
    """

    def dense(self, s: Tensor, p: Tensor) -> Tensor:
        # s − log p at the row's largest weight: with sinks the normaliser is not a function of s alone.
        top = s.detach().argmax(-1, keepdim=True)
        live = p.gather(-1, top) > 0
        s, p = s.gather(-1, top), torch.where(live, p.gather(-1, top), 1)
        return torch.where(live, s - p.log(), -math.inf)[..., 0]

    def like(self, dims: Dims, dtype: torch.dtype) -> tuple[Like, ...]:
        return (((dims.b, dims.h, dims.n), dtype),)

    def lift(self, tile: Tile) -> State:
        return ()

    def shift(self, state: State, d: Tensor, mass: Tensor) -> State:
        return ()

    def merge(self, a: State, b: State) -> State:
        return ()

    def finish(self, state: State, rows: Settled) -> tuple[Tensor, ...]:
        return (rows.lse,)

    def sensitivity(self, grads: Sequence[Tensor | None], tile: Tile, into: Tensor) -> None:
        """None on the weights: ∂LSE/∂s = P enters by `row_sensitivity`."""

    def row_sensitivity(self, grads: Sequence[Tensor | None], tile: Tile) -> Tensor | None:
        return None if grads[0] is None else grads[0][:, :, tile.i0 : tile.i1]


def _present(reference: Tensor | None) -> Tensor:
    if reference is None:
        raise SpecError("this reduction reads logits against a reference; it reduces the weights, not another field.")
    return reference


def _below(s: Tensor, reference: Tensor) -> Tensor:
    """s − reference, finite. Far below any weight that is not 0 the value does not matter, but 0 · −∞ must stay 0."""
    return (s - reference[..., None]).clamp_(min=-1e4)
