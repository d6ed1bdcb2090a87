"""The registry: every case is what its name says, and small enough to be checked."""

from __future__ import annotations

import fnmatch
import json

import pytest

import sightline as sl
from benchmarks.cases import CASES, Case, Inputs, select
from benchmarks.peers import contenders


def test_the_registry_holds_what_is_promised() -> None:
    promised = (
        *("forward-f32-d64-2048", "forward-f32-d128-8192-causal", "forward-bf16-d64-512-causal"),
        *("backward-f32-d64-2048", "backward-bf16-d64-2048-causal", "observe-f32-d64-8192", "observe-bf16-d64-512"),
        *("decode-f32-d128-8192", "decode-bf16-d128-65536", "memory-f32-d64-65536-causal"),
    )
    assert set(promised) <= set(CASES)


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_a_case_is_what_its_name_says(case: Case) -> None:
    kind, *rest = case.name.split("-")
    assert case.h % case.hk == 0
    assert case.m >= case.n
    assert case.causal == ("causal" in rest)
    assert ("bf16" in rest) == (case.dtype == "bfloat16")
    assert f"d{case.d}" in rest
    assert str(case.m) in rest
    assert (kind == "backward") == case.backward
    assert (kind == "decode") == case.decodes
    assert (kind == "memory") == case.memory
    assert bool(case.observed) == (kind in ("observe", "memory") or "observe" in rest)
    assert all(isinstance(r, sl.Reduction) for r in case.reductions().values())
    assert case.b * case.h * case.reduced().n * case.reduced().m < 2**23
    assert Case.from_json(json.loads(json.dumps(case.to_json()))) == case


def test_every_baseline_is_a_contender_that_takes_its_cases() -> None:
    offered = contenders()
    for case in CASES.values():
        assert [offered[name].refuses(case) for name in case.baselines] == [None] * len(case.baselines)


def test_backends_are_picked_up_by_themselves(monkeypatch: pytest.MonkeyPatch) -> None:
    added = sl.BackendInfo("abacus", False, ("no beads",))
    monkeypatch.setattr(sl, "backends", lambda: [added])
    ours = {name: c for name, c in contenders().items() if c.ours}
    assert list(ours) == ["abacus"]
    assert ours["abacus"].absent == "no beads"


def test_cases_are_selected_by_name_and_by_length() -> None:
    assert [case.name for case in select(["decode-f32-*-8192", "memory-*-8192-*"], quick=False)] == [
        "decode-f32-d128-8192",
        "memory-f32-d64-8192-causal",
    ]
    assert select([], quick=False) == list(CASES.values())
    quick = {case.name for case in select([], quick=True)}
    assert fnmatch.filter(quick, "memory-*") == ["memory-f32-d64-8192-causal"]
    assert not fnmatch.filter(quick, "forward-*-8192*")


def test_inputs_are_the_same_every_time() -> None:
    case = CASES["decode-bf16-d128-8192"].reduced()
    one, two = Inputs.of(case), Inputs.of(case)
    assert one.k.shape == (1, 2, 1801, 128)
    assert (one.q == two.q).all()
    assert (one.k == two.k).all()


def test_work_is_counted() -> None:
    case = CASES["forward-f32-d64-512-causal"]
    assert case.flops == 4 * 8 * 64 * (512 * 513 // 2)
    assert CASES["backward-f32-d64-2048"].flops == 7 * 2 * 8 * 64 * 2048**2
    assert CASES["decode-bf16-d128-8192"].read == 2 * 2 * 2 * 8192 * 128
