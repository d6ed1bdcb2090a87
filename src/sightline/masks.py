"""Masks: which keys a query may see.

A mask is one key interval [lo_i, hi_i) per query row, or a dense boolean, or an intersection of these. The
intersection of two intervals is an interval, so masks are closed under `&` and no combination needs code of its own.

Query i stands at key position i + (m − n): the last query sees the last key.

Each mask has two faces. `dense(dims)` is its definition, a boolean [b|1, h|1, n, m], True where the key is admitted.
`admitted(dims, device)` is what a backend gets: the intervals, in O(n), and a dense boolean only where there was one.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, is_dataclass

import torch
from torch import Tensor

from ._dims import Dims, readable
from .errors import ShapeError, SpecError


@dataclass(frozen=True)
class Admitted:
    """A lowered mask: row i admits key j iff lo_i ≤ j < hi_i and allowed_ij.

    lo, hi: int32 [b|1, n], both or neither. allowed: bool [b|1, h|1, n|1, m|1]. None admits everything.
    """

    lo: Tensor | None = None
    hi: Tensor | None = None
    allowed: Tensor | None = None

    def __and__(self, other: Admitted) -> Admitted:
        lo, hi = self.lo, self.hi
        if lo is None or hi is None:
            lo, hi = other.lo, other.hi
        elif other.lo is not None and other.hi is not None:
            lo, hi = torch.maximum(lo, other.lo), torch.minimum(hi, other.hi)
        if self.allowed is None or other.allowed is None:
            allowed = self.allowed if other.allowed is None else other.allowed
        else:
            allowed = self.allowed & other.allowed
        return Admitted(lo, hi, allowed)


class Mask:
    """Base of all masks. Combine them with `&`."""

    def __and__(self, other: Mask) -> Mask:
        return Both(self, mask_of(other))

    def dense(self, dims: Dims, device: torch.device | str = "cpu") -> Tensor:
        """The definition: bool [b|1, h|1, n, m], True where admitted."""
        raise NotImplementedError

    def admitted(self, dims: Dims, device: torch.device) -> Admitted:
        """Lower to intervals (and a dense boolean where there is one). Raises SpecError, ShapeError."""
        raise NotImplementedError


def mask_of(value: object) -> Mask:
    """The value, checked to be a mask. Raises SpecError."""
    if isinstance(value, Mask):
        return value
    if isinstance(value, type) and issubclass(value, Mask) and is_dataclass(value):
        written = f"{value.__name__}({'…' if fields(value) else ''})"
        raise SpecError(f"a mask must be a value; it got the class {value.__name__}. Write {written}.")
    hint = "Wrap it: DenseMask(t)." if isinstance(value, Tensor) else "Use one of sightline's, such as Causal()."
    raise SpecError(f"a mask must be one of sightline's masks; it is {type(value).__name__}. {hint}")


def _positions(dims: Dims, device: torch.device | str) -> Tensor:
    """Key position of each query: i + (m − n), int64 [n]."""
    return torch.arange(dims.m - dims.n, dims.m, device=device)


def _grid(dims: Dims, device: torch.device | str) -> tuple[Tensor, Tensor]:
    """Query positions [n, 1] and keys [1, m]."""
    return _positions(dims, device)[:, None], torch.arange(dims.m, device=device)[None, :]


def _interval(lo: Tensor, hi: Tensor, m: int) -> Admitted:
    """Clip [lo, hi) to the keys there are; an empty row becomes [lo, lo)."""
    lo = lo.clamp(0, m)
    hi = torch.maximum(hi.clamp(0, m), lo)
    return Admitted(lo.to(torch.int32), hi.to(torch.int32))


def _lengths(name: str, value: Tensor | None, dims: Dims, limit: int, device: torch.device) -> Tensor:
    """Check lengths [b] and return them as [b, 1]; None means the full length."""
    if value is None:
        return torch.full((1, 1), limit, device=device)
    if value.ndim != 1 or value.shape[0] not in (1, dims.b) or value.is_floating_point():
        raise ShapeError(
            f"{name} must be integers [b] with b={dims.b}; it is {value.dtype} with shape {tuple(value.shape)}."
        )
    # Reading values would break a traced graph; shapes are checked everywhere, values in eager mode.
    if readable(value) and bool(((value < 0) | (value > limit)).any()):
        raise SpecError(
            f"{name} must lie between 0 and {limit}; it goes from {int(value.min())} to {int(value.max())}."
        )
    return value.to(device)[:, None]


@dataclass(frozen=True, eq=False)
class Both(Mask):
    """`left & right`: a key is admitted when both admit it."""

    left: Mask
    right: Mask

    def dense(self, dims: Dims, device: torch.device | str = "cpu") -> Tensor:
        return self.left.dense(dims, device) & self.right.dense(dims, device)

    def admitted(self, dims: Dims, device: torch.device) -> Admitted:
        both = self.left.admitted(dims, device) & self.right.admitted(dims, device)
        if both.lo is None or both.hi is None or not readable(both.lo, both.hi):
            return both
        if not bool((both.lo < both.hi).any()):
            raise SpecError(
                f"{self.left!r} & {self.right!r} contradict each other: no query may see any of the {dims.m} keys. "
                "Check their lengths and offsets (query i stands at key position i + (m − n))."
            )
        return both


@dataclass(frozen=True)
class Causal(Mask):
    """j ≤ i + (m − n): a query sees its own position and those before it."""

    def dense(self, dims: Dims, device: torch.device | str = "cpu") -> Tensor:
        i, j = _grid(dims, device)
        return (j <= i)[None, None]

    def admitted(self, dims: Dims, device: torch.device) -> Admitted:
        i = _positions(dims, device)[None]
        return _interval(torch.zeros_like(i), i + 1, dims.m)


@dataclass(frozen=True)
class Window(Mask):
    """−left ≤ j − (i + m − n) ≤ right: a sliding window; None leaves a side open.

    `Causal() & Window(left=w - 1)` is the sliding window of w keys that decoder models use.
    """

    left: int | None = None
    right: int | None = None

    def __post_init__(self) -> None:
        for name, value in (("left", self.left), ("right", self.right)):
            if value is not None and value < 0:
                raise SpecError(f"Window({name}={value}) must not be negative. Use None for no bound on that side.")

    def dense(self, dims: Dims, device: torch.device | str = "cpu") -> Tensor:
        i, j = _grid(dims, device)
        seen = torch.ones_like(j - i, dtype=torch.bool)
        if self.left is not None:
            seen = seen & (j - i >= -self.left)
        if self.right is not None:
            seen = seen & (j - i <= self.right)
        return seen[None, None]

    def admitted(self, dims: Dims, device: torch.device) -> Admitted:
        i = _positions(dims, device)[None]
        lo = torch.zeros_like(i) if self.left is None else i - self.left
        hi = torch.full_like(i, dims.m) if self.right is None else i + self.right + 1
        return _interval(lo, hi, dims.m)


@dataclass(frozen=True, eq=False)
class Lengths(Mask):
    """i < q_b and j < k_b: padding on the right of each batch entry. q, k: integers [b], or None for no padding."""

    q: Tensor | None = None
    k: Tensor | None = None

    def dense(self, dims: Dims, device: torch.device | str = "cpu") -> Tensor:
        q = _lengths("Lengths.q", self.q, dims, dims.n, torch.device(device))
        k = _lengths("Lengths.k", self.k, dims, dims.m, torch.device(device))
        rows = torch.arange(dims.n, device=device) < q
        keys = torch.arange(dims.m, device=device) < k
        return (rows[:, :, None] & keys[:, None, :])[:, None]

    def admitted(self, dims: Dims, device: torch.device) -> Admitted:
        q = _lengths("Lengths.q", self.q, dims, dims.n, device)
        k = _lengths("Lengths.k", self.k, dims, dims.m, device)
        live = torch.arange(dims.n, device=device)[None] < q
        return _interval(torch.zeros_like(live, dtype=torch.int64), torch.where(live, k, 0), dims.m)


@dataclass(frozen=True, eq=False)
class Packed(Mask):
    """Several sequences in one row: query i sees the keys of its own sequence.

    cu_q: integers [s + 1], 0 = cu_q[0] ≤ … ≤ cu_q[s] ≤ n, the sequences' starts and the last end; cu_k likewise over
    the keys, by default the same. A query past the last sequence sees nothing. `Causal() & Packed(cu)` is the usual
    packed decoder; positions stay those of the whole row, so give Causal the same boundaries on both sides.
    """

    cu_q: Tensor
    cu_k: Tensor | None = None

    def _bounds(self, dims: Dims, device: torch.device | str) -> tuple[Tensor, Tensor]:
        cu_q, cu_k = self.cu_q, self.cu_q if self.cu_k is None else self.cu_k
        for name, cu, limit in (("cu_q", cu_q, dims.n), ("cu_k", cu_k, dims.m)):
            if cu.ndim != 1 or cu.shape[0] < 2 or cu.is_floating_point():
                raise ShapeError(
                    f"Packed.{name} must be integers [s + 1] with s at least 1; "
                    f"it is {cu.dtype} with shape {tuple(cu.shape)}."
                )
            if readable(cu):
                steps = cu.diff()
                if int(cu[0]) != 0 or int(cu[-1]) > limit or bool((steps < 0).any()):
                    raise SpecError(
                        f"Packed.{name} must rise from 0 to at most {limit}; "
                        f"it is {cu.tolist()[:8]}{'…' if len(cu) > 8 else ''}."
                    )
        if cu_q.shape != cu_k.shape:
            raise ShapeError(
                f"Packed.cu_q and Packed.cu_k must name the same sequences; "
                f"they have {cu_q.shape[0] - 1} and {cu_k.shape[0] - 1}."
            )
        return cu_q.to(device), cu_k.to(device)

    def dense(self, dims: Dims, device: torch.device | str = "cpu") -> Tensor:
        cu_q, cu_k = self._bounds(dims, device)
        i = torch.arange(dims.n, device=device)[:, None]
        j = torch.arange(dims.m, device=device)[:, None]
        query_in = (i >= cu_q[:-1]) & (i < cu_q[1:])  # [n, s]
        key_in = (j >= cu_k[:-1]) & (j < cu_k[1:])  # [m, s]
        return (query_in[:, None] & key_in[None]).any(-1)[None, None]

    def admitted(self, dims: Dims, device: torch.device) -> Admitted:
        cu_q, cu_k = self._bounds(dims, device)
        i = torch.arange(dims.n, device=device)
        sequence = torch.searchsorted(cu_q, i.to(cu_q.dtype), right=True) - 1
        live = sequence < cu_q.shape[0] - 1
        sequence = sequence.clamp(max=cu_q.shape[0] - 2)
        lo = torch.where(live, cu_k[sequence], 0).to(torch.int64)
        hi = torch.where(live, cu_k[sequence + 1], 0).to(torch.int64)
        return _interval(lo[None], hi[None], dims.m)


@dataclass(frozen=True, eq=False)
class Prefix(Mask):
    """j < length or j ≤ i + (m − n): causal, except that every query sees the first `length` keys (prefix-LM).

    length: an integer, or integers [b].
    """

    length: int | Tensor

    def _length(self, dims: Dims, device: torch.device) -> Tensor:
        length = self.length if isinstance(self.length, Tensor) else torch.tensor([self.length])
        return _lengths("Prefix.length", length, dims, dims.m, device)

    def dense(self, dims: Dims, device: torch.device | str = "cpu") -> Tensor:
        i, j = _grid(dims, device)
        return ((j < self._length(dims, torch.device(device))[:, :, None]) | (j <= i)[None])[:, None]

    def admitted(self, dims: Dims, device: torch.device) -> Admitted:
        i = _positions(dims, device)[None]
        hi = torch.maximum(i + 1, self._length(dims, device))
        return _interval(torch.zeros_like(hi), hi, dims.m)


@dataclass(frozen=True, eq=False)
class Intervals(Mask):
    """lo_i ≤ j < hi_i: any mask that is one interval per query. lo, hi: integers [n] or [b|1, n]."""

    lo: Tensor
    hi: Tensor

    def _bounds(self, dims: Dims, device: torch.device | str) -> tuple[Tensor, Tensor]:
        bounds: list[Tensor] = []
        for name, t in (("lo", self.lo), ("hi", self.hi)):
            t = t[None] if t.ndim == 1 else t
            if t.ndim != 2 or t.shape[0] not in (1, dims.b) or t.shape[1] != dims.n or t.is_floating_point():
                raise ShapeError(
                    f"Intervals.{name} must be integers [b|1, n] with b={dims.b}, n={dims.n}; "
                    f"it is {t.dtype} with shape {tuple(t.shape)}."
                )
            bounds.append(t.to(device).to(torch.int64))
        return bounds[0], bounds[1]

    def dense(self, dims: Dims, device: torch.device | str = "cpu") -> Tensor:
        lo, hi = self._bounds(dims, device)
        j = torch.arange(dims.m, device=device)
        return ((j >= lo[..., None]) & (j < hi[..., None]))[:, None]

    def admitted(self, dims: Dims, device: torch.device) -> Admitted:
        lo, hi = self._bounds(dims, device)
        return _interval(lo, hi, dims.m)


@dataclass(frozen=True, eq=False)
class DenseMask(Mask):
    """allowed_ij, any pattern: bool, broadcastable to [b, h, n, m], True = admitted.

    Costs the memory of the tensor given: [b, 1, 1, m] (padding anywhere) is linear, [n, m] is not.
    """

    allowed: Tensor

    def _checked(self, dims: Dims, device: torch.device | str) -> Tensor:
        full = (dims.b, dims.h, dims.n, dims.m)
        t = self.allowed
        if t.dtype != torch.bool:
            raise SpecError(
                f"DenseMask takes a boolean tensor, True where a key may be seen; it got {t.dtype}. "
                "For values to add to the scores use DenseBias."
            )
        return broadcastable("DenseMask", t, full).to(device)

    def dense(self, dims: Dims, device: torch.device | str = "cpu") -> Tensor:
        t = self._checked(dims, device)
        return t.expand(t.shape[0], t.shape[1], dims.n, dims.m)

    def admitted(self, dims: Dims, device: torch.device) -> Admitted:
        return Admitted(allowed=self._checked(dims, device))


def broadcastable(name: str, t: Tensor, full: tuple[int, int, int, int]) -> Tensor:
    """Give `t` four dimensions, each 1 or that of `full`. Raises ShapeError."""
    if t.ndim <= 4:
        t = t.reshape((1,) * (4 - t.ndim) + tuple(t.shape))
        if all(have in (1, want) for have, want in zip(t.shape, full, strict=True)):
            return t
    raise ShapeError(
        f"{name} must broadcast to [b, h, n, m] = {list(full)}; it has shape {tuple(t.shape)}. "
        "Give each dimension its full size or 1."
    )
