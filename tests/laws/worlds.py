"""Small calls in float64 for Hypothesis: every mask, bias, softcap and sink, with exact ties in half of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from hypothesis import strategies as st
from torch import Tensor

import sightline as sl
from cases import Draw, _simple_bias, simple_mask
from sightline._dims import Dims
from sightline.reductions import Reduction

CPU = torch.device("cpu")


@dataclass(frozen=True)
class World:
    """One call: q, k, v and how they score."""

    dims: Dims
    q: Tensor
    k: Tensor
    v: Tensor
    options: dict[str, Any]
    pick: Draw

    @property
    def matrix(self) -> sl.AttentionMatrix:
        return sl.AttentionMatrix(self.q, self.k, **self.options)

    @property
    def dense(self) -> Tensor:
        """P, by the definition."""
        return sl.AttentionMatrix(self.q, self.k, **self.options, backend="dense").dense()

    @property
    def sinks(self) -> Tensor | None:
        return self.options["sinks"]

    def folds(self) -> dict[str, Reduction]:
        """Every reduction that folds, with operands."""
        d, pick = self.dims, self.pick
        return {
            "entropy": sl.Entropy(),
            "lse": sl.LogSumExp(),
            "peak": sl.Peak(),
            "top": sl.TopK(pick.whole(1, d.m + 2)),
            "moment": sl.RowMoment(pick.normal(d.b, d.hk, d.m, 2)),
            "segments": sl.SegmentMass(pick.integers(-1, 2, d.b, d.m), 3),
        }


@st.composite
def worlds(draw: st.DrawFn, most: int = 7, square: bool = False, sinks: bool | None = None) -> World:
    """A world of up to `most` queries and keys."""
    pick = Draw(draw(st.integers(0, 10**9)))
    b, hk, group = draw(st.integers(1, 2)), draw(st.integers(1, 2)), draw(st.integers(1, 2))
    n, m = draw(st.integers(1, most)), draw(st.integers(1, most))
    d = Dims(b, hk * group, hk, m if square else n, m, draw(st.integers(1, 4)))
    q, k = pick.normal(d.b, d.h, d.n, d.d), pick.normal(d.b, d.hk, d.m, d.d)
    scale = draw(st.sampled_from([None, 2.0, -1.0]))
    if draw(st.booleans()):  # small whole numbers: many keys of a row score the same, exactly
        q, k, scale = q.round().clamp(-1, 1), k.round().clamp(-1, 1), 0.5
    leaves = {"q": q}
    bias = _simple_bias(pick, d, leaves, "bias.0") if draw(st.booleans()) else None
    leaves = {name: t.double() for name, t in leaves.items()}
    sink = draw(st.booleans()) if sinks is None else sinks
    options = {
        "mask": simple_mask(pick, d) if draw(st.booleans()) else None,
        "bias": None if bias is None else bias(leaves),
        "scale": scale,
        "softcap": draw(st.sampled_from([None, 2.0])),
        "sinks": draw(st.sampled_from([1.0, 1.0, 50.0])) * pick.normal(d.h) if sink else None,
    }
    return World(d, q, k, pick.normal(d.b, d.hk, d.m, 3), options, pick)


def flat(results: dict[str, Any]) -> dict[str, Tensor]:
    """Results by name, with the fields of peaks side by side."""
    made: dict[str, Tensor] = {}
    for name, result in results.items():
        if isinstance(result, tuple):
            made |= {f"{name}.{at}": t for at, t in enumerate(result)}
        else:
            made[name] = result
    return made


def assert_alike(a: dict[str, Any], b: dict[str, Any]) -> None:
    """The same results: keys exactly, numbers up to rounding in float64."""
    a, b = flat(a), flat(b)
    assert list(a) == list(b)
    for name, t in a.items():
        if t.is_floating_point():
            assert torch.allclose(t, b[name], rtol=1e-11, atol=1e-12), (name, t, b[name])
        else:
            assert torch.equal(t, b[name]), (name, t, b[name])
