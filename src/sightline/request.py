"""One call, lowered: what a backend is asked to do."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

import torch
from torch import Tensor

from ._dims import Dims
from .reductions._law import Like, Reduction, RowFold, Sweep
from .scores import Scores, accumulator

_Result = TypeVar("_Result", Tensor, Tensor | None)


@dataclass(frozen=True)
class Field:
    """The second implicit matrix R = P ∘ (dO vᵀ), gradient-weighted attention.

    v: [b, hk, m, dv]; grad_out: [b, h, n, dv]; part: "signed" R, "positive" max(0, R), "absolute" |R|.
    """

    v: Tensor
    grad_out: Tensor
    part: str


@dataclass(frozen=True)
class Request:
    """Queries, keys, how they score, what to reduce, and which field: the weights P (None) or a gradient field.

    first_key: the absolute index of key 0, where k is a shard of a longer cache.
    """

    q: Tensor
    k: Tensor
    scores: Scores
    reductions: tuple[Reduction, ...]
    field: Field | None = None
    first_key: int = 0

    @property
    def dims(self) -> Dims:
        return Dims(
            self.q.shape[0], self.q.shape[1], self.k.shape[1], self.q.shape[2], self.k.shape[2], self.q.shape[3]
        )

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of logits, weights and observations."""
        return accumulator(self.q.dtype)

    @property
    def folds(self) -> dict[int, RowFold]:
        """The reductions that run while rows settle, by their place."""
        return {at: r for at, r in enumerate(self.reductions) if isinstance(r, RowFold)}

    @property
    def sweeps(self) -> dict[int, Sweep]:
        """The reductions that run once rows are settled, by their place."""
        return {at: r for at, r in enumerate(self.reductions) if isinstance(r, Sweep)}

    def like(self) -> list[Like]:
        """Shape and dtype of the log-sum-exp and then of every result in order."""
        d = self.dims
        results: list[Like] = [((d.b, d.h, d.n), self.dtype)]
        for r in self.reductions:
            results.extend(r.like(d, self.dtype))
        return results

    def heads(self, batch: slice, keys: slice) -> Request:
        """The part of this request that some batch entries and key heads make up.

        They are independent of the others.
        """
        d = self.dims
        queries = slice(keys.start * d.group, keys.stop * d.group)
        field = self.field and Field(self.field.v[batch, keys], self.field.grad_out[batch, queries], self.field.part)
        return replace(
            self,
            q=self.q[batch, queries],
            k=self.k[batch, keys],
            scores=self.scores.heads(batch, queries),
            reductions=tuple(r.heads(batch, queries, d.h) for r in self.reductions),
            field=field,
        )


def split(results: Sequence[_Result], reductions: Sequence[Reduction], dims: Dims) -> list[Sequence[_Result]]:
    """Cut a flat list of results (without the log-sum-exp) into one part per reduction."""
    parts: list[Sequence[_Result]] = []
    at = 0
    for r in reductions:
        count = len(r.like(dims, torch.float32))
        parts.append(results[at : at + count])
        at += count
    return parts


@dataclass(frozen=True)
class Needs:
    """Which gradients are asked for."""

    q: bool
    k: bool
    relative: bool
    additive: bool
    sinks: bool
    operands: bool

    @property
    def scores(self) -> bool:
        """Whether anything before the softmax is."""
        return self.q or self.k or self.relative or self.additive or self.sinks


@dataclass(frozen=True)
class Gradients:
    """Gradients being accumulated, in the accumulator's dtype; None where not asked for.

    reductions: the request's reductions with the gradients of their floating operands in the operands' places.
    """

    q: Tensor | None
    k: Tensor | None
    relative: Tensor | None
    additive: Tensor | None
    sinks: Tensor | None
    reductions: tuple[Reduction, ...]

    @staticmethod
    def zeros(request: Request, needs: Needs) -> Gradients:
        """Nothing accumulated yet."""

        def zero(t: Tensor | None, wanted: bool) -> Tensor | None:
            return torch.zeros(t.shape, dtype=request.dtype, device=t.device) if wanted and t is not None else None

        s = request.scores
        return Gradients(
            zero(request.q, needs.q),
            zero(request.k, needs.k),
            zero(s.relative, needs.relative),
            zero(s.additive, needs.additive),
            zero(s.sinks, needs.sinks),
            tuple(
                r.map(lambda t: torch.zeros(t.shape, dtype=request.dtype, device=t.device)) for r in request.reductions
            ),
        )

    def heads(self, batch: slice, keys: slice, queries: slice, h: int) -> Gradients:
        """The part of some batch entries and heads, as views."""
        scores = Scores(1.0, relative=self.relative, additive=self.additive, sinks=self.sinks).heads(batch, queries)
        return Gradients(
            None if self.q is None else self.q[batch, queries],
            None if self.k is None else self.k[batch, keys],
            scores.relative,
            scores.additive,
            scores.sinks,
            tuple(r.heads(batch, queries, h) for r in self.reductions),
        )

    def wanted(self, like: Request, needs: Needs) -> list[Tensor]:
        """Those that were asked for, in order and in their inputs' dtypes.

        Q, k, relative, additive, sinks, operands.
        """
        s = like.scores
        pairs = [(self.q, like.q), (self.k, like.k), (self.relative, s.relative), (self.additive, s.additive)]
        pairs.append((self.sinks, s.sinks))
        for made, r in zip(self.reductions, like.reductions, strict=True) if needs.operands else ():
            pairs.extend(zip(made.floating(), r.floating(), strict=True))
        return [made.to(t.dtype) for made, t in pairs if made is not None and t is not None]
