"""The tokens of a trace as a text with one span for each."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate

from ..recording import Tokens
from ..sentences import Span
from ._levels import leveled
from .model import Text

__all__ = ["text_of"]


def text_of(tokens: Tokens) -> tuple[Text, dict[int, str]]:
    """The first text, and by position the tokens that lie nowhere in it, whose spans are empty.

    Where the tokenizer did not say where tokens lie, they are looked for in order; where that fails, the text is what
    the tokens are, joined.
    """
    strings = tokens.strings[0]
    if tokens.texts is None:
        return _joined(strings)
    text = tokens.texts[0]
    if tokens.offsets is None:
        places = _found(text, strings)
    else:
        places = [None if start < 0 else Span(start, end) for start, end in tokens.offsets[0].tolist()]
    if places is None:
        return _joined(strings)
    spans, outside, after = list[Span](), dict[int, str](), 0
    for at, place in enumerate(places):
        if place is None:
            outside[at] = strings[at]
        spans.append(Span(after, after) if place is None else place)
        after = spans[-1].end
    return leveled(text, tokens=spans), outside


def _found(text: str, strings: Sequence[str]) -> list[Span | None] | None:
    """Where tokens lie that follow one another with only blanks between; None where that leaves some of the text."""
    places: list[Span | None] = []
    at = 0
    for string in strings:
        start = at + len(text[at:]) - len(text[at:].lstrip())
        bare = string.strip()
        if bare and text.startswith(bare, start):
            at = start + len(bare)
            places.append(Span(start, at))
        else:
            places.append(None)
    return None if text[at:].strip() else places


def _joined(strings: Sequence[str]) -> tuple[Text, dict[int, str]]:
    ends = list(accumulate(map(len, strings)))
    spans = [Span(end - len(string), end) for end, string in zip(ends, strings, strict=True)]
    return leveled("".join(strings), tokens=spans), {}
