"""A `Translation` as a report: sentences rest on the sentence they translate, words on the words they looked at."""

from __future__ import annotations

from dataclasses import replace

from ...sentences import Span
from ...tasks.translation import Translation
from .._levels import leveled
from ..model import Report, Unit
from ._given import Documents, costs, named, reference

__all__ = ["of_translation"]

_MEASURES = ("weight",)


def of_translation(result: Translation, documents: Documents | None, title: str) -> Report:
    """Raises InputError where a source is not in the document."""
    texts = named(documents, "a translation")
    units: list[Unit] = []
    for sentence in result.sentences:
        found = tuple(reference(source, texts, _MEASURES) for source in sentence.sources)
        units.append(Unit(sentence.start, sentence.end, "sentence", found, None if sentence.complete else False))
        for word in sentence.words:
            found = tuple(reference(source, texts, _MEASURES) for source in word.sources)
            units.append(Unit(word.start, word.end, "word", found))
    produced = leveled(result.text, cut=[Span(s.start, s.end) for s in result.sentences])
    if listed := [Span(unit.start, unit.end) for unit in units if unit.level == "word"]:
        produced = replace(produced, levels={**produced.levels, "word": tuple(listed)})
    # What was translated at once are the sentences of the source too.
    cut = sorted({Span(s.start, s.end) for sentence in result.sentences for s in sentence.sources})
    return Report(
        kind="translation",
        title=title or "Translation",
        produced=produced,
        documents=tuple(leveled(text, name, cut=cut) for name, text in texts.items()),
        units=tuple(units),
        measures=_MEASURES,
        facts=costs(result),
    )
