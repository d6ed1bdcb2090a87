"""Files that are there whole or not at all."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from .errors import InputError

__all__ = ["replacing"]


@contextmanager
def replacing(target: str | Path) -> Generator[BinaryIO]:
    """A file to write, which becomes `target` when the block ends well.

    It lies beside its target, is brought to the disk and then renamed, so that whoever looks, and whenever the process
    dies, the target is what it was before or the whole new file. After an exception nothing is left of it.

    Raises InputError where the file cannot be written.
    """
    # Through a link to where it leads: renaming onto a link would replace the link.
    path = Path(os.path.realpath(Path(target).expanduser()))
    try:
        handle, beside = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
        try:
            with os.fdopen(handle, "wb") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            os.chmod(beside, _mode(path))
            os.replace(beside, path)
        except BaseException:
            Path(beside).unlink(missing_ok=True)
            raise
    except OSError as error:
        raise InputError(
            f"the result was to be written to {str(target)!r}; that failed: {error.strerror}. Choose another file."
        ) from error


def _mode(path: Path) -> int:
    """The permissions a file keeps, or that a new one is given; mkstemp's own are for the owner alone."""
    if path.exists():
        return path.stat().st_mode & 0o777
    mask = os.umask(0)
    os.umask(mask)
    return 0o666 & ~mask
