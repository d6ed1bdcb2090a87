"""An `Answer` as a report: one unit, the whole answer, which rests on sentences of the documents."""

from __future__ import annotations

from ...tasks.answering import Answer
from .._levels import leveled
from ..model import Fact, Report, Unit
from ._given import Documents, costs, named, reference

__all__ = ["of_answer"]

_MEASURES = ("drop", "direct_drop", "relevance")


def of_answer(result: Answer, documents: Documents | None, title: str) -> Report:
    """Raises InputError where a citation is not in the documents."""
    texts = named(documents, "an answer")
    units: tuple[Unit, ...] = ()
    if result.text:
        found = tuple(reference(citation, texts, _MEASURES) for citation in result.citations)
        units = (Unit(0, len(result.text), "paragraph", found, result.supported),)
    facts = [*costs(result), Fact("support", result.support.strength, "nats")]
    facts.append(Fact("drop without the document", result.support.document_drop, "nats"))
    if result.searched:
        facts.append(Fact("read", f"{len(result.windows):,} of {result.searched:,} passages"))
    return Report(
        kind="answer",
        title=title or "Answer",
        produced=leveled(result.text),
        documents=tuple(leveled(text, name) for name, text in texts.items()),
        units=units,
        measures=_MEASURES,
        facts=tuple(facts),
    )
