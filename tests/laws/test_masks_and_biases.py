"""Law: masks are an algebra of intervals, and what a backend gets of a mask or bias is its definition."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

import sightline as sl
from cases import Draw, _simple_bias, simple_mask
from sightline._dims import Dims
from sightline.biases import Added
from sightline.masks import Admitted, Mask

CPU = torch.device("cpu")


@st.composite
def dims(draw: st.DrawFn) -> Dims:
    hk, group = draw(st.integers(1, 2)), draw(st.integers(1, 2))
    sizes = [draw(st.integers(1, 9)) for _ in range(2)]
    return Dims(draw(st.integers(1, 3)), hk * group, hk, *sizes, 4)


def drawn(seed: int) -> Draw:
    return Draw(seed)


picks = st.integers(0, 10**6).map(drawn)


def spread(seen: Admitted, d: Dims) -> Tensor:
    """A lowered mask as the boolean it stands for: [b, h, n, m]."""
    dense = torch.ones(d.b, d.h, d.n, d.m, dtype=torch.bool)
    if seen.lo is not None and seen.hi is not None:
        j = torch.arange(d.m)
        dense = dense & ((j >= seen.lo[..., None]) & (j < seen.hi[..., None]))[:, None]
    return dense if seen.allowed is None else dense & seen.allowed


def full(t: Tensor, d: Dims) -> Tensor:
    return t.expand(d.b, d.h, d.n, d.m)


def lowered(mask: Mask, d: Dims) -> Admitted | None:
    """None where the parts contradict each other: then no query sees any key."""
    try:
        return mask.admitted(d, CPU)
    except sl.SpecError as error:
        contradiction = str(error)
    assert "contradict" in contradiction
    assert not mask.dense(d).any()
    return None


@given(dims(), picks)
def test_a_lowered_mask_is_its_definition(d: Dims, pick: Draw) -> None:
    mask = simple_mask(pick, d)
    seen = mask.admitted(d, CPU)
    assert torch.equal(spread(seen, d), full(mask.dense(d), d))


@given(dims(), picks)
def test_lowered_intervals_lie_within_the_keys_and_are_never_reversed(d: Dims, pick: Draw) -> None:
    seen = lowered(simple_mask(pick, d) & simple_mask(pick, d), d)
    if seen is not None and seen.lo is not None and seen.hi is not None:
        assert seen.lo.dtype == seen.hi.dtype == torch.int32
        assert ((seen.lo >= 0) & (seen.lo <= d.m) & (seen.hi <= d.m)).all()


@given(dims(), picks)
def test_and_is_the_intersection(d: Dims, pick: Draw) -> None:
    a, b = simple_mask(pick, d), simple_mask(pick, d)
    both = full(a.dense(d), d) & full(b.dense(d), d)
    assert torch.equal(full((a & b).dense(d), d), both)
    seen = lowered(a & b, d)
    assert seen is None or torch.equal(spread(seen, d), both)


@given(dims(), picks)
def test_and_is_associative_commutative_and_idempotent(d: Dims, pick: Draw) -> None:
    a, b, c = (simple_mask(pick, d) for _ in range(3))
    ways = [a & (b & c), (a & b) & c, c & b & a, a & a & b & c & b]
    dense = [full(way.dense(d), d) for way in ways]
    assert all(torch.equal(dense[0], other) for other in dense)
    seen = [lowered(way, d) for way in ways]
    assert all(s is None or torch.equal(spread(s, d), dense[0]) for s in seen)


@given(dims(), picks)
def test_the_intersection_of_intervals_is_an_interval(d: Dims, pick: Draw) -> None:
    a, b = simple_mask(pick, d), simple_mask(pick, d)
    if not isinstance(a, sl.DenseMask) and not isinstance(b, sl.DenseMask):
        seen = lowered(a & b, d)
        assert seen is None or (seen.allowed is None and seen.lo is not None)


@given(dims())
def test_query_i_stands_at_key_position_i_plus_m_minus_n(d: Dims) -> None:
    seen = sl.Causal().dense(d)[0, 0]
    assert seen.tolist() == [[j <= i + d.m - d.n for j in range(d.m)] for i in range(d.n)]


@given(dims(), st.integers(0, 9))
def test_windows_causal_masks_and_prefixes_are_special_intervals(d: Dims, width: int) -> None:
    assert torch.equal(sl.Window(right=0).dense(d), sl.Causal().dense(d))
    assert torch.equal(full(sl.Prefix(0).dense(d), d), full(sl.Causal().dense(d), d))
    assert sl.Prefix(d.m).dense(d).all()
    i = torch.arange(d.m - d.n, d.m)
    sliding = sl.Intervals(i - width, i + 1)
    assert torch.equal(full((sl.Causal() & sl.Window(left=width)).dense(d), d), full(sliding.dense(d), d))


def spread_bias(added: Added, d: Dims) -> Tensor:
    """A lowered bias as the tensor it stands for: [b, h, n, m]."""
    total = torch.zeros(d.b, d.h, d.n, d.m, dtype=torch.float64)
    if added.relative is not None:
        i, j = torch.arange(d.n)[:, None], torch.arange(d.m)
        total = total + added.relative[:, j - i + d.n - 1]
    return total if added.additive is None else total + added.additive


@given(dims(), picks, st.integers(1, 3))
def test_a_lowered_bias_is_its_definition(d: Dims, pick: Draw, terms: int) -> None:
    leaves = {"q": torch.zeros(1, dtype=torch.float64)}
    makers = [_simple_bias(pick, d, leaves, f"bias.{at}") for at in range(terms)]
    leaves = {name: t.double() for name, t in leaves.items()}
    bias = makers[0](leaves)
    for make in makers[1:]:
        bias = bias + make(leaves)
    mine, right = spread_bias(bias.lowered(d, CPU, torch.float64), d), full(bias.dense(d), d)
    assert torch.equal(mine.isinf(), right.isinf())
    assert torch.allclose(mine, right, rtol=1e-14, atol=1e-14)


@given(dims(), picks)
def test_a_sum_of_half_precision_biases_is_not_rounded_to_half_precision(d: Dims, pick: Draw) -> None:
    a, b = (pick.normal(d.n, d.m, dtype=torch.bfloat16) for _ in range(2))
    added = (sl.DenseBias(a) + sl.DenseBias(b)).lowered(d, CPU, torch.float32)
    assert added.additive is not None
    assert torch.equal(added.additive.expand(1, 1, d.n, d.m)[0, 0].double(), a.double() + b.double())


@given(dims())
def test_alibi_is_minus_slope_times_distance(d: Dims) -> None:
    slopes = torch.arange(1, d.h + 1, dtype=torch.float64)
    bias = sl.Alibi(slopes).dense(d)[0]
    for i in range(d.n):
        for j in range(d.m):
            assert torch.equal(bias[:, i, j], -slopes * abs(j - (i + d.m - d.n)))


def test_geometric_slopes_are_those_of_the_paper() -> None:
    assert sl.Alibi.geometric(8).slopes.tolist() == [2.0**-i for i in range(1, 9)]
    twelve = sl.Alibi.geometric(12).slopes.tolist()
    between = [2.0**-x for x in (0.5, 1.5, 2.5, 3.5)]
    assert twelve == pytest.approx([*(2.0**-i for i in range(1, 9)), *between], rel=1e-6)


def test_relative_buckets_are_those_of_t5() -> None:
    # Bidirectional, 32 buckets, 128 far: the first 8 distances on each side alone, the rest ever wider.
    buckets = torch.arange(32.0, dtype=torch.float64)[:, None]
    row = sl.RelativeBias(buckets).dense(Dims(1, 1, 1, 1, 200, 4))[0, 0, 0]
    behind = {199 - j: int(row[j]) for j in range(200)}
    assert [behind[x] for x in range(8)] == list(range(8))
    assert [behind[x] for x in (8, 11, 12, 15, 16, 22, 23, 32, 46, 64, 91, 127, 128, 199)] == [
        8, 8, 9, 9, 10, 10, 11, 12, 13, 14, 15, 15, 15, 15,
    ]  # fmt: skip
    ahead = sl.RelativeBias(buckets).dense(Dims(1, 1, 1, 20, 20, 4))[0, 0, 0]
    assert [int(x) for x in ahead[:9]] == [0, *range(17, 24), 24]
    alone = sl.RelativeBias(buckets, bidirectional=False).dense(Dims(1, 1, 1, 20, 20, 4))[0, 0]
    assert (alone.triu() == 0).all()
    assert [int(x) for x in alone[19].flip(0)[:17]] == list(range(17))
