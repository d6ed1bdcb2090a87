"""Reductions that pick: the largest weights, chosen rows, chosen entries.

Finding and reading are two reductions: `TopK` and `Peak` find keys and carry no gradient; `Entries` reads any keys,
exactly and differentiably.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple, Self

import torch
from torch import Tensor

from .._dims import Dims, readable
from ..errors import ShapeError, SpecError, Unsupported
from ._law import BY_HEAD, Like, RowFold, Settled, State, Sweep, Tile, by_head, spread, whole_number

MAX_TOP = 64


class Peaks(NamedTuple):
    """value: the largest weight of each row; key: where it lies, −1 for a row without keys. Both [b, h, n]."""

    value: Tensor
    key: Tensor


@dataclass(frozen=True)
class Peak(RowFold):
    """max_j P_ij and the key it falls on, the first of equals -> Peaks(value, key), each [b, h, n].

    A row without keys gives 0 and −1. A selection: it carries no gradient; read the value with Entries(key) for one.
    """

    differentiable = False

    def dense(self, s: Tensor, p: Tensor) -> tuple[Tensor, Tensor]:
        key = s.argmax(-1, keepdim=True)
        value = p.gather(-1, key)
        return value[..., 0], torch.where(s.gather(-1, key) > -math.inf, key, -1)[..., 0]

    def like(self, dims: Dims, dtype: torch.dtype) -> tuple[Like, ...]:
        shape = (dims.b, dims.h, dims.n)
        return (shape, dtype), (shape, torch.int64)

    def pack(self, results: Sequence[Tensor]) -> Any:
        return Peaks(*results)

    def lift(self, tile: Tile) -> State:
        value, key = tile.s.max(-1)
        return value, torch.where(value > -math.inf, key + tile.j0, -1)

    def shift(self, state: State, d: Tensor, mass: Tensor) -> State:
        return state

    def merge(self, a: State, b: State) -> State:
        first = (a[0] > b[0]) | ((a[0] == b[0]) & (a[1] <= b[1]))
        return torch.where(first, a[0], b[0]), torch.where(first, a[1], b[1])

    def finish(self, state: State, rows: Settled) -> tuple[Tensor, ...]:
        value, key = state
        return torch.where(key >= 0, (value - rows.reference).exp() / rows.total, 0), key


@dataclass(frozen=True)
class TopK(RowFold):
    """The k keys with the largest weights of each row, largest first, the first of equals -> int64 [b, h, n, k].

    −1 where a row admits fewer than k keys. k is at most 64. Works on logits: softmax keeps their order, so no mass
    is needed. A selection: it carries no gradient; read the weights with Entries(keys).
    """

    k: int
    differentiable = False

    def dense(self, s: Tensor, p: Tensor) -> Tensor:
        values, keys = s.sort(dim=-1, descending=True, stable=True)
        keys = torch.where(values > -math.inf, keys, -1)[..., : self.k]
        return torch.nn.functional.pad(keys, (0, self.k - keys.shape[-1]), value=-1)

    def like(self, dims: Dims, dtype: torch.dtype) -> tuple[Like, ...]:
        return (((dims.b, dims.h, dims.n, self.k), torch.int64),)

    def bind(self, dims: Dims, device: torch.device) -> Self:
        if whole_number("TopK.k", self.k) < 1:
            raise SpecError(f"TopK(k={self.k}) must ask for at least one key.")
        if self.k > MAX_TOP:
            raise Unsupported(
                f"TopK(k={self.k}) asks for more than {MAX_TOP} keys per row; a row's fold keeps at most {MAX_TOP}. "
                "Ask for fewer, or read whole rows with Rows(i)."
            )
        return self

    def lift(self, tile: Tile) -> State:
        values, keys = largest(tile.s, self.k)
        return values, torch.where(values > -math.inf, keys + tile.j0, -1)

    def shift(self, state: State, d: Tensor, mass: Tensor) -> State:
        return state

    def merge(self, a: State, b: State) -> State:
        # Parts may come in any order: sort by key first, so that the stable sort leaves equals in key order.
        values, keys = torch.cat([a[0], b[0]], -1), torch.cat([a[1], b[1]], -1)
        keys, order = keys.sort(-1)
        values, order = values.gather(-1, order).sort(dim=-1, descending=True, stable=True)
        return values[..., : self.k], keys.gather(-1, order)[..., : self.k]

    def finish(self, state: State, rows: Settled) -> tuple[Tensor, ...]:
        return (torch.where(state[0] > -math.inf, state[1], -1),)


@dataclass(frozen=True, eq=False)
class Rows(Sweep):
    """P_i: whole rows, for chosen queries i -> [b, h, len(i), m]. i: integers, in any order.

    Negative ones count from the end.
    """

    i: Tensor

    def __post_init__(self) -> None:
        if not isinstance(self.i, Tensor):  # a list or range is welcome at the public edge
            object.__setattr__(self, "i", torch.tensor(list(self.i)))

    def dense(self, s: Tensor, p: Tensor) -> Tensor:
        return p[:, :, self.i]

    def like(self, dims: Dims, dtype: torch.dtype) -> tuple[Like, ...]:
        return (((dims.b, dims.h, self.i.shape[0], dims.m), dtype),)

    def bind(self, dims: Dims, device: torch.device) -> Self:
        i = self.i
        if i.ndim != 1 or i.shape[0] == 0 or i.is_floating_point() or i.dtype == torch.bool:
            raise ShapeError(f"Rows.i must be integers, at least one; it is {i.dtype} with shape {tuple(i.shape)}.")
        i = i.to(device=device, dtype=torch.int64)
        if readable(i) and bool(((i < -dims.n) | (i >= dims.n)).any()):
            raise SpecError(
                f"Rows.i must lie between {-dims.n} and {dims.n - 1}; it goes from {int(i.min())} to {int(i.max())}."
            )
        return replace(self, i=torch.where(i < 0, i + dims.n, i))

    def _here(self, tile: Tile) -> tuple[Tensor, Tensor]:
        """Which of the chosen rows lie in the tile, and at which of its rows."""
        slot = ((self.i >= tile.i0) & (self.i < tile.i1)).nonzero()[:, 0]
        return slot, self.i[slot] - tile.i0

    def absorb(self, buffers: State, tile: Tile) -> None:
        slot, row = self._here(tile)
        buffers[0][:, :, slot, tile.j0 : tile.j1] = tile.w[:, :, row]

    def sensitivity(self, grads: Sequence[Tensor | None], tile: Tile, into: Tensor) -> None:
        if grads[0] is not None:
            slot, row = self._here(tile)
            into.index_add_(2, row, grads[0][:, :, slot, tile.j0 : tile.j1])


@dataclass(frozen=True, eq=False)
class Entries(Sweep):
    """P_{i, keys}: single weights -> [b, h, n, c]. keys: integers [b|1, h|hk|1, n, c]; −1 reads 0. Differentiable."""

    linear = True

    keys: Tensor = field(metadata=BY_HEAD)

    def dense(self, s: Tensor, p: Tensor) -> Tensor:
        keys = spread(self.keys, p.shape[1]).expand(*p.shape[:3], -1)
        return torch.where(keys >= 0, p.gather(-1, keys.clamp(min=0)), 0)

    def like(self, dims: Dims, dtype: torch.dtype) -> tuple[Like, ...]:
        return (((dims.b, dims.h, dims.n, self.keys.shape[-1]), dtype),)

    def bind(self, dims: Dims, device: torch.device) -> Self:
        keys = self.keys
        if keys.is_floating_point() or keys.dtype == torch.bool:
            raise ShapeError(f"Entries.keys must be integers; it is {keys.dtype}.")
        keys = keys.to(device=device, dtype=torch.int64)
        if readable(keys) and bool(((keys < -1) | (keys >= dims.m)).any()):
            raise SpecError(
                f"Entries.keys must lie between −1 and {dims.m - 1}; "
                f"they go from {int(keys.min())} to {int(keys.max())}."
            )
        keys = by_head("Entries.keys", keys, (dims.n, -1), dims, "[b|1, h|hk|1, n, c]")
        return replace(self, keys=keys)

    def _here(self, tile: Tile) -> tuple[Tensor, Tensor]:
        """Where each asked key lies in the tile, clipped into it, and whether it does: [b, h, ti, c]."""
        keys = spread(self.keys[:, :, tile.i0 : tile.i1], tile.w.shape[1]).expand(*tile.w.shape[:3], -1)
        return (keys - tile.j0).clamp(0, tile.w.shape[-1] - 1), (keys >= tile.j0) & (keys < tile.j1)

    def absorb(self, buffers: State, tile: Tile) -> None:
        at, here = self._here(tile)
        buffers[0][:, :, tile.i0 : tile.i1] += torch.where(here, tile.w.gather(-1, at), 0)

    def sensitivity(self, grads: Sequence[Tensor | None], tile: Tile, into: Tensor) -> None:
        if grads[0] is not None:
            at, here = self._here(tile)
            into.scatter_add_(-1, at, torch.where(here, grads[0][:, :, tile.i0 : tile.i1], 0))


def largest(s: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The k largest of the last dimension and where they are, by (value descending, index ascending), exactly.

    Where there are fewer than k, −inf at −1. Long rows go by blocks: the first k blocks in the order of (their maximum
    descending, index ascending) hold the answer, for any element outside them has k elements before it. One pass for
    the maxima, then two short searches.
    """
    length = s.shape[-1]
    block = 2 ** round(math.log2(max(length / k, 1)) / 2)
    if block < 8:
        return _ordered(s, torch.arange(length, device=s.device).expand(s.shape), k)
    whole = length // block * block
    tops = s[..., :whole].unflatten(-1, (-1, block)).amax(-1)
    if whole < length:
        tops = torch.cat([tops, s[..., whole:].amax(-1, keepdim=True)], -1)
    _, blocks = _ordered(tops, torch.arange(tops.shape[-1], device=s.device).expand(tops.shape), k)
    at = (blocks[..., None] * block + torch.arange(block, device=s.device)).flatten(-2)
    return _ordered(s.gather(-1, at.clamp(max=length - 1)).masked_fill_(at >= length, -math.inf), at, k)


def _ordered(values: Tensor, index: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The k first of `values` and their `index`, by (value descending, index ascending)."""
    short = k - values.shape[-1]
    if short > 0:
        values = torch.nn.functional.pad(values, (0, short), value=-math.inf)
        index = torch.nn.functional.pad(index, (0, short), value=-1)
    if values.dtype == torch.float32:
        # Both in one integer: a float's bits, flipped where negative, are in its order; adding 0 makes −0 and 0 equal.
        bits = (values + 0.0).view(torch.int32)
        bits = bits ^ ((bits >> 31) & 0x7FFFFFFF)
        at = ((bits.to(torch.int64) << 32) + (0xFFFFFFFF - index)).topk(k, -1).indices
    else:
        by_index = index.argsort(-1)
        at = by_index.gather(
            -1, values.gather(-1, by_index).sort(dim=-1, descending=True, stable=True).indices[..., :k]
        )
    return values.gather(-1, at), index.gather(-1, at)
