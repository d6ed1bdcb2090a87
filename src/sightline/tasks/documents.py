"""Documents from files, folders and standard input, or a reason why not."""

from __future__ import annotations

import codecs
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..errors import InputError

__all__ = [
    "Document",
    "Skipped",
    "as_documents",
    "check_document",
    "check_question",
    "read_document",
    "read_documents",
    "read_text",
]

_OTHER_UNICODE = (codecs.BOM_UTF32_LE, codecs.BOM_UTF32_BE, codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
_PDF = b"%PDF-"
_HEAD = 1 << 13
"""Bytes that tell whether a file of a folder may be text: the rest of a large binary is not read."""


@dataclass(frozen=True)
class Document:
    """A text and what it is called, such as the path of its file; None where it has no name."""

    name: str | None
    text: str


@dataclass(frozen=True)
class Skipped:
    """What was found in a folder and not read, and why."""

    place: str
    why: str


def as_documents(given: str | Mapping[str, str] | Sequence[Document]) -> list[Document]:
    """One text, texts by their names, or documents, as documents in order.

    Raises InputError where there is no text at all, and for a document that is empty.
    """
    if isinstance(given, str):
        check_document(given)
        return [Document(None, given)]
    if isinstance(given, Mapping):
        given = [Document(name, text) for name, text in given.items()]
    found = list(given)
    if not found:
        raise InputError("an answer was asked for; no document was given. Give a text that it can come from.")
    for document in found:
        check_document(document.text, "the document" if document.name is None else repr(document.name))
    return found


def read_documents(places: Sequence[str]) -> tuple[list[Document], list[Skipped]]:
    """The documents of files, of folders and all folders in them, and of "-", standard input; and what was skipped.

    Of a folder every file that is UTF-8 text is read, in the order of the paths. Skipped are what is hidden (its name
    begins with a dot), empty, or no text; links to folders are not followed. A file that is named twice is read once.

    Raises InputError as `read_document` does for a place that was named itself, for "-" given twice, and for a folder
    without any text.
    """
    if places.count("-") > 1:
        raise InputError(
            'standard input ("-") was given as a document more than once; it can be read only once. Give it once.'
        )
    found: dict[Path | str, Document | None] = {}
    skipped: list[Skipped] = []
    for place in places:
        path = Path(place).expanduser()
        if place == "-":
            found[place] = Document(_name(place), read_document(place))
        elif not path.is_dir():
            if path.resolve() not in found:
                found[path.resolve()] = Document(place, read_document(place))
        elif not _read_folder(path, found, skipped):
            raise InputError(
                f"{place!r} was given as a folder of documents; it holds no file of UTF-8 text that is not empty. Name "
                "another folder, or a file."
            )
    return [document for document in found.values() if document is not None], skipped


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
    return _decoded(_bytes(place, given), given)


def check_document(text: str, name: str = "the document") -> None:
    """Raise InputError for a text without anything in it."""
    if not text.strip():
        raise InputError(f"{name} was given as the document; it is empty. Give a text with something in it.")


def check_question(text: str) -> None:
    """Raise InputError for a question without anything in it."""
    if not text.strip():
        raise InputError('an answer was asked for; the question is empty. Ask something, such as "Who is it about?".')


def _read_folder(folder: Path, found: dict[Path | str, Document | None], skipped: list[Skipped]) -> bool:
    """Put the documents of a folder into `found`, None for what is none; whether it holds any."""
    any_text = False
    for file in _files(folder, skipped):
        key = file.resolve()
        if key not in found:
            try:
                found[key] = _document(file)
            except InputError as error:
                found[key] = None
                skipped.append(Skipped(str(file), str(error)))
        any_text = any_text or found[key] is not None
    return any_text


def _files(folder: Path, skipped: list[Skipped]) -> Iterator[Path]:
    """The files in a folder and the folders in it, in the order of their paths; hidden ones are skipped."""

    def unreadable(error: OSError) -> None:
        skipped.append(Skipped(str(error.filename), f"it cannot be read: {error.strerror}"))

    for place, folders, files in os.walk(folder, onerror=unreadable):
        hidden = sorted(name for name in (*folders, *files) if name.startswith("."))
        skipped += [Skipped(str(Path(place) / name), "it is hidden") for name in hidden]
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(files):
            if not name.startswith(".") and (file := Path(place) / name).is_file():
                yield file


def _document(file: Path) -> Document:
    """The document of a file in a folder. Raises InputError, whose message says why it is none."""
    try:
        with file.open("rb") as opened:
            data = opened.read(_HEAD)
            _check_bytes(data, "")
            data += opened.read()
    except OSError as error:
        raise InputError(f"it cannot be read: {error.strerror or error}") from error
    text = _decoded(data, "")
    if not text.strip():
        raise InputError("it is empty")
    return Document(str(file), text)


def _decoded(data: bytes, given: str) -> str:
    """The text of a file's bytes. Raises InputError, `given` before the reason, where they are none."""
    _check_bytes(data, given)
    try:
        return data.removeprefix(codecs.BOM_UTF8).decode()
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise _no_text(
            given,
            f"it is not UTF-8 text (byte {error.start}, line {line})",
            "Convert it to UTF-8, or give plain text.",
        ) from error


def _check_bytes(data: bytes, given: str) -> None:
    """Raise InputError for bytes that begin like something else than UTF-8 text, or hold what no text does."""
    if data.startswith(_PDF):
        raise _no_text(given, "it is a PDF", "Convert it to text first, for instance with: pdftotext FILE.pdf FILE.txt")
    if data.startswith(_OTHER_UNICODE):
        raise _no_text(given, "it is UTF-16 or UTF-32 text", "Convert it to UTF-8.")
    if 0 in data:
        raise _no_text(given, "it is a binary file (it holds NUL bytes)", "Give text.")


def _no_text(given: str, why: str, remedy: str) -> InputError:
    """What was given, what it is, what to do; of a file that nobody named, only what it is."""
    return InputError(f"{given}; {why}. {remedy}" if given else why)


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
