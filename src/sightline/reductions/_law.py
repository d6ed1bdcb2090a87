"""What a reduction of the attention matrix is: its definition, its phase, and how it folds.

Three kinds, by what they need to know:

    RowFold      SETTLE    a state per row that can absorb tiles while the row's log-sum-exp is still moving
    Sweep        SETTLED   anything that crosses rows or reads final weights; runs once the rows are settled
    RowWise, Additive      SETTLED reductions written as their definition alone, for users' own (see CONTRIBUTING)

Every reduction is a frozen dataclass whose fields are integers, floats and tensors. That is all an operator boundary
needs: `encode` flattens reductions to a class name and lists, `decode` builds them again on the other side.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, ClassVar, Self

import torch
from torch import Tensor

from .._dims import Dims, check_tensor
from ..errors import ShapeError, SpecError, Unsupported

Like = tuple[tuple[int, ...], torch.dtype]
State = tuple[Tensor, ...]


class Phase(enum.Enum):
    """When a reduction can run. A constant of its class: no planner moves it, so no observer changes another."""

    SETTLE = "while the log-sum-exp is still moving"
    SETTLED = "once the log-sum-exp is known"


@dataclass(frozen=True)
class Tile:
    """Rows i0: × keys j0: of one call with m keys, as a backend shows it to reductions.

    s: logits [b, h, ti, tj], −inf where not admitted. w: while settling e^(s − reference), once settled the weights
    (or the field derived from them that `relevance` reduces). reference: [b, h, ti], finite; None once settled.
    """

    i0: int
    j0: int
    m: int
    s: Tensor
    w: Tensor
    reference: Tensor | None = None

    @property
    def i1(self) -> int:
        return self.i0 + self.w.shape[-2]

    @property
    def j1(self) -> int:
        return self.j0 + self.w.shape[-1]


@dataclass(frozen=True)
class Settled:
    """Rows whose mass is final. lse: [b, h, ti] log-sum-exp, sink included; mass: Σ_j e^(s − reference) over keys;
    total: mass plus the sink's share, 1 where that is 0; reference: finite.
    """

    reference: Tensor
    mass: Tensor
    total: Tensor
    lse: Tensor


#: Metadata of a tensor field whose two leading dimensions are (b or 1, one of 1, hk, h): backends slice it by head.
BY_HEAD = {"by_head": True}


class Reduction:
    """Base of all reductions.

    `dense(s, p)` is the definition, on logits and weights [b, h, n, m]; everything else must agree with it.
    """

    phase: ClassVar[Phase]
    #: Selections (top-k, peaks) return indices and values that carry no gradient: read them with `Entries`.
    differentiable: ClassVar[bool] = True
    #: Whether row i of the result is linear in row i of P, so that Σ_j P_ij D_ij, with D = ∂L/∂P, is g_i · result_i.
    linear: ClassVar[bool] = False

    def dense(self, s: Tensor, p: Tensor) -> Any:
        """The definition, in at most five lines."""
        raise NotImplementedError

    def like(self, dims: Dims, dtype: torch.dtype) -> tuple[Like, ...]:
        """Shape and dtype of each result; `dtype` is that of the logits."""
        raise NotImplementedError

    def bind(self, dims: Dims, device: torch.device) -> Self:
        """This reduction for tensors of these sizes: operands checked and given all their dimensions.

        Raises ShapeError, SpecError.
        """
        return self

    def pack(self, results: Sequence[Tensor]) -> Any:
        """What the caller sees of the results: one tensor, or a named tuple."""
        return results[0]

    def sensitivity(self, grads: Sequence[Tensor | None], tile: Tile, into: Tensor) -> None:
        """Add ∂L/∂p on this tile to `into` [b, h, ti, tj]. grads: one per result, whole. tile.w are the weights."""
        name = type(self).__name__
        raise Unsupported(
            f"a gradient of {name} was asked for; it has no gradient here, for its class gives no `sensitivity`. "
            "Write one, set differentiable = False, or use backend='dense'.",
            {"reduce_backward": [f"{name} gives no sensitivity"]},
        )

    def row_sensitivity(self, grads: Sequence[Tensor | None], tile: Tile) -> Tensor | None:
        """∂L/∂lse [b, h, ti] of these rows, for reductions of the log-sum-exp itself."""
        return None

    def operand_gradient(self, grads: Sequence[Tensor | None], tile: Tile, into: Sequence[Tensor]) -> None:
        """Add this tile's part of the operands' gradients to `into`, one per floating tensor field, shaped as bound."""

    # -- crossing the operator boundary, slicing, converting: the same for every reduction -------------------

    registry: ClassVar[dict[str, type[Reduction]]] = {}

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        Reduction.registry[f"{cls.__module__}.{cls.__qualname__}"] = cls

    def operands(self) -> list[Tensor]:
        """The tensor fields that are present, in order."""
        return [t for f in fields(self) if isinstance(t := getattr(self, f.name), Tensor)]  # type: ignore[arg-type]

    def heads(self, batch: slice, heads: slice, h: int) -> Self:
        """The reduction of some batch entries and query heads.

        Heads of an operand that serves a group are kept once.
        """
        cut: dict[str, Any] = {}
        for f in fields(self):  # type: ignore[arg-type]
            t = getattr(self, f.name)
            if isinstance(t, Tensor) and f.metadata.get("by_head"):
                serves = h // t.shape[1]
                few = slice(heads.start // serves, -(-heads.stop // serves))
                cut[f.name] = t[batch if t.shape[0] > 1 else slice(None), few]
        return replace(self, **cut) if cut else self  # type: ignore[type-var]

    def floating(self) -> list[Tensor]:
        """The floating operands that are present, in order: those a gradient can flow to."""
        return [t for t in self.operands() if t.is_floating_point()]

    def map(self, change: Callable[[Tensor], Tensor]) -> Self:
        """The reduction with its floating operands changed."""
        changed: dict[str, Any] = {}
        for f in fields(self):  # type: ignore[arg-type]
            t = getattr(self, f.name)
            if isinstance(t, Tensor) and t.is_floating_point():
                changed[f.name] = change(t)
        return replace(self, **changed) if changed else self  # type: ignore[type-var]

    def to(self, dtype: torch.dtype) -> Self:
        """The reduction with its floating operands in `dtype`."""
        return self.map(lambda t: t.to(dtype))


class RowFold(Reduction):
    """A reduction that folds along a row: lift a tile to a state, shift states to one reference, merge, finish.

    Law: for any cut of the keys into tiles, in any order, `finish` of the merged states is `dense`.
    """

    phase = Phase.SETTLE

    def lift(self, tile: Tile) -> State:
        """The state of these rows after this tile alone, relative to tile.reference."""
        raise NotImplementedError

    def shift(self, state: State, d: Tensor, mass: Tensor) -> State:
        """The state after the reference moved up: d = old − new ≤ 0 [b, h, ti]; mass is relative to the old one."""
        raise NotImplementedError

    def merge(self, a: State, b: State) -> State:
        """The state of both parts; both are relative to the same reference."""
        raise NotImplementedError

    def finish(self, state: State, rows: Settled) -> tuple[Tensor, ...]:
        """The results, in the dtype of the logits."""
        raise NotImplementedError


class Sweep(Reduction):
    """A reduction of settled weights: accumulates tile by tile into buffers of its own."""

    phase = Phase.SETTLED
    #: Whether tiles must span all keys; otherwise they leave out keys that none of their rows admits.
    whole_rows: ClassVar[bool] = False

    def start(self, dims: Dims, dtype: torch.dtype, device: torch.device) -> State:
        """The buffers before any tile: zeros of the results' shapes in `dtype`, unless a class needs others."""
        return tuple(torch.zeros(shape, dtype=dtype, device=device) for shape, _ in self.like(dims, dtype))

    def absorb(self, buffers: State, tile: Tile) -> None:
        """Add a tile's part to the buffers, in place. tile.w are final weights."""
        raise NotImplementedError


class RowWise(Sweep):
    """A user's reduction of each row alone, as its definition: results [b, h, n, …].

    `dense` is called with some complete rows at a time, [b, h, few, m], and must not mix rows.
    """

    whole_rows = True

    def absorb(self, buffers: State, tile: Tile) -> None:
        for buffer, part in zip(buffers, _tuple(self.dense(tile.s, tile.w)), strict=True):
            buffer[:, :, tile.i0 : tile.i1] = part


class Additive(Sweep):
    """A user's reduction that is a sum over rows, as its definition: dense of all rows = Σ dense of some rows each."""

    whole_rows = True

    def absorb(self, buffers: State, tile: Tile) -> None:
        for buffer, part in zip(buffers, _tuple(self.dense(tile.s, tile.w)), strict=True):
            buffer += part


def _tuple(results: Any) -> tuple[Tensor, ...]:
    return results if isinstance(results, tuple) else (results,)


@dataclass(frozen=True)
class Encoded:
    """Reductions as an operator can take them: class names with each field's type, then the fields' values by type."""

    kinds: str
    ints: list[int]
    floats: list[float]
    operands: list[Tensor]


def encode(reductions: Sequence[Reduction]) -> Encoded:
    """Flatten reductions for an operator's schema. A field is an int, a float, a tensor or None."""
    kinds: list[str] = []
    ints: list[int] = []
    floats: list[float] = []
    tensors: list[Tensor] = []
    for r in reductions:
        types = ""
        for f in fields(r):  # type: ignore[arg-type]
            value = getattr(r, f.name)
            if value is None:
                types += "n"
            elif isinstance(value, Tensor):
                types += "t"
                tensors.append(value)
            elif isinstance(value, float):
                types += "f"
                floats.append(value)
            elif isinstance(value, int):
                types += "i"
                ints.append(value)
            else:
                raise SpecError(
                    f"{type(r).__name__}.{f.name} must be an int, a float, a tensor or None; "
                    f"it is {type(value).__name__}."
                )
        kinds.append(f"{type(r).__module__}.{type(r).__qualname__}:{types}")
    return Encoded(",".join(kinds), ints, floats, tensors)


def decode(kinds: str, ints: Sequence[int], floats: Sequence[float], operands: Sequence[Tensor]) -> list[Reduction]:
    """The inverse of `encode`."""
    values = {"i": iter(ints), "f": iter(floats), "t": iter(operands)}
    reductions: list[Reduction] = []
    for kind in kinds.split(",") if kinds else []:
        name, types = kind.rsplit(":", 1)
        reductions.append(Reduction.registry[name](*(None if t == "n" else next(values[t]) for t in types)))
    return reductions


def by_head(name: str, t: Tensor, tail: tuple[int, ...], dims: Dims, layout: str) -> Tensor:
    """Give an operand its two leading dimensions, (b or 1, one of 1, hk, h), and check it. Raises ShapeError.

    `tail` are the sizes after them, −1 for any. Without the heads dimension the operand serves all heads, without
    either it serves the whole batch.
    """
    check_tensor(name, t)
    if t.ndim == len(tail):
        t = t[None, None]
    elif t.ndim == len(tail) + 1:
        t = t[:, None]
    good = (
        t.ndim == len(tail) + 2
        and t.shape[0] in (1, dims.b)
        and t.shape[1] in (1, dims.hk, dims.h)
        and all(want in (-1, have) for have, want in zip(t.shape[2:], tail, strict=True))
    )
    if not good:
        raise ShapeError(
            f"{name} must be {layout} with b={dims.b}, h={dims.h} (or hk={dims.hk}), n={dims.n}, m={dims.m}; "
            f"it has shape {tuple(t.shape)}."
        )
    return t


def spread(t: Tensor, h: int) -> Tensor:
    """Repeat the heads of a small operand [·, 1|hk|h, …] to h query heads."""
    return t if t.shape[1] in (1, h) else t.repeat_interleave(h // t.shape[1], 1)


def gather_heads(t: Tensor, like: Tensor) -> Tensor:
    """Sum [b, h, …] over the query heads and batch entries that shared an operand of the shape of `like`."""
    t = t.unflatten(1, (like.shape[1], -1)).sum(2)
    return t if like.shape[0] == t.shape[0] else t.sum(0, keepdim=True)


def grouped_matmul(w: Tensor, f: Tensor) -> Tensor:
    """w [b, h, ti, tj] @ f [b|1, 1|hk|h, tj, c] -> [b, h, ti, c], reading each head of f once for its whole group."""
    b, h, ti, tj = w.shape
    heads = f.shape[1]
    return (w.reshape(b, heads, h // heads * ti, tj) @ f).reshape(b, h, ti, f.shape[-1])


def whole_number(name: str, value: object) -> int:
    """Check that a field is an integer. Raises SpecError."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise SpecError(f"{name} must be a whole number; it is {value!r}. Convert it with int().")
    return value


def floating(name: str, t: Tensor, device: torch.device) -> Tensor:
    """Check that an operand is floating point on the right device. Raises ShapeError."""
    check_tensor(name, t)
    if not t.is_floating_point():
        raise ShapeError(f"{name} must be floating point; it is {t.dtype}. Convert it with .float().")
    if t.device != device:
        raise ShapeError(f"{name} must be on {device} with q and k; it is on {t.device}. Move it.")
    return t
