"""The gate: what is right passes, what is wrong is caught, and gets no figure."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner
from torch import Tensor

import sightline as sl
from benchmarks import run
from benchmarks.cases import CASES, EVERYTHING, Case, Inputs
from benchmarks.definition import Results
from benchmarks.gate import judge, judge_rows
from benchmarks.measure import Here, entries, measure
from benchmarks.peers import Call, Contender, contenders, differentiated
from benchmarks.report import ratios

SMALL = Case("small-f32", h=2, n=300, m=300, d=64, causal=True)
KINDS = (
    *("forward-f32-d64-2048", "forward-bf16-d128-8192-causal", "backward-f32-d64-2048-causal"),
    *("backward-bf16-d64-2048", "observe-f32-d64-8192-causal", "observe-bf16-d64-512"),
    *("decode-f32-d128-65536", "decode-bf16-d128-8192", "decode-observe-bf16-d128-65536"),
)

Attention = Callable[[Case, Tensor, Tensor, Tensor], Results]


def contender(attention: Attention, name: str = "mine") -> Contender:
    def prepare(case: Case, x: Inputs) -> Call:
        return differentiated(case, x, lambda q, k, v: attention(case, q, k, v))

    return Contender(name, prepare, observes=True, ours=True)


def altered(**changes: Any) -> Attention:
    """Sightline's attention with a mistake: its scale times a factor, or one of its results changed."""

    def attention(case: Case, q: Tensor, k: Tensor, v: Tensor) -> Results:
        scale = changes.get("scale", 1) / case.d**0.5
        mask = sl.Causal() if case.causal else None
        seen = sl.observe(q, k, v, case.reductions(), mask=mask, scale=scale, backend="tiled")
        results = {"output": seen.output, **seen}
        return {**results, **{name: change(results[name]) for name, change in changes.items() if name in results}}

    return attention


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize("who", ["tiled", "sdpa", "sdpa-folded", "sdpa-gqa", "sdpa-math", "eager"])
def test_who_is_right_passes(name: str, who: str) -> None:
    case, one = CASES[name], contenders()[who]
    assert judge(case if one.observes else case.plain(), one).state in ("ok", "refused")


@pytest.mark.parametrize("name", KINDS)
def test_a_scale_five_percent_too_large_is_caught(name: str) -> None:
    verdict = judge(CASES[name], contender(altered(scale=1.05)))
    assert verdict.state == "red"
    assert "allowed" in verdict.why
    assert judge(CASES[name], contender(altered())).state == "ok"


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("output", lambda t: t.index_fill(2, torch.tensor([-1]), 0)),
        ("output", lambda t: t * torch.nan),
        ("output", lambda t: t[..., :-1]),
        ("Entropy", lambda t: t + 1e-4),
        ("TopK", lambda t: t.roll(1, -1)),
        ("TopK", lambda t: t.clamp(min=0)),
        ("Peak", lambda peaks: (peaks[0], peaks[1] + 1)),
        ("Received", lambda t: t.roll(1, -1)),
        ("BlockMass", lambda t: t.mT),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_one_wrong_result_is_caught(name: str, change: Callable[[Any], Any]) -> None:
    case = replace(SMALL, observed=EVERYTHING)
    verdict = judge(case, contender(altered(**{name: change})))
    assert verdict.state == "red"
    assert name in verdict.why


def test_a_mistake_that_needs_length_is_caught_at_full_size() -> None:
    case = replace(CASES["forward-f32-d64-2048"], h=1, hk=1)
    x = Inputs.of(case)
    right = altered()(case, x.q, x.k, x.v)
    assert judge_rows(case, x, right).state == "ok"
    half = altered()(case, x.q, x.k[:, :, :1024], x.v[:, :, :1024])
    assert judge_rows(case, x, half).state == "red"


def test_refusals_and_failures_are_told_apart() -> None:
    def refuse(*_: Any) -> Results:
        raise sl.Unsupported("no", {"mine": ["too wide"]})

    def fail(*_: Any) -> Results:
        raise RuntimeError("out of luck")

    assert judge(SMALL, contender(refuse)).why == "too wide"
    assert judge(SMALL, contender(refuse)).state == "refused"
    assert judge(SMALL, contender(fail)).state == "red"
    assert judge(SMALL, replace(contender(fail), ours=False)).state == "refused"


# -- no figure for who is wrong ----------------------------------------------------------------------------------------


def among(*more: Contender) -> dict[str, Contender]:
    return {"sdpa": contenders()["sdpa"], **{c.name: c for c in more}}


def test_who_is_wrong_is_not_timed() -> None:
    calls: list[str] = []
    here = Here(1, among(contender(altered(scale=1.05), "wrong"), contender(altered(), "right")))
    sdpa, wrong, right = measure(entries(SMALL, here), 2, calls.append)
    assert (wrong.verdict.state, wrong.wall, wrong.cpu) == ("red", [], [])
    assert [len(row.wall) for row in (sdpa, right)] == [2, 2]
    assert ratios(SMALL, [sdpa, wrong, right], wrong) == {}
    assert set(ratios(SMALL, [sdpa, wrong, right], right)) == {"speedup over sdpa"}
    assert "wrong: warming up" not in calls


def test_observing_is_measured_beside_the_same_work_unobserved() -> None:
    case = replace(SMALL, observed=EVERYTHING)
    rows = measure(entries(case, Here(1, among(contender(altered())))), 2, lambda _: None)
    assert [(row.entry.contender, row.entry.observing) for row in rows] == [
        ("sdpa", False),
        ("mine", True),
        ("mine", False),
    ]
    assert set(ratios(case, rows, rows[1])) == {"speedup over sdpa", "observing"}


@pytest.fixture
def offer(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    def offer(*more: Contender) -> None:
        monkeypatch.setattr(run, "contenders", lambda: among(*more))
        monkeypatch.setattr(run, "select", lambda *_: [SMALL])

    return offer


def bench(*arguments: str | Path) -> Any:
    return CliRunner().invoke(run.main, [str(a) for a in arguments])


def keys(content: dict[str, Any], *path: str) -> set[str]:
    for name in path:
        content = content[name]
    return set(content)


def test_a_wrong_contender_ends_the_run_with_status_1(offer: Callable[..., None], tmp_path: Path) -> None:
    offer(contender(altered(scale=1.05), "wrong"))
    target = tmp_path / "figures.json"
    done = bench("--rounds", "2", "--json", target)
    assert done.exit_code == 1
    line = next(line for line in done.stdout.splitlines() if line.split()[:1] == ["wrong"])
    assert "no figure" in line
    assert not any(character.isdigit() for character in line)
    assert "WRONG wrong in small-f32: output: rms error" in done.stdout
    [result] = [r for r in json.loads(target.read_text())["results"] if r["contender"] == "wrong"]
    assert (result["wall"], result["cpu"], result["ratios"]) == (None, None, {})


def test_the_file_holds_every_sample_and_what_it_was_taken_on(offer: Callable[..., None], tmp_path: Path) -> None:
    offer(contender(altered()))
    target = tmp_path / "figures.json"
    done = bench("--rounds", "3", "--json", target)
    assert done.exit_code == 0, done.output
    content = json.loads(target.read_text())
    assert set(content) == {"schema", "fingerprint", "settings", "cases", "results"}
    assert keys(content, "fingerprint") == {
        *("cpu", "flags", "cores", "memory_bytes", "os", "python", "torch", "sightline", "commit"),
    }
    assert content["settings"]["rounds"] == 3
    assert content["cases"]["small-f32"]["flops"] == SMALL.flops
    sdpa, mine = content["results"]
    assert (sdpa["contender"], mine["contender"]) == ("sdpa", "mine")
    for clock in ("wall", "cpu"):
        samples: Sequence[float] = mine[clock]["samples"]
        assert len(samples) == 3
        assert min(samples) <= mine[clock]["low"] <= mine[clock]["median"] <= mine[clock]["high"] <= max(samples)
    pairs = sorted(a / b for a, b in zip(sdpa["wall"]["samples"], mine["wall"]["samples"]))
    assert mine["ratios"]["speedup over sdpa"]["median"] == pytest.approx(pairs[1])
    assert set(mine["verdict"]["errors"]) == {"output"}
    assert list(tmp_path.iterdir()) == [target]
