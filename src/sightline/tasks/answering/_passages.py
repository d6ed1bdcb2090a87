"""Documents cut into passages, and chosen passages put together again as one text to read."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from ...sentences import Span, sentences
from .._chat import text_tokens
from .._windows import units, windows
from ..documents import Document

__all__ = ["GAP", "Passage", "Reading", "cut", "whole"]

GAP = "\n\n"
"""What stands between two stretches of text that do not follow one another."""


@dataclass(frozen=True)
class Passage:
    """A window of a document: which document by its number, from where to where, its sentences, its tokens."""

    document: int
    span: Span
    sentences: tuple[Span, ...]
    tokens: int


@dataclass(frozen=True)
class Reading:
    """What a model reads at once: stretches of documents as one text, in the order of the documents.

    `sentences` are places in `text`; `origin` tells where one is in its document.
    """

    text: str
    stretches: tuple[tuple[int, Span], ...]
    """The number of the document and the place in it of each stretch; no two of them touch."""
    starts: tuple[int, ...]
    """Where each stretch begins in `text`."""
    sentences: tuple[Span, ...]

    @classmethod
    def of(cls, documents: Sequence[Document], passages: Iterable[Passage]) -> Reading:
        """Passages put together; those that overlap or follow one another are one stretch, as in their document."""
        merged: list[tuple[int, Span]] = []
        inside: set[tuple[int, Span]] = set()
        for passage in sorted(passages, key=lambda p: (p.document, p.span)):
            inside.update((passage.document, span) for span in passage.sentences)
            number, (start, end) = passage.document, passage.span
            if merged and merged[-1][0] == number:
                before = merged[-1][1]
                if start <= before.end or not documents[number].text[before.end : start].strip():
                    merged[-1] = (number, Span(before.start, max(before.end, end)))
                    continue
            merged.append((number, passage.span))
        texts = [documents[number].text[span.start : span.end] for number, span in merged]
        starts: list[int] = []
        at = 0
        for text in texts:
            starts.append(at)
            at += len(text) + len(GAP)
        own = [
            starts[_holding(merged, number, span)] - merged[_holding(merged, number, span)][1].start
            for number, span in sorted(inside)
        ]
        return cls(
            GAP.join(texts),
            tuple(merged),
            tuple(starts),
            tuple(Span(span.start + by, span.end + by) for (_, span), by in zip(sorted(inside), own, strict=True)),
        )

    def origin(self, span: Span) -> tuple[int, Span]:
        """The number of the document that a span of the text comes from, and its place there."""
        at = bisect_right(self.starts, span.start) - 1
        number, stretch = self.stretches[at]
        by = stretch.start - self.starts[at]
        return number, Span(span.start + by, span.end + by)


def whole(documents: Sequence[Document], tokenizer: Any) -> list[Passage]:
    """Every document as one passage, from its first character to its last."""
    return [
        Passage(number, Span(0, len(d.text)), tuple(sentences(d.text)), len(text_tokens(tokenizer, d.text)[0]))
        for number, d in enumerate(documents)
    ]


def cut(documents: Sequence[Document], tokenizer: Any, room: int, overlap: int) -> list[Passage]:
    """The passages of documents: runs of sentences of at most `room` tokens, which overlap by up to `overlap`."""
    found: list[Passage] = []
    for number, document in enumerate(documents):
        tokens, places = text_tokens(tokenizer, document.text)
        spans, firsts = units(document.text, places, room)
        stops = [*firsts[1:], len(tokens)]
        for run in windows(firsts, len(tokens), room, overlap):
            inside = tuple(spans[i] for i in run)
            found.append(
                Passage(number, Span(inside[0].start, inside[-1].end), inside, stops[run[-1]] - firsts[run[0]])
            )
    return found


def _holding(stretches: Sequence[tuple[int, Span]], number: int, span: Span) -> int:
    """The stretch that holds a span of a document."""
    return bisect_right(stretches, (number, Span(span.start, 1 << 62))) - 1
