"""A `Summary` as a report: each written sentence rests on sentences of the document; an excerpt on itself."""

from __future__ import annotations

from ...sentences import Span
from ...tasks.summary import Summary
from .._levels import leveled
from ..model import Fact, Report, Unit
from ._given import Documents, costs, named, reference

__all__ = ["of_summary"]

_MEASURES = ("drop", "direct_drop", "relevance")


def of_summary(result: Summary, documents: Documents | None, title: str) -> Report:
    """Raises InputError where a citation is not in the document."""
    texts = named(documents, "a summary")
    units = [
        Unit(
            sentence.start,
            sentence.end,
            "sentence",
            tuple(reference(citation, texts, _MEASURES) for citation in sentence.citations),
            sentence.supported,
        )
        for sentence in result.sentences
    ]
    at = 0
    for excerpt in result.excerpts:
        units.append(Unit(at, at + len(excerpt.text), "sentence", (reference(excerpt, texts, ("score",)),)))
        at += len(excerpt.text) + 1  # a line each
    return Report(
        kind="summary",
        title=title or "Summary",
        produced=leveled(result.text, cut=[Span(unit.start, unit.end) for unit in units]),
        documents=tuple(leveled(text, name) for name, text in texts.items()),
        units=tuple(units),
        measures=_MEASURES if result.sentences else ("score",),
        facts=(*costs(result), Fact("windows read", f"{len(result.windows):,}")),
    )
