"""Every backend against the definition in float64, on random calls: results, and every gradient there is.

600 configurations by default; `--configurations 5000` draws more. The same number always draws the same ones.
"""

from __future__ import annotations

import pytest
import torch

import sightline as sl
from cases import HALVES, Case, draw
from engines import Engine
from sightline.backends import _strips
from tolerance import Judge, gradients


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "seed" in metafunc.fixturenames:
        count = metafunc.config.getoption("--configurations")
        # The definition is not what conformance is in doubt about: a tenth of the configurations for it.
        metafunc.parametrize("seed", range(count if "engine" in metafunc.fixturenames else -(-count // 10)))


def faults(case: Case, backend: str, coarse: torch.dtype | None = None) -> list[str]:
    """What is wrong with a backend's answer to a case. coarse: see `Judge`."""
    leaves = case.fresh()
    results = case.observe(leaves, backend)
    right = Judge(case, coarse)
    return right.results(results) + right.gradients(gradients(case, results, leaves))


@pytest.fixture
def cut(monkeypatch: pytest.MonkeyPatch):
    """Cut a case into strips as small as it asks for, so that small cases too have many."""

    def cut(case: Case) -> Case:
        for name, size in zip(("STRIP", "ROWS", "MOST_ROWS"), case.strip, strict=True):
            monkeypatch.setattr(_strips, name, size)
        return case

    return cut


def test_results_and_gradients_are_those_of_the_definition(engine: Engine, seed: int, cut) -> None:
    case = cut(draw(seed, engine.dtypes))
    assert faults(case, engine.backend, engine.coarse(case)) == [], case


def test_the_dense_backend_is_the_definition(seed: int) -> None:
    case = draw(seed, (torch.float64, torch.float32))
    assert faults(case, "dense") == [], case


@pytest.mark.parametrize("dtype", HALVES)
def test_the_dense_backend_refuses_half_precision_and_says_why(dtype: torch.dtype) -> None:
    q = torch.ones(1, 1, 2, 4, dtype=dtype)
    with pytest.raises(sl.Unsupported, match="too coarse") as refusal:
        sl.attention(q, q, q, backend="dense")
    assert list(refusal.value.refusals) == ["dense"]


def test_small_budgets_do_cut_small_cases_into_strips_and_chunks(cut, monkeypatch: pytest.MonkeyPatch) -> None:
    # The conformance of many strips is tested on small cases: here is that they have many.
    counts: list[tuple[int, int]] = []
    spans, chunks = _strips.spans, _strips.chunks
    for seed in range(200):
        case = cut(draw(seed))
        request = sl.AttentionMatrix(case.leaves["q"], case.leaves["k"], **case.options(case.leaves))
        whole = sl.request.Request(request.q, request.k, request.scores, ())
        parts = list(chunks(whole))
        counts.append((len(parts), max(len(spans(part)) for part, *_ in parts)))
    assert sum(parts > 1 for parts, _ in counts) > 30
    assert sum(strips > 1 for _, strips in counts) > 50
    assert sum(parts == strips == 1 for parts, strips in counts) > 50


def test_the_configurations_cover_what_they_promise() -> None:
    cases = [draw(seed) for seed in range(300)]
    masks = " ".join(str(case.mask) for case in cases)
    biases = " ".join(str(case.bias(case.leaves)) for case in cases if case.bias is not None)
    for name in ("Causal", "Window", "Lengths", "Packed", "Prefix", "Intervals", "DenseMask", "Both"):
        assert f"{name}(" in masks
    for name in ("Alibi", "RelativeBias", "DenseBias", "Sum"):
        assert f"{name}(" in biases
    every = {type(r).__name__ for case in cases for r in case.reductions.values()}
    assert every == {
        name
        for name in dir(sl)
        if isinstance(r := getattr(sl, name), type) and issubclass(r, sl.Reduction) and r is not sl.Reduction
    }
    dims = [case.dims for case in cases]
    assert {case.dtype for case in cases} == {torch.float64, torch.float32, *HALVES}
    assert any(d.n > d.m for d in dims)
    assert any(d.n < d.m for d in dims)
    assert any(d.n == 1 for d in dims)
    assert any(d.m == 1 for d in dims)
    assert any(1 < d.hk < d.h for d in dims)
    assert any(case.leaves["v"].shape[-1] != case.dims.d for case in cases)
    assert any(not case.leaves["k"].is_contiguous() for case in cases)
    assert any(case.softcap and "sinks" in case.leaves and case.bias for case in cases)
    assert any((t == -torch.inf).any() for case in cases for name, t in case.leaves.items() if name[:4] == "bias")
    judged = [Judge(case).w for case in cases[:150]]
    assert any((w.s == -torch.inf).all(-1).any() for w in judged)
    assert any((w.x.abs() > 3e3).any() for w in judged)
    assert any((w.x == 0).all() and w.x.shape[-1] > 2 for w in judged)
