"""The check: what is right passes, and each mistake is caught."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch

import sightline as sl
from sightline.bench.case import Case
from sightline.bench.check import fault
from sightline.bench.contenders import CONTENDERS, OBSERVED

CASE = Case(600, heads=2)


@pytest.mark.parametrize("name", CONTENDERS)
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("tokens", [16, 600])
def test_every_contender_is_right(name: str, dtype: str, causal: bool, tokens: int) -> None:
    case = Case(tokens, heads=2, dtype=dtype, causal=causal)
    x = case.inputs()
    assert fault(case, x, CONTENDERS[name].attend(case, x)) == ""


MISTAKES: list[tuple[str, str, Callable[[Any], Any]]] = [
    ("sdpa", "output", lambda t: t.index_fill(2, torch.tensor([-1]), 0)),
    ("sdpa", "output", lambda t: t * torch.nan),
    ("sdpa", "output", lambda t: t[..., :-1]),
    ("eager", "weights", lambda t: t.mT),
    ("observing", "entropy", lambda t: t + 1e-4),
    ("observing", "peak", lambda peaks: sl.Peaks(peaks.value, peaks.key + 1)),
    ("observing", "peak", lambda peaks: sl.Peaks(peaks.value * 1.001, peaks.key)),
    ("observing", "top", lambda t: t.roll(1, -1)),
    ("observing", "top", lambda t: t + 600),
    ("observing", "received", lambda t: t * 1.001),
    ("observing", "map", lambda t: t.mT),
]


@pytest.mark.parametrize(("contender", "name", "change"), MISTAKES, ids=[f"{c}-{n}" for c, n, _ in MISTAKES])
def test_a_wrong_result_is_caught(contender: str, name: str, change: Callable[[Any], Any]) -> None:
    x = CASE.inputs()
    results = CONTENDERS[contender].attend(CASE, x)
    assert fault(CASE, x, {**results, name: change(results[name])})


def test_a_scale_five_percent_too_large_is_caught() -> None:
    x = CASE.inputs()
    seen = sl.observe(*x, OBSERVED, mask=sl.Causal(), scale=1.05 / 8)
    said = fault(CASE, x, {"output": seen.output, **seen})
    assert "the output is off by" in said
    assert "the entropy is off by" in said


def test_a_mask_that_is_forgotten_is_caught() -> None:
    x = CASE.inputs()
    full = replace(CASE, causal=False)
    assert "is allowed" in fault(CASE, x, CONTENDERS["sdpa"].attend(full, x))
