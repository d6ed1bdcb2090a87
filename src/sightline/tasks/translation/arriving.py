"""A text that arrives on standard input, paragraph by paragraph, without waiting for its end."""

from __future__ import annotations

import codecs
import re
from bisect import bisect_left
from collections.abc import Iterator
from typing import BinaryIO

from ...errors import InputError

__all__ = ["arriving"]

_BLANK_LINE = re.compile(r"\n[ \t]*\r?\n")
_FENCE = re.compile(r"^[ \t]*(?:```|~~~)", re.MULTILINE)
_PIECE = 1 << 16


def arriving(stream: BinaryIO, name: str = "standard input") -> Iterator[str]:
    """The text of a UTF-8 stream in chunks of whole paragraphs, each as soon as it is there.

    A paragraph ends with a blank line; code between fences is never cut. The chunks together are the text, without a
    byte order mark. What has arrived by then comes as one chunk. Raises InputError where it turns out to be no text.
    """
    decoder = codecs.getincrementaldecoder("utf-8-sig")()
    waiting, read = "", 0
    # read1 hands over what is there; where the stream lacks it, everything is there.
    take = getattr(stream, "read1", stream.read)
    while True:
        data: bytes = take(_PIECE)
        if 0 in data or (data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) and not read):
            raise InputError(f"{name} was given as the text; it is binary, or text in another encoding. Give UTF-8.")
        try:
            waiting += decoder.decode(data, final=not data)
        except UnicodeDecodeError as error:
            raise InputError(
                f"{name} was given as the text; it is not UTF-8 text (near byte {read + error.start}). Convert it to "
                "UTF-8, or give plain text."
            ) from error
        read += len(data)
        if not data:
            break
        cut = _cut(waiting)
        if cut:
            yield waiting[:cut]
            waiting = waiting[cut:]
    if waiting:
        yield waiting


def _cut(text: str) -> int:
    """Where the last whole paragraph ends; 0 where none does."""
    fences = [match.start() for match in _FENCE.finditer(text)]
    # Before a place inside code stands an odd number of fences.
    ends = [match.end() for match in _BLANK_LINE.finditer(text)]
    return next((at for at in reversed(ends) if bisect_left(fences, at) % 2 == 0), 0)
