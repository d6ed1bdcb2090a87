"""The attention matrix as a value that is never stored."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from . import _html
from ._dims import Dims
from .backends import ORDER, choose
from .biases import Bias
from .errors import SpecError, Unsupported
from .functional import autocast, bound, named, run
from .masks import Mask
from .partial import Partial
from .reductions import BlockMass, ColumnMoment, Entries, LogSumExp, Reduction, RowFold, RowMoment, Rows
from .request import Request
from .scores import Scores

#: Weights that `dense()` builds without being forced to: 256 MiB in float32.
DENSE_LIMIT = 2**26

#: Weights that a notebook computes to show a matrix as a picture: about a second.
SHOWN_LIMIT = 2**30

#: Weights computed at once where the log-sum-exp is known: a slice costs little memory beyond its own.
TILE = 2**22


class AttentionMatrix:
    """P = softmax(softcap(scale · q kᵀ) + bias), [b, h, n, m]: behaves as the matrix, costs O(n + m).

    q: [b, h, n, d]; k: [b, hk, m, d]; mask, bias, scale, softcap, sinks, backend as in `attention`.

    `P @ v`, `P.mT @ w`, exact slices `P[..., i0:i1, j0:j1]`, `P.lse()`, `P.entries(keys)` and `P.reduce({...})` each
    take one pass, and gradients flow through all of them. Inside `torch.compile`, which takes `@` between tensors
    alone, `P @ v` is written `P.reduce({"it": RowMoment(v)})`. Raises ShapeError, SpecError.

    >>> import torch
    >>> P = AttentionMatrix(torch.zeros(1, 1, 3, 4), torch.zeros(1, 1, 3, 4), mask=Causal())
    >>> P[0, 0, :, 0:2]
    tensor([[1.0000, 0.0000],
            [0.5000, 0.5000],
            [0.3333, 0.3333]])
    """

    def __init__(
        self,
        q: Tensor,
        k: Tensor,
        *,
        mask: Mask | None = None,
        bias: Bias | None = None,
        scale: float | None = None,
        softcap: float | None = None,
        sinks: Tensor | None = None,
        backend: str = "auto",
    ) -> None:
        q, k = autocast(q=q, k=k)
        dims = Dims.of(q, k)
        self._set(q, k, Scores.of(dims, q, mask, bias, scale, softcap, sinks), backend)

    def _set(self, q: Tensor, k: Tensor, scores: Scores, backend: str, lse: Tensor | None = None) -> None:
        self.q, self.k, self.scores, self.backend = q, k, scores, backend
        self.dims = Dims.of(q, k)
        self._lse = lse

    @staticmethod
    def _of(q: Tensor, k: Tensor, scores: Scores, backend: str, lse: Tensor | None = None) -> AttentionMatrix:
        """With scores that are lowered already, and the log-sum-exp [b, h, n] where it is known: slices then cost O(1)
        a weight.
        """
        matrix = AttentionMatrix.__new__(AttentionMatrix)
        matrix._set(q, k, scores, backend, lse)
        return matrix

    @property
    def shape(self) -> torch.Size:
        """(b, h, n, m)."""
        return torch.Size((self.dims.b, self.dims.h, self.dims.n, self.dims.m))

    def __repr__(self) -> str:
        b, h, n, m = self.shape
        return f"AttentionMatrix(b={b}, h={h}, n={n}, m={m}, {self.q.dtype}, never stored)"

    def _repr_html_(self) -> str:
        b, h, n, m = self.shape
        if self.shape.numel() > SHOWN_LIMIT:
            return _html.box(_html.text(repr(self), "font-weight:600"))
        rows, cols = -(-n // 64), -(-m // 64)
        with torch.no_grad():
            mass = self._one(BlockMass(rows, cols)).double().mean((0, 1))
        counts = torch.tensor([min(rows, n - r * rows) for r in range(mass.shape[0])]).to(mass)
        described = f"The mean map of {b * h} heads: {rows} queries down and {cols} keys across for each cell"
        shown = _html.picture((mass / counts[:, None]).tolist(), described)
        return _html.box(_html.text(repr(self), "font-weight:600"), shown)

    def reduce(self, reductions: Mapping[str, Reduction]) -> dict[str, Any]:
        """Every reduction by name, from one pass. Raises ShapeError, SpecError, Unsupported."""
        asked = bound(named(reductions), self.dims, self.q)
        return dict(zip(reductions, run(Request(self.q, self.k, self.scores, asked), self.backend), strict=True))

    def _one(self, reduction: Reduction) -> Any:
        return self.reduce({"it": reduction})["it"]

    def __matmul__(self, v: Tensor) -> Tensor:
        """P v: [b|1, h|hk|1, m, c] -> [b, h, n, c] in v's dtype. With the values it is attention."""
        return self._one(RowMoment(v))

    @property
    def mT(self) -> Transposed:
        """Pᵀ, to be multiplied: `P.mT @ w`."""
        return Transposed(self)

    def lse(self) -> Tensor:
        """Each row's log-sum-exp of the logits, sinks included, in nats: [b, h, n]; −inf for a row without keys."""
        return self._one(LogSumExp()) if self._lse is None else self._lse

    def entries(self, keys: Tensor) -> Tensor:
        """P_{i, keys}: integers [b|1, h|hk|1, n, c] -> [b, h, n, c]; −1 reads 0."""
        return self._one(Entries(keys))

    def dense(self, force: bool = False) -> Tensor:
        """The matrix itself, [b, h, n, m] in float32 or float64. Refused beyond 2²⁶ weights unless forced.

        Raises Unsupported.
        """
        if self.shape.numel() > DENSE_LIMIT and not force:
            size = self.shape.numel() * (8 if self.q.dtype == torch.float64 else 4) / 2**30
            raise Unsupported(
                f"dense() would store {' × '.join(map(str, self.shape))} weights, {size:.1f} GiB. "
                "Reduce the matrix, slice it, or say dense(force=True)."
            )
        return self[..., :, :]

    def __getitem__(self, index: Any) -> Tensor:
        """P[b, h, i, j] with integers, slices and `...`: exact weights; only the rows asked for are computed.

        Raises SpecError, IndexError.
        """
        batch, heads, rows, keys = self._indices(index)
        if self._lse is not None:
            i, j = _span(rows, self.dims.n), _span(keys, self.dims.m)
            return self._tile(self._lse, i, j)[batch, heads, _within(rows), _within(keys)]
        wanted = range(self.dims.n)[rows] if isinstance(rows, slice) else [rows]
        i0, i1 = (wanted[0], wanted[-1] + 1) if len(wanted) else (0, 1)
        chosen = self._rows(i0, i1)._one(Rows(torch.tensor([i - i0 for i in wanted] or [0])))
        if isinstance(rows, slice):
            return chosen[batch, heads, : len(wanted), keys]
        return chosen[batch, heads, 0, keys]

    def _tile(self, lse: Tensor, i: range, j: range) -> Tensor:
        """P_ij = e^(s_ij − lse_i), [b, h, len(i), len(j)]: costs what it returns, wherever it lies."""
        b, h, _, _ = self.shape
        tile = lse.new_zeros(b, h, len(i), len(j))
        step = max(1, TILE // max(1, b * h * len(j)))
        for start in range(i.start, i.stop, step) if len(j) else ():
            stop = min(i.stop, start + step)
            rows = self._rows(start, stop)
            scores = rows.scores.keys(rows.dims, j.start, j.stop)
            s = scores.dense(rows.q.to(lse.dtype), rows.k[:, :, j.start : j.stop].to(lse.dtype))
            p = (s - lse[:, :, start:stop, None]).exp()
            tile[:, :, start - i.start : stop - i.start] = p.masked_fill(s == -math.inf, 0)
        return tile

    def _indices(self, index: Any) -> list[Any]:
        """One index per dimension, `...` filled in. Raises SpecError, IndexError."""
        given = list(index) if isinstance(index, tuple) else [index]
        if given.count(Ellipsis) > 1 or len([x for x in given if x is not Ellipsis]) > 4:
            raise SpecError(
                f"P[...] takes up to four indices, one per dimension of {tuple(self.shape)}; it got {len(given)}."
            )
        at = given.index(Ellipsis) if Ellipsis in given else len(given)
        rest = [x for x in given if x is not Ellipsis]
        full = rest[:at] + [slice(None)] * (4 - len(rest)) + rest[at:]
        for n, (x, size) in enumerate(zip(full, self.shape, strict=True)):
            if not isinstance(x, int | slice) or isinstance(x, bool):
                raise SpecError(
                    f"P[...] takes integers and slices; index {n} is {type(x).__name__}. "
                    "For chosen rows use Rows(i), for chosen entries Entries(keys)."
                )
            if isinstance(x, int):
                if not -size <= x < size:
                    raise IndexError(
                        f"P[...]: index {n} is {x}; that dimension has size {size}. Use {-size} … {size - 1}."
                    )
                full[n] = range(size)[x]
            elif x.step is not None and x.step < 1:
                raise SpecError(f"P[...] takes slices that go forward; index {n} has step {x.step}. Flip the result.")
        return full

    def _rows(self, i0: int, i1: int) -> AttentionMatrix:
        """The matrix of queries i0:i1 alone."""
        return AttentionMatrix._of(self.q[:, :, i0:i1], self.k, self.scores.rows(self.dims, i0, i1), self.backend)

    def partial(self, reductions: Mapping[str, Reduction], j0: int = 0, j1: int | None = None) -> Partial:
        """What keys j0:j1 contribute: merge the parts of any cut of the keys, and `finish(sinks)` gives `reduce`.

        Takes the reductions that fold (entropy, log-sum-exp, peak, top-k, row moments, segment mass). No gradient.
        Raises Unsupported for reductions that need settled weights.
        """
        j1 = self.dims.m if j1 is None else j1
        if not 0 <= j0 < j1 <= self.dims.m:
            raise SpecError(f"partial() needs keys 0 ≤ j0 < j1 ≤ {self.dims.m}; it got {j0}:{j1}.")
        for name, r in zip(reductions, named(reductions), strict=True):
            if not isinstance(r, RowFold):
                raise Unsupported(
                    f"partial() was asked for {name!r}, a {type(r).__name__}, which needs rows that are settled. "
                    "Merge a LogSumExp first, or use reduce()."
                )
        asked = bound(named(reductions), self.dims, self.q)
        scores = self.scores.keys(self.dims, j0, j1)
        request = Request(self.q.detach(), self.k[:, :, j0:j1].detach(), scores, asked, None, j0)
        backend = ORDER[choose("auto" if self.backend not in ORDER else self.backend, request)]
        partial = backend.settle(request)
        names = dict(zip(partial.folds, reductions, strict=True))
        return Partial(
            {names[at]: fold for at, fold in partial.folds.items()},
            partial.reference,
            partial.mass,
            {names[at]: state for at, state in partial.states.items()},
        )


def _span(index: int | slice, size: int) -> range:
    """The entries from the first to the last that an index chooses."""
    chosen = range(size)[index] if isinstance(index, slice) else range(index, index + 1)
    return range(chosen[0], chosen[-1] + 1) if len(chosen) else range(0)


def _within(index: int | slice) -> int | slice:
    """What the index chooses of its span."""
    return slice(None, None, index.step) if isinstance(index, slice) else 0


class Transposed:
    """Pᵀ: only multiplies."""

    def __init__(self, matrix: AttentionMatrix) -> None:
        self._matrix = matrix

    @property
    def shape(self) -> torch.Size:
        """(b, h, m, n)."""
        b, h, n, m = self._matrix.shape
        return torch.Size((b, h, m, n))

    @property
    def mT(self) -> AttentionMatrix:
        """P again."""
        return self._matrix

    def __matmul__(self, w: Tensor) -> Tensor:
        """Pᵀ w: [b|1, h|hk|1, n, c] -> [b, h, m, c] in w's dtype."""
        return self._matrix.reduce({"it": ColumnMoment(w)})["it"]
