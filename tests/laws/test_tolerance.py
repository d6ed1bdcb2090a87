"""The tolerance rule itself: it passes what is only rounded, and fails what is wrong by the least there is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

import sightline as sl
from cases import Case, draw
from sightline._dims import Dims
from sightline.reductions import Reduction
from tolerance import Judge, definition, gradients, weights, wrong_keys

SEEDS = range(60)
#: Float32, and half-precision inputs, whose observations are float32: a band that hides faults would hide them here.
DTYPES = (torch.float32, torch.bfloat16)


def plain(seed: int, dtype: torch.dtype, reductions: dict[str, Reduction], **changes: Any) -> Case:
    """Ordinary scores over 2 × 4 heads, 9 queries and 12 keys, with gradients of everything."""
    g = torch.Generator().manual_seed(seed)
    b, h, hk, n, m, d = 2, 4, 2, 9, 12, 16
    leaves = {
        "q": torch.randn(b, h, n, d, generator=g).to(dtype),
        "k": torch.randn(b, hk, m, d, generator=g).to(dtype),
        "v": torch.randn(b, hk, m, 5, generator=g).to(dtype),
    }
    grads = {"output": torch.randn(b, h, n, 5, generator=g).to(dtype)}
    for name, r in reductions.items():
        if r.differentiable:
            shape, kind = r.like(Dims(b, h, hk, n, m, d), torch.float32)[0]
            grads[name] = torch.randn(shape, generator=g).to(kind)
    dims = Dims(b, h, hk, n, m, d)
    case = Case(seed, dims, leaves, sl.Causal(), None, reductions, None, None, ("q", "k", "v"), grads=grads)
    return replace(case, **changes)


OBSERVED: dict[str, Callable[[], Reduction]] = {
    "entropy": sl.Entropy,
    "lse": sl.LogSumExp,
    "received": sl.Received,
    "block mass": lambda: sl.BlockMass(3, 4),
    "block max": lambda: sl.BlockMax(3, 1),
    "column max": sl.ColumnMax,
    "rows": lambda: sl.Rows(torch.tensor([4, 8])),
    "peak": sl.Peak,
}


def found(right: Case, wrong: Case) -> tuple[list[str], list[str]]:
    """What the judge of one case says to the faithfully rounded results and gradients of another."""
    leaves = wrong.fresh(torch.float32)
    results, _ = definition(wrong, leaves)
    judge = Judge(right)
    made = gradients(wrong, results, leaves)
    rounded = {name: t if not isinstance(t, Tensor) else _as(right, name, t) for name, t in results.items()}
    results = {name: sl.Peaks(*t) if name == "peak" else t for name, t in rounded.items()}
    made = {name: None if t is None else t.to(right.leaves[name].dtype) for name, t in made.items()}
    return judge.results(results), judge.gradients(made)


def _as(case: Case, name: str, t: Tensor) -> Tensor:
    return t.detach().to(case.dtype) if name == "output" else t.detach()


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_definition_in_the_accumulators_dtype_passes(dtype: torch.dtype) -> None:
    case = plain(0, dtype, {name: make() for name, make in OBSERVED.items()})
    assert found(case, case) == ([], [])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", OBSERVED)
@pytest.mark.parametrize(
    "fault",
    [
        pytest.param({"scale": 1.01 / 4}, id="scale off by a hundredth"),
        pytest.param({"mask": sl.Window(right=1)}, id="mask off by one ahead"),
        pytest.param(
            {"mask": sl.Intervals(torch.zeros(9, dtype=torch.int64), torch.arange(3, 12))}, id="mask off by one behind"
        ),
        pytest.param({"mask": sl.Causal() & sl.Window(left=10)}, id="one key dropped from one row"),
        pytest.param({"softcap": 100.0}, id="a softcap of a hundred"),
    ],
)
def test_every_observation_shows_the_smallest_faults(dtype: torch.dtype, name: str, fault: dict[str, Any]) -> None:
    right = plain(1, dtype, {name: OBSERVED[name]()})
    results, _ = found(right, replace(right, **fault))
    assert any(line.startswith(name) for line in results)


@pytest.mark.parametrize(
    ("name", "fault"),
    [
        ("q", {"scale": 1.01 / 4}),
        ("k", {"scale": 1.01 / 4}),
        ("v", {"scale": 1.01 / 4}),
        ("q", {"mask": sl.Causal() & sl.Window(left=10)}),
        ("k", {"mask": sl.Causal() & sl.Window(left=10)}),
        ("v", {"mask": sl.Causal() & sl.Window(left=10)}),
    ],
)
def test_every_gradient_shows_the_smallest_faults(name: str, fault: dict[str, Any]) -> None:
    right = plain(2, torch.float32, {"entropy": sl.Entropy()})
    _, wrong = found(right, replace(right, **fault))
    assert any(line.startswith(f"gradient of {name}") for line in wrong)


def test_a_gradient_that_forgets_one_reduction_fails() -> None:
    right = plain(3, torch.float32, {"entropy": sl.Entropy(), "lse": sl.LogSumExp()})
    forgetful = replace(right, grads={name: g for name, g in right.grads.items() if name != "lse"})
    _, wrong = found(right, forgetful)
    assert [line.split("[")[0] for line in wrong] == ["gradient of q", "gradient of k"]


def test_the_rule_is_tight_on_random_configurations_too() -> None:
    # Where the definition with a scale 1 % larger differs at all from the right one by more than rounding, it fails.
    missed = []
    for seed in SEEDS:
        case = draw(seed, (torch.float32,))
        wrong = replace(case, scale=1.01 * case.multiplier, reductions={}, grads={}, wanted=())
        right = replace(case, reductions={}, grads={}, wanted=())
        exact = right.fresh(torch.float64)
        moved = (weights(wrong, exact).p - weights(right, exact).p).abs().amax()
        results, _ = found(right, wrong)
        if moved > 1e-3 and not results:
            missed.append((seed, float(moved)))
    assert missed == []


@pytest.mark.parametrize("wrong", [[[0, 1, 2]], [[2, 1, 0]], [[1, 2, 2]], [[1, 2, -1]], [[1, 2, 4]], [[1, 0, 2]]])
def test_wrong_keys_fail_and_ties_within_rounding_pass(wrong: list[list[int]]) -> None:
    s = torch.tensor([[[[1.0, 3.0, 2.0, 2.0]]]], dtype=torch.float64)
    right = torch.tensor([[[[1, 2, 3]]]])
    allowed = torch.full_like(s, 1e-6)
    assert wrong_keys("top", torch.tensor([[wrong]]), right, s, allowed)
    assert not wrong_keys("top", right, right, s, allowed)
    assert not wrong_keys("top", torch.tensor([[[[1, 3, 2]]]]), right, s, allowed)
    assert wrong_keys(
        "top", torch.tensor([[[[1, 3, 2]]]]), right, s, torch.zeros_like(s)
    )  # nothing was rounded: ties by key
