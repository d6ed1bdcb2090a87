"""Laws of the matrix itself: rows sum to what the sink leaves, all ways to sum agree, shifts change nothing."""

from __future__ import annotations

import math

import torch
from hypothesis import given
from hypothesis import strategies as st

import sightline as sl
from laws.worlds import World, worlds


def alike(a: torch.Tensor, b: torch.Tensor) -> bool:
    return torch.allclose(a, b, rtol=1e-11, atol=1e-12)


@given(worlds())
def test_rows_sum_to_one_less_the_sinks_mass(world: World) -> None:
    p, lse = world.matrix.dense(), world.matrix.lse()
    live = lse > -math.inf
    sink = torch.zeros_like(lse) if world.sinks is None else (world.sinks[:, None] - lse).exp()
    assert (p >= 0).all()
    assert alike(p.sum(-1), torch.where(live, 1 - sink, 0))


@given(worlds())
def test_every_way_to_add_up_the_matrix_agrees(world: World) -> None:
    d, p = world.dims, world.matrix
    whole = p.dense()
    rows = torch.ones(d.n, 1, dtype=torch.float64)
    seen = p.reduce(
        {
            "received": sl.Received(),
            "column moment": sl.ColumnMoment(rows),
            "moment": sl.RowMoment(torch.ones(d.m, 1, dtype=torch.float64)),
            "segments": sl.SegmentMass(torch.arange(d.m)[None] % 2, 2),
            "blocks": sl.BlockMass(2, 3),
            "one block": sl.BlockMass(d.n, d.m),
            "every block": sl.BlockMass(1, 1),
            "rows": sl.Rows(torch.arange(d.n)),
            "entries": sl.Entries(torch.arange(d.m).expand(d.n, -1)),
        }
    )
    assert alike(seen["received"], whole.sum(-2))
    assert alike(seen["column moment"][..., 0], whole.sum(-2))
    assert alike(seen["moment"][..., 0], whole.sum(-1))
    assert alike(seen["segments"].sum(-1), whole.sum(-1))
    assert alike(seen["blocks"].sum((-1, -2)), whole.sum((-1, -2)))
    assert alike(seen["one block"][..., 0, 0], whole.sum((-1, -2)))
    for name in ("every block", "rows", "entries"):
        assert alike(seen[name], whole)


@given(worlds())
def test_the_transpose_is_the_adjoint(world: World) -> None:
    d, pick = world.dims, world.pick
    v, w = pick.normal(d.b, d.h, d.m, 2), pick.normal(d.b, d.h, d.n, 2)
    assert alike(((world.matrix @ v) * w).sum(), ((world.matrix.mT @ w) * v).sum())


@given(worlds())
def test_the_largest_of_every_kind_agree(world: World) -> None:
    d, whole = world.dims, world.matrix.dense()
    seen = world.matrix.reduce(
        {"peak": sl.Peak(), "top": sl.TopK(1), "columns": sl.ColumnMax(), "blocks": sl.BlockMax(1, d.m)}
    )
    assert alike(seen["peak"].value, whole.amax(-1))
    assert alike(seen["blocks"][..., 0], whole.amax(-1))
    assert alike(seen["columns"], whole.amax(-2))
    assert torch.equal(seen["top"][..., 0], seen["peak"].key)
    assert alike(world.matrix.entries(seen["top"])[..., 0], whole.amax(-1))


@given(worlds(sinks=False))
def test_entropy_lies_between_nothing_and_the_log_of_the_keys(world: World) -> None:
    entropy = world.matrix.reduce({"h": sl.Entropy()})["h"]
    keys = (world.dense > 0).sum(-1).clamp(min=1)
    assert (entropy >= -1e-12).all()
    assert (entropy <= keys.double().log() + 1e-12).all()


@given(worlds(sinks=False), st.floats(-100, 100))
def test_a_constant_added_to_the_logits_moves_the_log_sum_exp_alone(world: World, constant: float) -> None:
    moved = sl.DenseBias(torch.full((1,), constant, dtype=torch.float64))
    bias = moved if world.options["bias"] is None else world.options["bias"] + moved
    other = sl.AttentionMatrix(world.q, world.k, **{**world.options, "bias": bias})
    assert torch.allclose(other.dense(), world.matrix.dense(), rtol=1e-9, atol=1e-12)
    assert torch.allclose(other.lse(), world.matrix.lse() + constant, rtol=1e-9, atol=1e-9)


@given(worlds(), st.data())
def test_keys_may_come_in_any_order_when_masks_follow_them(world: World, data: st.DataObject) -> None:
    d = world.dims
    mask = (
        torch.ones(1, 1, d.n, d.m, dtype=torch.bool)
        if world.options["mask"] is None
        else world.options["mask"].dense(d)
    )
    order = torch.tensor(data.draw(st.permutations(range(d.m))))
    options = {**world.options, "bias": None, "mask": sl.DenseMask(mask)}
    moved = {**options, "mask": sl.DenseMask(mask[..., order])}
    here = sl.attention(world.q, world.k, world.v, **options)
    there = sl.attention(world.q, world.k[:, :, order], world.v[:, :, order], **moved)
    assert alike(here, there)
