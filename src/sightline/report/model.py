"""What a report holds: values alone, the same for every task and for traces.

    produced text ── units, each with references ──> documents
                  └─ or an `Attention`: every token's weights over the tokens of one document

Nothing here knows how a page looks, or where the values came from.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from html import escape
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from .._files import replacing
from ..sentences import Span

if TYPE_CHECKING:
    from .attention import Attention

__all__ = ["LEVELS", "MEASURES", "Fact", "Level", "Measure", "Reference", "Report", "Text", "Unit"]

Level = Literal["token", "word", "sentence", "paragraph"]

LEVELS: tuple[Level, ...] = ("token", "word", "sentence", "paragraph")
"""From fine to coarse."""


@dataclass(frozen=True)
class Measure:
    """A number that evidence may have: what it is called, in which unit, what it means.

    `pool` says how the numbers of finer parts become that of a coarser one: shares are the mean over the parts that
    were produced and the sum over the parts that they came from; of drops, which do not add up, the largest counts.
    """

    name: str
    label: str
    unit: Literal["nats", "share", "score"]
    meaning: str
    pool: Literal["mean", "max"]


MEASURES: Mapping[str, Measure] = {
    measure.name: measure
    for measure in (
        Measure(
            "drop",
            "drop",
            "nats",
            "how much log-probability the produced text loses when this is taken out of the document, measured",
            "max",
        ),
        Measure(
            "direct_drop",
            "direct drop",
            "nats",
            "how much it loses when this is only hidden from the produced tokens, measured",
            "max",
        ),
        Measure("relevance", "relevance", "share", "share of what hiding the sentences tried costs", "mean"),
        Measure("share", "share", "share", "share of the relevance of all the model had read", "mean"),
        Measure("weight", "weight", "share", "attention weight", "mean"),
        Measure(
            "places",
            "places",
            "share",
            "share of the places in the lists of strongest keys; weights need queries and keys (--keep qk)",
            "mean",
        ),
        Measure("score", "score", "score", "attention from the other sentences, relative to their mean", "mean"),
    )
}
"""Every measure by name. The first that a report's references have is the one that colours show."""


@dataclass(frozen=True)
class Text:
    """A text, and its parts at each granularity that is known, in order, as characters start … end − 1.

    Parts of a level do not cross. `name` is that of the file, "" where there is none.
    """

    text: str
    levels: Mapping[Level, tuple[Span, ...]]
    name: str = ""


@dataclass(frozen=True)
class Reference:
    """A place that something came from: documents[document].text[start:end], and what was measured of it, by name."""

    document: int
    start: int
    end: int
    values: Mapping[str, float]


@dataclass(frozen=True)
class Unit:
    """A part of the produced text, produced.text[start:end], with what it rests on, strongest first.

    `supported` is None where nobody asked.
    """

    start: int
    end: int
    level: Level
    references: tuple[Reference, ...]
    supported: bool | None = None


@dataclass(frozen=True)
class Fact:
    """Something that is true of the whole: the model, the time it took."""

    label: str
    value: float | str
    unit: Literal["", "s", "bytes", "nats"] = ""


@dataclass(frozen=True)
class Report:
    """What was produced, from what, and how strongly each part rests on each.

    `measures` are the names of those that references have, the one that colours show first. In a notebook a report
    shows its page.
    """

    kind: Literal["answer", "translation", "generation", "summary", "trace"]
    title: str
    produced: Text
    documents: tuple[Text, ...]
    units: tuple[Unit, ...]
    measures: tuple[str, ...]
    facts: tuple[Fact, ...]
    attention: Attention | None = field(default=None, repr=False)

    def to_dict(self) -> dict[str, Any]:
        """As plain data for JSON; the page reads the same."""
        return {
            "version": 1,
            "kind": self.kind,
            "title": self.title,
            "produced": _text(self.produced),
            "documents": [_text(document) for document in self.documents],
            "units": [
                {
                    "start": unit.start,
                    "end": unit.end,
                    "level": unit.level,
                    "supported": unit.supported,
                    "references": [
                        {"document": r.document, "start": r.start, "end": r.end, **r.values} for r in unit.references
                    ],
                }
                for unit in self.units
            ],
            "measures": [vars(MEASURES[name]) for name in self.measures],
            "facts": [vars(fact) for fact in self.facts],
            "attention": None if self.attention is None else self.attention.to_dict(),
        }

    def html(self) -> str:
        """The report as one page that needs nothing else: no network, no server, no fonts."""
        from .page import page

        return page(self)

    def save(self, path: str | Path) -> None:
        """Write the page, whole or not at all. Raises InputError where the file cannot be written."""
        content = self.html().encode()
        with replacing(path) as file:
            file.write(content)

    def _repr_html_(self) -> str:
        # A frame of its own: the notebook's styles do not reach it, and what it runs does not reach the notebook.
        return (
            f'<iframe title="{escape(self.title)}" sandbox="allow-scripts allow-downloads" width="100%" height="680" '
            f'style="border:1px solid #8884;border-radius:8px" srcdoc="{escape(self.html())}"></iframe>'
        )


def _text(text: Text) -> dict[str, Any]:
    return {
        "name": text.name,
        "text": text.text,
        "levels": {level: _steps(spans) for level, spans in text.levels.items()},
    }


def _steps(spans: tuple[Span, ...]) -> list[int]:
    """From each edge to the next: start − the end before, length, and so on. Shorter than places are."""
    edges = [0, *(edge for span in spans for edge in span)]
    return [b - a for a, b in pairwise(edges)]
