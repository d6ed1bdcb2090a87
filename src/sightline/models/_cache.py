"""The folder that models are kept in, and how something gets there: whole, and once."""

from __future__ import annotations

import importlib.util
import os
import shutil
import tempfile
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from ..errors import ModelError

__all__ = ["cache_dir", "check_installed", "first_line", "locked", "workspace"]

_EXTRA = 'pip install "sightline[models]"'


def cache_dir() -> Path:
    """Where converted models are kept: $XDG_CACHE_HOME/sightline/models, by default ~/.cache/sightline/models."""
    root = os.environ.get("XDG_CACHE_HOME", "")
    # The specification says to ignore a relative path.
    base = Path(root) if os.path.isabs(root) else Path.home() / ".cache"
    return base / "sightline" / "models"


@contextmanager
def locked(key: str) -> Generator[None]:
    """Hold what is called `key` in the cache for this process alone.

    The system releases the lock when its holder dies; what lies half-done under that name was abandoned then, and is
    cleared away. Raises OSError where the cache cannot be written.
    """
    check_installed("filelock")
    from filelock import FileLock

    place = cache_dir()
    place.mkdir(parents=True, exist_ok=True)
    with FileLock(place / f"{key}.lock"):
        for abandoned in place.glob(f"{key}.partial-*"):
            shutil.rmtree(abandoned, ignore_errors=True)
        yield


@contextmanager
def workspace(key: str) -> Generator[Path]:
    """A folder in the cache to work in, gone afterwards unless it was renamed to its final place."""
    folder = Path(tempfile.mkdtemp(prefix=f"{key}.partial-", dir=cache_dir()))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def check_installed(*packages: str) -> None:
    """Raise ModelError where one of the packages is missing."""
    missing = [package for package in packages if importlib.util.find_spec(package) is None]
    if missing:
        raise ModelError(
            f"a model was to be loaded; that needs {' and '.join(missing)}, which is not installed. "
            f"Install it with: {_EXTRA}"
        )


def first_line(error: BaseException) -> str:
    """What went wrong, in one line."""
    lines = str(error).strip().splitlines()
    return (lines[0] if lines else type(error).__name__).rstrip(".")
