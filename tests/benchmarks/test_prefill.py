"""A whole model's prefill: it is timed in every way, and none that ends in other logits is."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner

from benchmarks import prefill
from tiny_model import save_tiny


def test_every_way_is_timed_and_its_samples_are_written(tmp_path: Path) -> None:
    target = tmp_path / "figures.json"
    arguments = ["--model", str(save_tiny(tmp_path / "model")), "--tokens", "40", "--rounds", "2", "--threads", "1"]
    before = torch.get_num_threads()
    done = CliRunner().invoke(prefill.main, [*arguments, "--json", str(target)])
    torch.set_num_threads(before)
    assert done.exit_code == 0, done.output
    samples = json.loads(target.read_text())["samples"]
    assert {(s["dtype"], s["attention"]) for s in samples} == {
        (dtype, way) for dtype in ("float32", "bfloat16") for way in prefill.ways()
    }
    assert all(len(s["wall"]) == len(s["cpu"]) == 2 for s in samples)


def test_other_logits_get_no_figure() -> None:
    exact = torch.randn(1, 1, 50)
    prefill.check("ours", exact + 1e-5, exact, exact)
    with pytest.raises(prefill.click.ClickException, match="ours: logits are off"):
        prefill.check("ours", exact * 1.01, exact, exact)
