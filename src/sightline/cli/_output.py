"""Where a command's result goes: standard output, or a file that is there whole or not at all."""

from __future__ import annotations

import os
from pathlib import Path

import click

from .._files import replacing
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
    """Write a file, whole or not at all. Raises InputError where it cannot be written."""
    with replacing(target) as file:
        file.write(content)
