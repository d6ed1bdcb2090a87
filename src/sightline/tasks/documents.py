"""A document from a file, or a reason why not."""

from __future__ import annotations

import codecs
import sys
from pathlib import Path

from ..errors import InputError

__all__ = ["check_document", "check_question", "read_document", "read_text"]

_OTHER_UNICODE = (codecs.BOM_UTF32_LE, codecs.BOM_UTF32_BE, codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)


def read_document(place: str) -> str:
    """`read_text` of a document. Raises InputError also for an empty one."""
    text = read_text(place, "the document")
    check_document(text, _name(place))
    return text


def read_text(place: str, role: str) -> str:
    """The text of a UTF-8 file, "-" for standard input. Line ends stay as they are; a byte order mark is left out.

    role: what the file is to be, for errors. Raises InputError for a file that is missing, a folder, not readable, or
    not text.
    """
    given = f"{_name(place)} was given as {role}"
    data = _bytes(place, given)
    if data.startswith(_OTHER_UNICODE):
        raise InputError(f"{given}; it is UTF-16 or UTF-32 text. Convert it to UTF-8.")
    if 0 in data:
        raise InputError(f"{given}; it is a binary file (it holds NUL bytes). Give text.")
    try:
        return data.removeprefix(codecs.BOM_UTF8).decode()
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise InputError(
            f"{given}; it is not UTF-8 text (byte {error.start}, line {line}). Convert it to UTF-8, or give plain text."
        ) from error


def check_document(text: str, name: str = "the document") -> None:
    """Raise InputError for a text without anything in it."""
    if not text.strip():
        raise InputError(f"{name} was given as the document; it is empty. Give a text with something in it.")


def check_question(text: str) -> None:
    """Raise InputError for a question without anything in it."""
    if not text.strip():
        raise InputError('an answer was asked for; the question is empty. Ask something, such as "Who is it about?".')


def _name(place: str) -> str:
    return "standard input" if place == "-" else f"{place!r}"


def _bytes(place: str, given: str) -> bytes:
    if place == "-":
        return sys.stdin.buffer.read()
    try:
        return Path(place).expanduser().read_bytes()
    except FileNotFoundError as error:
        raise InputError(f"{given}; there is no such file. Check the path.") from error
    except IsADirectoryError as error:
        raise InputError(f"{given}; it is a folder. Name one file in it.") from error
    except OSError as error:
        why = error.strerror or str(error)
        raise InputError(f"{given}; it cannot be read: {why}. Check the path.") from error
