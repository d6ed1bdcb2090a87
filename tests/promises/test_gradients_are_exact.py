"""Promise: the output and every differentiable reduction have exact gradients, for every tensor that went in."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

import sightline as sl
from cases import Case, Draw, all_reductions, draw
from engines import Engine
from tolerance import Judge, gradients

DIFFERENTIABLE = ["entropy", "lse", "moment", "segments", "rows", "entries", "received", "received weighted"]
DIFFERENTIABLE += ["column moment", "block mass"]
SELECTIONS = ["peak", "top", "top64", "column max", "block max"]


def observed_by(name: str, seed: int, dtypes: tuple[torch.dtype, ...]) -> Case:
    """A case with one reduction, its gradient, and the gradients of all its inputs asked for."""
    case = draw(seed, dtypes)
    r = all_reductions(Draw(seed), case.dims, case.dtype)[name]
    leaves = {n: t for n, t in case.leaves.items() if n in ("q", "k", "v", "sinks") or n.startswith("bias.")}
    leaves |= {f"{name}.0": t for t in r.floating()}
    shape, dtype = r.bind(case.dims, torch.device("cpu")).like(case.dims, case.accumulator)[0]
    grad = Draw(seed).normal(*shape, dtype=dtype)
    return replace(case, leaves=leaves, reductions={name: r}, wanted=tuple(leaves), grads={name: grad})


@pytest.mark.parametrize("name", DIFFERENTIABLE)
def test_each_reduction_alone_has_the_gradients_of_its_definition(engine: Engine, name: str) -> None:
    moved = set()
    for seed in range(8):
        case = observed_by(name, seed, engine.only(torch.float64, torch.float32, torch.bfloat16))
        leaves = case.fresh()
        made = gradients(case, case.observe(leaves, engine.backend), leaves)
        assert Judge(case, engine.coarse(case)).gradients(made) == [], case
        moved |= {leaf for leaf, t in made.items() if t is not None and t.any()}
    assert {"q", "k"} <= moved
    assert any(leaf == "sinks" for leaf in moved)
    assert any(leaf.startswith("bias.") for leaf in moved)
    assert (f"{name}.0" in moved) == (name in ("moment", "received weighted", "column moment"))


@pytest.mark.parametrize("backend", [info.name for info in sl.backends() if info.available])
@pytest.mark.parametrize("name", SELECTIONS)
def test_selections_carry_no_gradient(backend: str, name: str) -> None:
    case = observed_by(name, 1, (torch.float32,))
    seen = case.observe(case.fresh(), backend)
    results = seen[name] if isinstance(seen[name], tuple) else (seen[name],)
    assert not any(t.requires_grad for t in results)
    assert seen["output"].requires_grad


@pytest.mark.parametrize("causal", [True, False])
def test_gradients_of_attention_are_those_of_pytorchs_own(engine: Engine, causal: bool) -> None:
    pick = Draw(7)
    given = [pick.normal(2, 4, 33, 16).requires_grad_() for _ in range(3)]
    grad = pick.normal(2, 4, 33, 16)
    theirs = torch.nn.functional.scaled_dot_product_attention(*given, is_causal=causal)
    mine = sl.attention(
        *(t.to(engine.finest) for t in given), mask=sl.Causal() if causal else None, backend=engine.backend
    )
    mine = torch.autograd.grad(mine, given, grad.to(engine.finest))
    for a, b in zip(mine, torch.autograd.grad(theirs, given, grad), strict=True):
        assert (a - b).abs().amax() < 450 * torch.finfo(engine.finest).eps


def test_the_weights_of_the_top_keys_have_a_gradient_through_entries(engine: Engine) -> None:
    pick = Draw(9)
    q, k = (pick.normal(1, 2, n, 8, dtype=engine.finest).requires_grad_() for n in (5, 11))
    matrix = sl.AttentionMatrix(q, k, mask=sl.Causal(), backend=engine.backend)
    keys = matrix.reduce({"top": sl.TopK(3)})["top"]
    mine = torch.autograd.grad(matrix.entries(keys).square().sum(), (q, k))
    dense = sl.AttentionMatrix(q, k, mask=sl.Causal(), backend="dense").dense()
    theirs = torch.autograd.grad(dense.topk(3).values.square().sum(), (q, k))
    for a, b in zip(mine, theirs, strict=True):
        assert (a - b).abs().amax() < 100 * torch.finfo(engine.finest).eps


def test_only_the_gradients_asked_for_are_made(engine: Engine) -> None:
    pick = Draw(2)
    q, k, v = (pick.normal(1, 2, 5, 4, dtype=engine.finest) for _ in range(3))
    for asked in ("q", "k", "v"):
        given = {"q": q.clone(), "k": k.clone(), "v": v.clone()}
        given[asked].requires_grad_()
        sl.attention(**given, backend=engine.backend).sum().backward()
        assert {name for name, t in given.items() if t.grad is not None} == {asked}
    assert not sl.attention(q, k, v, backend=engine.backend).requires_grad
