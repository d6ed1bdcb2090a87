"""Laws of the gradient field and of attention through layers: their dense definitions, and finite differences."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

import sightline as sl
from cases import Draw
from laws.worlds import World, worlds
from sightline.reductions import RowFold


def alike(a: Tensor, b: Tensor) -> bool:
    return torch.allclose(a, b, rtol=1e-10, atol=1e-11)


def field(world: World, grad_out: Tensor) -> Tensor:
    """R = P ∘ (dO vᵀ), all of it."""
    v = world.v.repeat_interleave(world.dims.group, 1)
    return world.dense * (grad_out @ v.mT)


PARTS = {"signed": lambda r: r, "positive": lambda r: r.clamp(min=0), "absolute": lambda r: r.abs()}


def sweeps(world: World) -> dict[str, sl.Reduction]:
    d, pick = world.dims, world.pick
    return {
        "received": sl.Received(),
        "weighted": sl.Received(pick.normal(d.b, d.h, d.n)),
        "columns": sl.ColumnMoment(pick.normal(d.hk, d.n, 2)[None]),
        "rows": sl.Rows(torch.tensor([0, -1])),
        "entries": sl.Entries(pick.integers(-1, d.m - 1, d.n, 3)),
        "blocks": sl.BlockMass(2, 3),
    }


@given(worlds(), st.sampled_from(list(PARTS)))
def test_relevance_is_the_reduction_of_the_field(world: World, part: str) -> None:
    d = world.dims
    grad_out = world.pick.normal(d.b, d.h, d.n, 3)
    asked = sweeps(world)
    seen = sl.relevance(world.matrix, world.v, grad_out, asked, part=part)  # type: ignore[arg-type]
    r = PARTS[part](field(world, grad_out))
    for name, reduction in asked.items():
        right = reduction.bind(d, torch.device("cpu")).dense(torch.zeros_like(r), r)
        assert alike(seen[name], right), name


@given(worlds(), st.sampled_from(["positive", "absolute"]))
def test_maxima_of_a_field_that_is_not_negative_are_its_maxima(world: World, part: str) -> None:
    d = world.dims
    grad_out = world.pick.normal(d.b, d.h, d.n, 3)
    asked = {"columns": sl.ColumnMax(), "blocks": sl.BlockMax(2, 2)}
    seen = sl.relevance(world.matrix, world.v, grad_out, asked, part=part)  # type: ignore[arg-type]
    r = PARTS[part](field(world, grad_out))
    for name, reduction in asked.items():
        assert alike(seen[name], reduction.dense(r, r)), name


@given(worlds())
def test_maxima_of_the_signed_field_are_its_maxima(world: World) -> None:
    d = world.dims
    grad_out = world.pick.normal(d.b, d.h, d.n, 3)
    seen = sl.relevance(world.matrix, world.v, grad_out, {"columns": sl.ColumnMax(), "blocks": sl.BlockMax(2, 2)})
    r = field(world, grad_out)
    assert alike(seen["columns"], r.amax(-2))
    assert alike(seen["blocks"], sl.BlockMax(2, 2).dense(r, r))


@given(worlds())
def test_signed_rows_sum_to_the_gradient_along_the_output(world: World) -> None:
    d = world.dims
    grad_out = world.pick.normal(d.b, d.h, d.n, 3)
    output = sl.attention(world.q, world.k, world.v, **world.options)
    rows = sl.relevance(world.matrix, world.v, grad_out, {"rows": sl.Rows(torch.arange(d.n))})["rows"]
    assert alike(rows.sum(-1), (grad_out * output).sum(-1))


@given(worlds(most=5))
@settings(max_examples=30)
def test_what_a_key_receives_is_what_scaling_its_value_changes(world: World) -> None:
    # ∂L/∂(1 + ε_j) of v_j ← (1 + ε_j) v_j, by central differences, for a loss that is not linear.
    d = world.dims
    target = world.pick.normal(d.b, d.h, d.n, 3)

    def loss(v: Tensor) -> Tensor:
        return (sl.attention(world.q, world.k, v, **world.options) - target).square().sum((1, 2, 3))

    output = sl.attention(world.q, world.k, world.v, **world.options)
    received = sl.relevance(world.matrix, world.v, 2 * (output - target), {"r": sl.Received()})["r"]
    by_key = received.sum(1)
    step = 1e-6
    for j in range(d.m):
        change = torch.zeros(d.m, 1, dtype=torch.float64)
        change[j] = step
        slope = (loss(world.v * (1 + change)) - loss(world.v * (1 - change))) / (2 * step)
        assert torch.allclose(by_key[:, j], slope, rtol=1e-6, atol=1e-6), j


def test_reductions_that_fold_logits_are_refused() -> None:
    q = torch.ones(1, 1, 2, 4)
    for r in (sl.Entropy(), sl.LogSumExp(), sl.Peak(), sl.TopK(2)):
        assert isinstance(r, RowFold)
        with pytest.raises(sl.Unsupported, match="folds logits"):
            sl.relevance(sl.AttentionMatrix(q, q), q, q, {"it": r})


@given(st.lists(worlds(most=1), min_size=1, max_size=3), st.integers(1, 6), st.integers(0, 10**6))
def test_rollout_is_the_product_of_the_layers_matrices(layers: list[World], m: int, seed: int) -> None:
    pick = Draw(seed)
    matrices = [
        sl.AttentionMatrix(
            pick.normal(2, 4, m, 3),
            pick.normal(2, pick.one((1, 2, 4)), m, 3),
            mask=pick.one((None, sl.Causal(), sl.Causal() & sl.Lengths(k=pick.integers(1, m, 2)))),
        )
        for _ in layers
    ]
    target = pick.normal(2, m)
    product = torch.eye(m, dtype=torch.float64).expand(2, m, m)
    for matrix in matrices:  # the first layer is applied first: it stands rightmost
        product = 0.5 * (matrix.dense().mean(1) + torch.eye(m, dtype=torch.float64)) @ product
    assert alike(sl.rollout(matrices, target), (target[:, None] @ product)[:, 0])


def test_rollout_has_the_gradient_of_finite_differences() -> None:
    pick = Draw(4)
    q, k, target = (t.requires_grad_() for t in (pick.normal(2, 2, 4, 3), pick.normal(2, 1, 4, 3), pick.normal(2, 4)))

    def call(q: Tensor, k: Tensor, target: Tensor) -> Tensor:
        layers = [sl.AttentionMatrix(q * x, k, mask=sl.Causal()) for x in (1.0, 2.0)]
        return sl.rollout(layers, target)

    assert torch.autograd.gradcheck(call, (q, k, target))


@given(st.integers(1, 5), st.integers(0, 10**6))
def test_rollout_keeps_the_total(m: int, seed: int) -> None:
    pick = Draw(seed)
    layers = [sl.AttentionMatrix(*(pick.normal(1, 2, m, 3) for _ in "qk"), mask=sl.Causal()) for _ in range(3)]
    target = pick.normal(1, m)
    assert alike(sl.rollout(layers, target).sum(-1), target.sum(-1))
