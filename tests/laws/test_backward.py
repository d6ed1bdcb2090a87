"""Law 4, one backward: dS = P ∘ (Σ_r D_r − δ) is the gradient of every differentiable reduction at once."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from torch import Tensor

import sightline as sl
from cases import Draw
from engines import ENGINES
from laws.worlds import World, worlds
from sightline._dims import Dims

#: Finite differences need float64.
FOLDING = [engine.backend for engine in ENGINES if torch.float64 in engine.dtypes]


def differentiable(world: World, given: dict[str, Tensor]) -> dict[str, sl.Reduction]:
    """Every reduction that has a gradient, with the operands given."""
    d, pick = world.dims, Draw(0)
    return {
        "entropy": sl.Entropy(),
        "lse": sl.LogSumExp(),
        "moment": sl.RowMoment(given["f"]),
        "segments": sl.SegmentMass(pick.integers(-1, 1, d.b, d.m), 2),
        "rows": sl.Rows(torch.tensor([0, -1, d.n // 2])),
        "entries": sl.Entries(pick.integers(-1, d.m - 1, 1, d.h, d.n, 2)),
        "received": sl.Received(),
        "weighted": sl.Received(given["r"]),
        "columns": sl.ColumnMoment(given["w"]),
        "blocks": sl.BlockMass(2, 3),
    }


def inputs(world: World) -> dict[str, Tensor]:
    d, pick = world.dims, world.pick
    some = {
        "q": world.q,
        "k": world.k,
        "v": world.v,
        "f": pick.normal(1, d.hk, d.m, 2),
        "r": pick.normal(d.b, d.h, d.n),
        "w": pick.normal(d.b, 1, d.n, 2),
        "sinks": pick.normal(d.h),
        "slopes": pick.normal(d.h).abs(),
        "table": pick.normal(8, d.h),
        "additive": pick.normal(d.b, 1, 1, d.m),
    }
    return {name: t.clone().requires_grad_() for name, t in some.items()}


def results(world: World, given: dict[str, Tensor], backend: str) -> dict[str, Tensor]:
    """The output and every differentiable reduction, where −inf, a constant, is left out."""
    bias = (
        sl.Alibi(given["slopes"]) + sl.RelativeBias(given["table"], max_distance=16) + sl.DenseBias(given["additive"])
    )
    seen = sl.observe(
        given["q"],
        given["k"],
        given["v"],
        differentiable(world, given),
        mask=world.options["mask"],
        bias=bias,
        scale=0.7,
        softcap=world.options["softcap"],
        sinks=given["sinks"],
        backend=backend,
    )
    made = {"output": seen.output, **seen}
    made["lse"] = torch.where(made["lse"] == -math.inf, 0, made["lse"])
    return made


@pytest.mark.parametrize("backend", FOLDING)
@given(worlds(most=4))
@settings(max_examples=8)
def test_all_gradients_together_are_those_of_finite_differences(backend: str, world: World) -> None:
    given = inputs(world)
    names = list(given)

    def call(*tensors: Tensor) -> tuple[Tensor, ...]:
        return tuple(results(world, dict(zip(names, tensors, strict=True)), backend).values())

    assert torch.autograd.gradcheck(call, tuple(given.values()), eps=1e-6, atol=1e-6, rtol=1e-5, fast_mode=True)


@pytest.mark.parametrize("backend", FOLDING)
def test_every_single_partial_derivative_is_that_of_finite_differences(backend: str) -> None:
    pick = Draw(11)
    d = Dims(2, 2, 1, 2, 3, 2)
    options: dict[str, Any] = {"mask": sl.Causal() & sl.Lengths(k=torch.tensor([3, 0])), "softcap": 2.0}
    world = World(d, pick.normal(2, 2, 2, 2), pick.normal(2, 1, 3, 2), pick.normal(2, 1, 3, 2), options, pick)
    given = inputs(world)
    names = list(given)

    def call(*tensors: Tensor) -> tuple[Tensor, ...]:
        return tuple(results(world, dict(zip(names, tensors, strict=True)), backend).values())

    assert torch.autograd.gradcheck(call, tuple(given.values()), eps=1e-6, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("backend", FOLDING)
@given(worlds(most=5))
@settings(max_examples=25)
def test_the_gradient_of_all_is_the_sum_of_the_gradients_of_each(backend: str, world: World) -> None:
    given = inputs(world)
    made = results(world, given, backend)
    grads = {name: world.pick.normal(*t.shape) for name, t in made.items()}
    leaves = list(given.values())
    together = torch.autograd.grad(list(made.values()), leaves, list(grads.values()), retain_graph=True)
    alone = [torch.zeros_like(t) for t in leaves]
    for name, t in made.items():
        parts = torch.autograd.grad(t, leaves, grads[name], retain_graph=True, allow_unused=True)
        alone = [a if part is None else a + part for a, part in zip(alone, parts, strict=True)]
    for name, a, b in zip(given, together, alone, strict=True):
        assert torch.allclose(a, b, rtol=1e-9, atol=1e-11), name


@given(worlds(sinks=False))
def test_the_gradient_of_the_log_sum_exp_by_its_logits_is_the_matrix(world: World) -> None:
    d = world.dims
    logits = torch.zeros(d.b, d.h, d.n, d.m, dtype=torch.float64, requires_grad=True)
    bias = sl.DenseBias(logits) if world.options["bias"] is None else world.options["bias"] + sl.DenseBias(logits)
    matrix = sl.AttentionMatrix(world.q, world.k, **{**world.options, "bias": bias})
    matrix.lse().sum().backward()
    assert logits.grad is not None
    assert torch.allclose(logits.grad, matrix.dense().detach(), rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize("backend", FOLDING)
def test_a_gradient_of_a_gradient_is_refused_by_name(backend: str) -> None:
    q = torch.randn(1, 1, 3, 4, dtype=torch.float64, requires_grad=True)
    (first,) = torch.autograd.grad(sl.attention(q, q, q, backend=backend).sum(), q, create_graph=True)
    with pytest.raises(sl.Unsupported, match="backend='dense'"):
        first.sum().backward()
