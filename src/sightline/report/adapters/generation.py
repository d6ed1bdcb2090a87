"""A `Generation` as a report: each token rests on words of the prompt and of what was written before it."""

from __future__ import annotations

from ...errors import InputError
from ...sentences import Span
from ...tasks.generation import Generation
from .._levels import leveled
from ..model import Fact, Reference, Report, Unit
from ._given import Documents, costs, named

__all__ = ["of_generation"]


def of_generation(result: Generation, documents: Documents | None, title: str) -> Report:
    """The documents are the prompt and the output. Raises InputError where a source is in neither."""
    prompt = "\n\n".join(named(documents, "a generation").values())
    texts = {"prompt": prompt, "output": result.text}
    spans = [Span(unit.start, unit.end) for unit in result.units]
    units: list[Unit] = []
    for unit, span in zip(result.units, spans, strict=True):
        for source in unit.sources:
            if texts[source.where][source.start : source.end] != source.text:
                raise InputError(
                    f"a report was asked for; it names {source.text!r}, which does not stand at {source.start} of the "
                    f"{source.where} as given. Pass the prompt that the text was generated from."
                )
        found = tuple(
            Reference(0 if source.where == "prompt" else 1, source.start, source.end, {"share": source.share})
            for source in unit.sources
        )
        units.append(Unit(span.start, span.end, "token", found))
    produced = leveled(result.text, tokens=[span for span in spans if span.start < span.end])
    return Report(
        kind="generation",
        title=title or "Generation",
        produced=produced,
        documents=(leveled(prompt, "prompt"), leveled(result.text, "output")),
        units=tuple(units),
        measures=("share",),
        facts=(*costs(result), Fact("ended by", "a stop token" if result.ended == "stop" else "its length")),
    )
