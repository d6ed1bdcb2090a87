"""Biases: what is added to a logit because of where query and key stand.

A bias is a vector over j − i (`Alibi`, `RelativeBias`), in O(n + m), or a dense tensor (`DenseBias`); biases add up
with `+`. Like masks they have two faces: `dense(dims)` defines, `lowered(dims, …)` is what a backend gets.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from ._dims import Dims
from .errors import ShapeError, SpecError
from .masks import broadcastable


@dataclass(frozen=True)
class Added:
    """A lowered bias: relative[·, j − i + n − 1] + additive[·, ·, i, j].

    relative: [h|1, n + m − 1]. additive: [b|1, h|1, n|1, m|1]. None adds nothing.
    """

    relative: Tensor | None = None
    additive: Tensor | None = None

    def plus(self, other: Added, dtype: torch.dtype) -> Added:
        """Both together, added up in the dtype of the logits."""

        def total(a: Tensor | None, b: Tensor | None) -> Tensor | None:
            return a if b is None else b if a is None else a.to(dtype) + b.to(dtype)

        return Added(total(self.relative, other.relative), total(self.additive, other.additive))


class Bias:
    """Base of all biases. Combine them with `+`."""

    def __add__(self, other: Bias) -> Bias:
        return Sum(self, bias_of(other))

    def dense(self, dims: Dims, device: torch.device | str = "cpu") -> Tensor:
        """The definition: [b|1, h|1, n, m], added to the logits."""
        raise NotImplementedError

    def lowered(self, dims: Dims, device: torch.device, dtype: torch.dtype) -> Added:
        """Lower to a vector over j − i, or a dense tensor, in the dtype of the logits. Raises ShapeError, SpecError."""
        raise NotImplementedError


def bias_of(value: object) -> Bias:
    """The value, checked to be a bias. Raises SpecError."""
    if isinstance(value, Bias):
        return value
    if isinstance(value, type) and issubclass(value, Bias):
        raise SpecError(f"a bias must be a value; it got the class {value.__name__}. Write {value.__name__}(…).")
    hint = "Wrap it: DenseBias(t)." if isinstance(value, Tensor) else "Use one of sightline's, such as Alibi(slopes)."
    raise SpecError(f"a bias must be one of sightline's biases; it is {type(value).__name__}. {hint}")


def _distances(dims: Dims, device: torch.device | str) -> Tensor:
    """j − (i + m − n), from the farthest key behind to the farthest ahead: [n + m − 1]."""
    return torch.arange(-(dims.m - 1), dims.n, device=device)


def _grid_distances(dims: Dims, device: torch.device | str) -> Tensor:
    """j − (i + m − n): [n, m]."""
    i = torch.arange(dims.m - dims.n, dims.m, device=device)
    return torch.arange(dims.m, device=device)[None, :] - i[:, None]


@dataclass(frozen=True, eq=False)
class Sum(Bias):
    """`left + right`."""

    left: Bias
    right: Bias

    def dense(self, dims: Dims, device: torch.device | str = "cpu") -> Tensor:
        left, right = self.left.dense(dims, device), self.right.dense(dims, device)
        dtype = torch.promote_types(torch.promote_types(left.dtype, right.dtype), torch.float32)
        return left.to(dtype) + right.to(dtype)

    def lowered(self, dims: Dims, device: torch.device, dtype: torch.dtype) -> Added:
        return self.left.lowered(dims, device, dtype).plus(self.right.lowered(dims, device, dtype), dtype)


@dataclass(frozen=True, eq=False)
class Alibi(Bias):
    """−slope_h · |j − (i + m − n)|: attention fades with distance (Press et al. 2022, eq. 1). slopes: [h]."""

    slopes: Tensor

    @staticmethod
    def geometric(heads: int) -> Alibi:
        """The paper's slopes: 2^(−8/H), 2^(−16/H), … for H a power of two, interleaved from 2H otherwise."""
        power = 2 ** math.floor(math.log2(heads))
        slopes = [2 ** (-8 * (i + 1) / power) for i in range(power)]
        finer = [2 ** (-4 * (i + 1) / power) for i in range(0, 2 * power, 2)]
        return Alibi(torch.tensor(slopes + finer[: heads - power]))

    def _checked(self, dims: Dims) -> Tensor:
        if self.slopes.ndim != 1 or self.slopes.shape[0] not in (1, dims.h):
            raise ShapeError(f"Alibi.slopes must be [h] with h={dims.h}; it has shape {tuple(self.slopes.shape)}.")
        return self.slopes[:, None]

    def dense(self, dims: Dims, device: torch.device | str = "cpu") -> Tensor:
        return -(self._checked(dims).to(device)[..., None] * _grid_distances(dims, device).abs())[None]

    def lowered(self, dims: Dims, device: torch.device, dtype: torch.dtype) -> Added:
        slopes = self._checked(dims).to(device=device, dtype=dtype)
        return Added(relative=-slopes * _distances(dims, device).abs())


@dataclass(frozen=True, eq=False)
class RelativeBias(Bias):
    """table[bucket(j − i), h]: a learned bias per bucket of relative position (Raffel et al. 2020, §2.1; T5).

    table: [buckets, h]. The first half of the buckets (of those on each side, when bidirectional) holds one distance
    each, the rest grow logarithmically up to max_distance; farther keys share the last one.
    """

    table: Tensor
    bidirectional: bool = True
    max_distance: int = 128

    def _checked(self, dims: Dims) -> Tensor:
        if self.table.ndim != 2 or self.table.shape[1] not in (1, dims.h):
            raise ShapeError(
                f"RelativeBias.table must be [buckets, h] with h={dims.h}; it has shape {tuple(self.table.shape)}."
            )
        sides = 2 if self.bidirectional else 1
        if self.table.shape[0] < 2 * sides or self.table.shape[0] % sides:
            raise SpecError(
                f"RelativeBias needs an even number of buckets, at least {2 * sides}; "
                f"the table has {self.table.shape[0]}."
            )
        if self.max_distance <= self.table.shape[0] // sides // 2:
            raise SpecError(
                f"RelativeBias.max_distance must exceed {self.table.shape[0] // sides // 2}, "
                f"the distances with a bucket of their own; it is {self.max_distance}."
            )
        return self.table

    def _bucket(self, distance: Tensor) -> Tensor:
        buckets = self.table.shape[0]
        ahead = torch.zeros_like(distance)
        if self.bidirectional:
            buckets //= 2
            ahead = (distance > 0).to(distance.dtype) * buckets
            away = distance.abs()
        else:
            away = (-distance).clamp(min=0)
        exact = buckets // 2
        # In float32, as trained models were: bucket edges are part of the definition.
        ratio = (away.clamp(min=1).float() / exact).log() / math.log(self.max_distance / exact)
        far = (exact + (ratio * (buckets - exact)).to(distance.dtype)).clamp(max=buckets - 1)
        return ahead + torch.where(away < exact, away, far)

    def dense(self, dims: Dims, device: torch.device | str = "cpu") -> Tensor:
        table = self._checked(dims).to(device)
        return table[self._bucket(_grid_distances(dims, device))].permute(2, 0, 1)[None]

    def lowered(self, dims: Dims, device: torch.device, dtype: torch.dtype) -> Added:
        table = self._checked(dims).to(device=device, dtype=dtype)
        return Added(relative=table[self._bucket(_distances(dims, device))].mT)


@dataclass(frozen=True, eq=False)
class DenseBias(Bias):
    """bias_ij, any values, −inf included: floating point, broadcastable to [b, h, n, m].

    Costs the memory of the tensor given: [b, 1, 1, m] is linear, [n, m] is not. A row that is −inf everywhere admits
    no key.
    """

    values: Tensor

    def _checked(self, dims: Dims) -> Tensor:
        if not self.values.is_floating_point():
            raise SpecError(
                f"DenseBias takes floating point values to add to the scores; it got {self.values.dtype}. "
                "For True/False use DenseMask."
            )
        return broadcastable("DenseBias", self.values, (dims.b, dims.h, dims.n, dims.m))

    def dense(self, dims: Dims, device: torch.device | str = "cpu") -> Tensor:
        t = self._checked(dims).to(device)
        return t.expand(t.shape[0], t.shape[1], dims.n, dims.m)

    def lowered(self, dims: Dims, device: torch.device, dtype: torch.dtype) -> Added:
        # Kept in its own dtype: an [n, m] tensor is not copied; backends convert what they read.
        return Added(additive=self._checked(dims).to(device))
