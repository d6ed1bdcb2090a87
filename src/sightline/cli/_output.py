"""Where a command's result goes: standard output, or a file that is there whole or not at all."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import click

from ..errors import InputError

__all__ = ["check_target", "replace", "write"]


def check_target(target: str | None) -> None:
    """Raise InputError where a file could not be written, before any work is done for it."""
    if target is None:
        return
    path = Path(target).expanduser()
    if path.is_dir():
        raise InputError(f"the result was to be written to {target!r}; that is a folder. Name a file.")
    if not path.absolute().parent.is_dir():
        raise InputError(
            f"the result was to be written to {target!r}; the folder {str(path.parent)!r} does not exist. "
            "Make it first."
        )
    if not os.access(path.absolute().parent, os.W_OK):
        raise InputError(
            f"the result was to be written to {target!r}; the folder {str(path.parent)!r} cannot be written. "
            "Choose another."
        )


def write(text: str, target: str | None) -> None:
    """Print the text, or write it to the file. Raises InputError where the file cannot be written."""
    if target is None:
        click.echo(text)
    else:
        replace(target, f"{text}\n".encode())


def replace(target: str, content: bytes) -> None:
    """Write a file: beside it first, then renamed, so that no half of it is ever seen.

    Raises InputError where the file cannot be written.
    """
    path = Path(target).expanduser()
    # Through a link to where it leads: renaming onto a link would replace the link.
    path = Path(os.path.realpath(path))
    try:
        handle, beside = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(content)
            os.chmod(beside, _mode(path))
            os.replace(beside, path)
        except BaseException:
            Path(beside).unlink(missing_ok=True)
            raise
    except OSError as error:
        raise InputError(
            f"the result was to be written to {target!r}; that failed: {error.strerror}. Choose another file."
        ) from error


def _mode(path: Path) -> int:
    """The permissions a file keeps, or that a new one is given; mkstemp's own are for the owner alone."""
    if path.exists():
        return path.stat().st_mode & 0o777
    mask = os.umask(0)
    os.umask(mask)
    return 0o666 & ~mask
