"""Whether a contender's results are right: no figure is told of a wrong one.

Some rows are computed by the definition in float64, and what was computed of them may err by

    2 × (the error of the definition in the results' own dtype + (ε + √d · ε₃₂) · size of the reference)

where ε is the spacing of that dtype at 1, and ε₃₂ that of float32, √d times for the sum of a logit. Keys are compared
by the exact weights that they point to. Sums over queries are compared with what all weights sum to.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from .case import Case, Inputs
from .contenders import MAP, Results
from .definition import weights

__all__ = ["fault"]


def fault(case: Case, x: Inputs, results: Results) -> str:
    """What is wrong with a contender's results; "" if nothing is."""
    found = _Rows(case, x)
    faults = (why for name, result in results.items() for why in _CHECKS[name](found, result))
    return "; ".join(faults)


@dataclass(frozen=True)
class _Rows:
    """Some rows of the matrix: the first, the last, and two between."""

    case: Case
    x: Inputs

    @cached_property
    def at(self) -> Tensor:
        n = self.case.tokens
        return torch.tensor(sorted({0, n // 3, n // 2, n - 1}))

    @cached_property
    def exact(self) -> Tensor:
        return self.weights(torch.float64)

    @cached_property
    def single(self) -> Tensor:
        return self.weights(torch.float32)

    def weights(self, dtype: torch.dtype) -> Tensor:
        """[1, h, rows, n], computed in a dtype."""
        return weights(self.x.q[:, :, self.at].to(dtype), self.x.k.to(dtype), self.at if self.case.causal else None)

    def of(self, result: Tensor) -> Tensor:
        """These rows of a result [1, h, n, …]."""
        return result[:, :, self.at]

    def compare(self, name: str, got: Tensor, exact: Tensor, run: Tensor) -> Iterator[str]:
        """Say so where a result is further off than it may be. run: the definition's, in the result's own dtype."""
        if got.shape != exact.shape:
            yield f"{name} has shape {list(got.shape)}, not {list(exact.shape)}"
            return
        band = torch.finfo(run.dtype).eps + math.sqrt(self.case.width) * torch.finfo(torch.float32).eps
        allowed = 2 * (_largest(run - exact) + band * _largest(exact))
        error = _largest(got - exact)
        if not error <= allowed:
            yield f"{name} is off by {error:.2g}, where {allowed:.2g} is allowed"


def _largest(t: Tensor) -> float:
    return float(t.abs().amax())


def _output(rows: _Rows, output: Tensor) -> Iterator[str]:
    v = rows.x.v
    run = rows.weights(v.dtype).to(v.dtype) @ v
    yield from rows.compare("the output", rows.of(output), rows.exact @ v.double(), run)


def _weights(rows: _Rows, p: Tensor) -> Iterator[str]:
    yield from rows.compare("the weights", rows.of(p), rows.exact, rows.weights(p.dtype).to(p.dtype))


def _entropy(rows: _Rows, entropy: Tensor) -> Iterator[str]:
    exact, run = (-torch.xlogy(p, p).sum(-1) for p in (rows.exact, rows.single))
    yield from rows.compare("the entropy", rows.of(entropy), exact, run)


def _peak(rows: _Rows, peak: Any) -> Iterator[str]:
    exact, run = rows.exact.amax(-1), rows.single.amax(-1)
    yield from rows.compare("the peak", rows.of(peak.value), exact, run)
    yield from rows.compare("the peak's key", _pointed(rows, peak.key[..., None])[..., 0], exact, run)


def _top(rows: _Rows, keys: Tensor) -> Iterator[str]:
    exact, run = (p.topk(min(keys.shape[-1], p.shape[-1])).values for p in (rows.exact, rows.single))
    yield from rows.compare("the top keys", _pointed(rows, keys), exact, run)


def _received(rows: _Rows, received: Tensor) -> Iterator[str]:
    yield from _adds_up(rows, "the attention received", received.double().sum(-1), rows.case.tokens)


def _map(rows: _Rows, map: Tensor) -> Iterator[str]:
    queries = torch.arange(rows.case.tokens).div(MAP.rows, rounding_mode="floor").bincount()
    yield from _adds_up(rows, "the block map", map.double().sum(-1), queries)


def _adds_up(rows: _Rows, name: str, sums: Tensor, queries: Tensor | int) -> Iterator[str]:
    """Each query's weights sum to 1. A sum of n numbers in float32 is off by some √n roundings."""
    off = _largest((sums - queries) / queries)
    allowed = 4 * math.sqrt(rows.case.tokens) * torch.finfo(torch.float32).eps
    if not off <= allowed:
        yield f"{name} sums to what is off by a part of {off:.2g}, where {allowed:.2g} is allowed"


def _pointed(rows: _Rows, keys: Tensor) -> Tensor:
    """The exact weights at keys [1, h, n, k]: 0 for none (−1), not a number for keys that are not there."""
    keys = rows.of(keys)
    there = (keys >= -1) & (keys < rows.case.tokens)
    found = rows.exact.gather(-1, keys.clamp(0, rows.case.tokens - 1)).masked_fill(keys == -1, 0)
    return found.masked_fill(~there, math.nan)


_CHECKS = {
    "output": _output,
    "weights": _weights,
    "entropy": _entropy,
    "peak": _peak,
    "top": _top,
    "received": _received,
    "map": _map,
}
