"""A sentence of a document that something written rests on, with where it stands and what was measured of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ..evidence import Evidence

__all__ = ["Citation", "cited", "line_of"]


@dataclass(frozen=True)
class Citation:
    """A sentence that what was written rests on: document[start:end] == text, which begins on line `line` (from 1).

    `relevance` is its share, 0 … 1, of the direct drops above 0 of all sentences on the short list. `drop` is measured:
    by how many nats the log-probability of what was written falls when the sentence is taken out of the document.
    `direct_drop`, in nats too, is the fall when the sentence is only hidden from the tokens that were written. `source`
    names the document that it is in, such as the path of its file; None for a document without a name.
    """

    text: str
    start: int
    end: int
    line: int
    relevance: float
    drop: float
    direct_drop: float
    source: str | None = None


def cited(document: str, found: Sequence[Evidence], source: str | None = None) -> tuple[Citation, ...]:
    """Evidence in the document called `source`, with its sentences' texts and lines, in the same order."""
    return tuple(
        Citation(
            text=document[evidence.span.start : evidence.span.end],
            start=evidence.span.start,
            end=evidence.span.end,
            line=line_of(document, evidence.span.start),
            relevance=evidence.relevance,
            drop=evidence.drop,
            direct_drop=evidence.direct_drop,
            source=source,
        )
        for evidence in found
    )


def line_of(text: str, at: int) -> int:
    """The line, from 1, of a character; lines end with a line feed, a carriage return, or both."""
    before = text[:at].replace("\r\n", "\n")
    return before.count("\n") + before.count("\r") + 1
