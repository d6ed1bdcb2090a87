"""The sentences of a text, its paragraphs and its words, as spans of it.

    [text[s.start : s.end] for s in sentences(text)]

Lines that Markdown gives a meaning of their own (headings, list items, quotes, table rows, code) end a sentence even
without a full stop; within the rest, sentencex decides, which knows abbreviations and quotations.

Source: sentencex (https://github.com/wikimedia/sentencex), the splitter of Wikipedia's content translation.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from .errors import Unsupported

__all__ = ["Span", "paragraphs", "sentences", "stripped", "words"]


class Span(NamedTuple):
    """The characters start … end − 1 of a text."""

    start: int
    end: int


_MARKER = re.compile(r"[ \t]*(?:#{1,6}[ \t]+|(?:[-*+]|\d{1,3}[.)])[ \t]+|>[ \t]?)")
"""What opens a line that begins a new block, and is not part of its sentence."""

_HEADING = re.compile(r"[ \t]*#{1,6}[ \t]")
_ROW = re.compile(r"[ \t]*\|")

_RULE = re.compile(r"[ \t]*(?:[-*_=][ \t]*){3,}$|[ \t]*\|?[ \t:|-]+\|[ \t:|-]*$")
"""A line that separates and says nothing: a rule, the underline of a heading, the line under a table's head."""

_FENCE = re.compile(r"[ \t]*(?:```|~~~)")

_BETWEEN_LETTERS = frozenset("'’·-‐‑\u00ad\u200c\u200d")
_BETWEEN_DIGITS = frozenset(".,:/'’-‐‑")
"""What joins two letters, or two digits, to one word: don't, col·lecció, well-being; 3.15, 1,000, 12:30, 1914-18."""

_UNSPACED = re.compile(r"[\u3005-\u3007\u3040-\u309f\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff]")
"""Ideographs and hiragana, which are written without spaces: each of them is taken for a word."""


def sentences(text: str, *, language: str = "en") -> list[Span]:
    """The sentences of a text in order, without the white space around them.

    Spans do not overlap, are never empty, and hold every character that is neither white space nor Markdown's marking
    of a line. `language` (ISO 639) chooses the abbreviations that do not end a sentence.

    Raises Unsupported where the package sentencex is not installed.
    """
    # Imported late: it is optional. To pyright, native code has no names.
    try:
        from sentencex import get_sentence_boundaries  # pyright: ignore[reportAttributeAccessIssue]
    except ModuleNotFoundError as error:
        raise Unsupported(
            "a text was to be cut into sentences; that needs the package sentencex, which is not installed. "
            'Install it with: pip install "sightline[models]"'
        ) from error

    found: list[Span] = []
    for block, prose in _blocks(text):
        pieces = [block]
        if prose:
            parts = get_sentence_boundaries(language, text[block.start : block.end])
            pieces = [Span(block.start + part["start_index"], block.start + part["end_index"]) for part in parts]
        found += [span for piece in pieces if (span := stripped(text, piece)).start < span.end]
    return found


def paragraphs(text: str) -> list[Span]:
    """The paragraphs of a text in order, without the white space around them: the blocks that sentences do not cross.

    A paragraph, heading, list item, quoted line, table row or line of code each. Together they hold every character
    that is neither white space nor Markdown's marking of a line.
    """
    return [span for block, _ in _blocks(text) if (span := stripped(text, block)).start < span.end]


def words(text: str, *, signs: bool = False) -> list[Span]:
    """The words of a text in order: runs of letters, marks and digits of any script, with what joins two of them.

    Ideographs and hiragana are words of one character each. Punctuation and symbols belong to no word; with `signs`
    each run of them without white space counts as a word too.
    A simplification of Unicode's word boundaries (UAX #29), without dictionaries.
    """
    found: list[Span] = []
    for at, character in enumerate(text):
        category = unicodedata.category(character)
        if category[0] not in "LMN" and category != "Pc":
            continue
        mark = category[0] == "M"
        if found and _joined(text, found[-1].end, at, mark):
            found[-1] = Span(found[-1].start, at + 1)
        elif not mark:  # a mark on a symbol belongs to it
            found.append(Span(at, at + 1))
    return _with_signs(text, found) if signs else found


def _with_signs(text: str, found: Sequence[Span]) -> list[Span]:
    """The words, and what else lies between them."""
    edges = [0, *(edge for span in found for edge in span), len(text)]
    between = [
        Span(start + run.start(), start + run.end())
        for start, end in zip(edges[::2], edges[1::2], strict=True)
        for run in re.finditer(r"\S+", text[start:end])
    ]
    return sorted([*found, *between])


def _joined(text: str, end: int, at: int, mark: bool) -> bool:
    """Whether the character at `at` goes on with the word that ends before `end`."""
    last, between, this = text[end - 1], text[end:at], text[at]
    if not between:
        return mark or not (_UNSPACED.match(last) or _UNSPACED.match(this))
    if last.isdecimal() and this.isdecimal():
        return between in _BETWEEN_DIGITS
    return between in _BETWEEN_LETTERS and not (_UNSPACED.match(last) or _UNSPACED.match(this))


def _blocks(text: str) -> Iterator[tuple[Span, bool]]:
    """Runs of lines that belong to one paragraph, heading, item, table row or line of code.

    With each, whether it is prose: rows and code are one sentence, full stops or not.
    """
    start: int | None = None
    end = 0
    fenced = False
    for line in re.finditer(r"[^\r\n]*(?:\r\n|\r|\n|$)", text):
        words = line[0].rstrip()
        fence = _FENCE.match(words)
        row = fenced or _ROW.match(words)
        marker = _MARKER.match(words)
        silent = fence or not words or (_RULE.match(words) and not fenced)
        if start is not None and (silent or row or marker):
            yield Span(start, end), True
            start = None
        if fence:
            fenced = not fenced
        elif silent:
            continue
        elif row:
            yield Span(line.start(), line.end()), False
        elif _HEADING.match(words):
            yield Span(line.start() + (marker.end() if marker else 0), line.end()), True
        else:
            if start is None:
                start = line.start() + (marker.end() if marker else 0)
            end = line.end()
    if start is not None:
        yield Span(start, end), True


def stripped(text: str, span: Span) -> Span:
    """The span without white space at its ends."""
    piece = text[span.start : span.end]
    start = span.end - len(piece.lstrip())
    return Span(start, max(start, span.start + len(piece.rstrip())))
