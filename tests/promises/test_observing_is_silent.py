"""Promise: observing changes no bit of the output, of its gradients, or of another observation."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

import sightline as sl
from cases import Case, Draw, all_reductions, draw
from engines import Engine
from sightline.backends import _strips
from tolerance import gradients

SEEDS = range(40)


def observed_by_all(seed: int, dtypes: tuple[torch.dtype, ...]) -> Case:
    """A case with every reduction."""
    case = draw(seed, dtypes)
    every = all_reductions(Draw(seed), case.dims, case.dtype)
    operands = {f"{name}.0": r.floating()[0] for name, r in every.items() if r.floating()}
    plain = {name: t for name, t in case.leaves.items() if name in ("q", "k", "v", "sinks") or name[:5] == "bias."}
    return replace(case, reductions=every, leaves={**plain, **operands}, wanted=tuple(plain), grads={})


def bits(t: Tensor) -> Tensor:
    return t.detach().contiguous().flatten().view(torch.uint8)


def same_bits(a: object, b: object) -> bool:
    """The same results, bit by bit."""
    if isinstance(a, Tensor) and isinstance(b, Tensor):
        return (a.dtype, a.shape) == (b.dtype, b.shape) and torch.equal(bits(a), bits(b))
    return all(same_bits(x, y) for x, y in zip(a, b, strict=True))  # type: ignore[call-overload]


@pytest.fixture(params=SEEDS)
def case(request: pytest.FixtureRequest, engine: Engine, monkeypatch: pytest.MonkeyPatch) -> Case:
    case = observed_by_all(request.param, engine.dtypes)
    for name, size in zip(("STRIP", "ROWS", "MOST_ROWS"), case.strip, strict=True):
        monkeypatch.setattr(_strips, name, size)
    return case


def test_the_output_has_the_same_bits_with_and_without_observers(engine: Engine, case: Case) -> None:
    leaves = case.fresh()
    plain = sl.attention(leaves["q"], leaves["k"], leaves["v"], backend=engine.backend, **case.options(leaves))
    assert same_bits(case.observe(leaves, engine.backend)["output"], plain)


def test_any_subset_of_observers_sees_the_same_bits_as_all_together(engine: Engine, case: Case) -> None:
    leaves, pick = case.fresh(), Draw(case.seed)
    together = case.observe(leaves, engine.backend)
    subsets = [(name,) for name in pick.choose.sample(list(case.reductions), 5)]
    subsets += [tuple(name for name in case.reductions if pick.chance(0.5)) for _ in range(3)]
    for subset in subsets:
        few = case.observe(leaves, engine.backend, only=subset)
        assert set(few) == {"output", *subset}
        for name, result in few.items():
            assert same_bits(result, together[name]), (name, subset)


def test_a_matrix_reduced_sees_the_same_bits_as_an_attention_observed(engine: Engine, case: Case) -> None:
    leaves = case.fresh()
    seen = case.observe(leaves, engine.backend)
    matrix = sl.AttentionMatrix(leaves["q"], leaves["k"], backend=engine.backend, **case.options(leaves))
    for name, result in matrix.reduce(case.on(leaves)).items():
        assert same_bits(result, seen[name]), name


def test_gradients_of_the_output_have_the_same_bits_with_and_without_observers(engine: Engine, case: Case) -> None:
    d = case.dims
    grad = Draw(case.seed).normal(d.b, d.h, d.n, case.leaves["v"].shape[-1], dtype=case.dtype)
    case = replace(case, grads={"output": grad})
    with_observers, without = case.fresh(), case.fresh()
    a = gradients(case, case.observe(with_observers, engine.backend), with_observers)
    b = gradients(case, case.observe(without, engine.backend, only=()), without)
    for name, t in a.items():
        assert t is not None
        assert same_bits(t, b[name]), name


def test_bits_are_compared_not_values() -> None:
    assert not same_bits(torch.tensor(0.0), torch.tensor(-0.0))
    assert same_bits((torch.tensor([torch.nan]), torch.tensor(1)), (torch.tensor([torch.nan]), torch.tensor(1)))
