"""Translations are timed in every way, and none that are others than the loop's."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner

import marian_files
from benchmarks import translate
from sightline import models

pytest.importorskip("sentencepiece", reason="the package sentencepiece is not installed")


def test_every_way_is_timed_and_its_samples_are_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(translate, "check", lambda *_: None)  # random weights find no end, and each way its own limit
    text, target = tmp_path / "text.txt", tmp_path / "figures.json"
    text.write_text("\n".join(s for s in marian_files.SENTENCES if ";" not in s))
    model = marian_files.write_folder(tmp_path / "marian")
    arguments = [str(text), "--model", str(model), "--rounds", "2", "--threads", "1", "--json", str(target)]
    before = torch.get_num_threads()
    done = CliRunner().invoke(translate.main, arguments)
    torch.set_num_threads(before)
    assert done.exit_code == 0, done.output
    samples = json.loads(target.read_text())["samples"]
    assert [s["way"] for s in samples] == ["loop", "task", "task aligned"]
    assert all(len(s["wall"]) == 2 for s in samples)


def test_other_translations_get_no_figure() -> None:
    translate.check("ours", ["a"] * 50, ["a"] * 49 + ["b"])
    with pytest.raises(translate.click.ClickException, match="ours: 2 of 50 sentences"):
        translate.check("ours", ["a"] * 50, ["a"] * 48 + ["b"] * 2)


def test_quality_is_that_of_the_task_and_perfect_against_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("sacrebleu", reason="the package sacrebleu is not installed")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    pair = models.load(str(marian_files.write_folder(tmp_path / "marian")))
    lines = [s for s in marian_files.SENTENCES if ";" not in s]
    found = translate.ways(pair, 2)["task"](lines)
    assert translate.quality(pair, lines, found, 2) == pytest.approx({"BLEU": 100, "chrF": 100})
    assert translate.quality(pair, lines, found[1:] + found[:1], 2)["chrF"] < 99
    with pytest.raises(translate.click.ClickException, match="3 lines and the reference 1"):
        translate.quality(pair, lines, found[:1], 2)
