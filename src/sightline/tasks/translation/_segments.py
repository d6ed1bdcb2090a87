"""What of a text is to be translated: spans that a model reads one by one, everything between them stays as it is."""

from __future__ import annotations

import re
from collections.abc import Iterator

from ...sentences import Span, sentences

__all__ = ["segments"]

_BREAK = re.compile(r"[ \t]*(?:\r\n|\r|\n)[ \t]*")
_CODE = re.compile(r"^[ \t]*(```|~~~).*?(?:^[ \t]*\1[^\r\n]*|\Z)", re.MULTILINE | re.DOTALL)
_PARAGRAPH = re.compile(r"(?:\r\n|\r|\n)[ \t]*(?:\r\n|\r|\n)")
_NARROW = 40
"""Lines shorter than this were ended on purpose, whatever the lines around them do."""


def segments(text: str, language: str) -> list[Span]:
    """Sentences, headings, items and cells of a text in order, without those that hold no letter.

    A sentence may run over lines that were wrapped to a width. A line that ends although the next word would have
    fitted was ended on purpose, as in an address or a poem, and ends its segment. Cells of a table row are apart; code
    between fences (``` or ~~~) is no language, and left out. `language` as in `sentences`, and Unsupported is raised as
    there.
    """
    code = [match.span() for match in _CODE.finditer(text)]
    found: list[Span] = []
    at = 0
    for whole in sentences(text, language=language):
        while at < len(code) and code[at][1] <= whole.start:
            at += 1
        if at < len(code) and code[at][0] <= whole.start:
            continue
        parts = _cells(text, whole) if text[whole.start] == "|" else _lines(text, whole)
        found += [part for part in parts if any(map(str.isalpha, text[part.start : part.end]))]
    return found


def _cells(text: str, row: Span) -> Iterator[Span]:
    for cell in re.finditer(r"[^|\s](?:[^|]*[^|\s])?", text[row.start : row.end]):
        yield Span(row.start + cell.start(), row.start + cell.end())


def _lines(text: str, sentence: Span) -> Iterator[Span]:
    """The sentence, cut where a line was ended on purpose."""
    start, end = sentence
    breaks = list(_BREAK.finditer(text, start, end))
    width = _width(text, sentence) if breaks else 0
    for match in breaks:
        line = match.start() - _line_start(text, match.start())
        word = re.compile(r"\S*").match(text, match.end())
        if line + 1 + (len(word[0]) if word else 0) <= width:
            yield Span(start, match.start())
            start = match.end()
    yield Span(start, end)


def _width(text: str, sentence: Span) -> int:
    """The longest line of the paragraphs that a sentence lies in, at least `_NARROW`."""
    start, end = sentence
    reach = 4096  # a paragraph's neighbours tell its width; more of them would cost time and say no more
    before = [m.end() for m in _PARAGRAPH.finditer(text, max(0, start - reach), start)]
    after = _PARAGRAPH.search(text, end, end + reach)
    around = text[before[-1] if before else max(0, start - reach) : after.start() if after else end + reach]
    return max(_NARROW, max(map(len, around.splitlines()), default=0))


def _line_start(text: str, at: int) -> int:
    return max(text.rfind("\n", 0, at), text.rfind("\r", 0, at)) + 1
