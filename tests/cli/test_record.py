from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from sightline import Trace
from sightline.cli._run import run

Captured = pytest.CaptureFixture[str]


@pytest.fixture
def trace(model: str, document: str, tmp_path: Path, capfd: Captured) -> str:
    target = str(tmp_path / "run.safetensors")
    assert run(["record", model, document, "-o", target]) == 0
    assert "sightline inspect" in capfd.readouterr().out
    return target


def test_a_text_becomes_a_trace(trace: str, model: str) -> None:
    loaded = Trace.load(trace)
    loaded.verify()
    assert list(loaded.reductions) == ["entropy", "peak", "top8", "received", "map"]
    assert loaded.model == model


def test_what_was_made_as_json(model: str, document: str, tmp_path: Path, capfd: Captured) -> None:
    target = tmp_path / "run.safetensors"
    arguments = ["--observe", "entropy,top2", "--layers", "0", "--heads", "1", "--keep", "qk", "--new-tokens", "2"]
    assert run(["record", model, document, "-o", str(target), *arguments, "--json"]) == 0
    out = json.loads(capfd.readouterr().out)
    assert (out["modules"], out["calls"], out["observed"], out["keep"]) == (1, 2, ["entropy", "top2"], "qk")
    assert out["bytes"] == target.stat().st_size
    loaded = Trace.load(target)
    assert loaded.matrix(0, 1).shape[-1] + 2 == out["tokens"]
    assert [path.name for path in tmp_path.iterdir() if path.suffix != ".md"] == ["run.safetensors"]


def test_a_text_on_standard_input(model: str, tmp_path: Path, capfd: Captured, monkeypatch: pytest.MonkeyPatch) -> None:
    import io
    import sys

    text = "Crème brûlée — 🦊\r\nשלום\r\n"
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(text.encode())))
    assert run(["record", model, "-", "-o", str(tmp_path / "t")]) == 0
    loaded = Trace.load(tmp_path / "t")
    assert loaded.tokens is not None
    assert loaded.tokens.texts == (text,)


def test_what_stands_out(trace: str, capfd: Captured) -> None:
    assert run(["inspect", trace, "--count", "3", "--verify"]) == 0
    out = capfd.readouterr().out
    for title in (
        "Tokens that receive most (self-attention)", "Sharpest heads", "Flattest heads", "Local heads",
        "Retrieval-like heads", "Heads with the strongest sinks", "Strongest pairs",
    ):  # fmt: skip
        assert title in out
    assert len(re.findall(r"model\.layers\.\d\.self_attn", out)) == 6 * 3
    assert "\x1b" not in out


def test_what_stands_out_as_json(trace: str, capfd: Captured, tmp_path: Path) -> None:
    assert run(["inspect", trace, "--json"]) == 0
    found = json.loads(capfd.readouterr().out)
    loaded = Trace.load(trace)
    assert found["modules"] == dict.fromkeys(loaded, 1)
    assert len(found["heads"]) == sum(len(calls[0].heads) for calls in loaded.values())
    entropy = float(loaded["model.layers.0.self_attn"][0]["entropy"][0, 0].double().mean())
    assert found["heads"][0]["entropy"] == pytest.approx(entropy)
    assert run(["inspect", trace, "--json", "-o", str(tmp_path / "out.json")]) == 0
    assert json.loads((tmp_path / "out.json").read_text()) == found


def test_tables_of_what_was_not_recorded_are_left_out(
    model: str, document: str, tmp_path: Path, capfd: Captured
) -> None:
    target = str(tmp_path / "run.safetensors")
    assert run(["record", model, document, "-o", target, "--observe", "entropy"]) == 0
    capfd.readouterr()
    assert run(["inspect", target]) == 0
    out = capfd.readouterr().out
    assert "Sharpest heads" in out
    assert "receive" not in out
    assert "pairs" not in out


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["record", "MODEL", "missing.txt", "-o", "OUT"], "there is no such file"),
        (["record", "MODEL", "DOCUMENT", "-o", "no folder/t"], "does not exist"),
        (["record", "MODEL", "DOCUMENT", "-o", "OUT", "--observe", "glow"], "'glow' was asked to be observed"),
        (["record", "MODEL", "DOCUMENT", "-o", "OUT", "--heads", "a"], "heads are numbers"),
        (["record", "MODEL", "DOCUMENT", "-o", "OUT", "--heads", "99"], "head 99 was asked for"),
        (["record", "MODEL", "DOCUMENT", "-o", "OUT", "--layers", "99"], "no module of the model matches it"),
        (["record", "nowhere", "DOCUMENT", "-o", "OUT"], "the model 'nowhere' was asked for"),
        (["record", "MODEL", "DOCUMENT"], "Missing option '-o'"),
        (["inspect", "missing"], "there is no such file"),
        (["inspect", "DOCUMENT"], "no whole safetensors file"),
    ],
)
def test_what_is_wrong_is_said(
    arguments: list[str], says: str, model: str, document: str, tmp_path: Path, capfd: Captured
) -> None:
    out = tmp_path / "out"
    names = {"MODEL": model, "DOCUMENT": document, "OUT": str(out)}
    assert run([names.get(argument, argument) for argument in arguments]) == 2
    error = capfd.readouterr().err
    assert says in error
    assert "Traceback" not in error
    assert not out.exists()
