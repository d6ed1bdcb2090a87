"""A result of a task, or a trace, as one page that shows what was produced beside what it came from.

    from sightline.report import report

    result = answer(document, "Who kept the lighthouse?")
    report(result, document, title="Who kept the lighthouse?").save("answer.html")

    report(Trace.load("run.safetensors")).save("run.html")

The page is one file, needs no network, and works offline for as long as there are browsers. Clicking a word or sentence
of what was produced shows its sources with what was measured of them. In a notebook a report shows its page.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..errors import SpecError
from ..recording import Kind, Trace
from .attention import Attention, Head, Links, Maps
from .model import LEVELS, MEASURES, Fact, Level, Measure, Reference, Report, Text, Unit

if TYPE_CHECKING:
    from .adapters._given import Documents

__all__ = [
    "LEVELS",
    "MEASURES",
    "Attention",
    "Fact",
    "Head",
    "Level",
    "Links",
    "Maps",
    "Measure",
    "Reference",
    "Report",
    "Text",
    "Unit",
    "report",
]


def report(result: Any, documents: Documents | None = None, *, title: str = "", kind: Kind | None = None) -> Report:
    """A report of an `Answer`, `Translation`, `Generation`, `Summary` or `Trace`.

    `documents` is the text that the result came from, or several by name, as the result's citations name them; of a
    generation it is the prompt, and a trace has its own. `title` heads the page: the question, for an answer. `kind`
    chooses which attention of a trace is shown, where a model has several.

    Raises InputError where the result cites what the documents do not hold; SpecError for a result of another type, a
    kind that was not recorded, and a trace without tokens.
    """
    if isinstance(result, Trace):
        from .adapters.trace import of_trace

        return of_trace(result, title, kind)
    # The tasks are imported only for their results: a trace is read without what running models needs.
    from ..tasks import Answer, Generation, Summary, Translation
    from .adapters.answering import of_answer
    from .adapters.generation import of_generation
    from .adapters.summary import of_summary
    from .adapters.translation import of_translation

    if kind is not None:
        raise SpecError(f"{kind} attention was asked for; that chooses among those of a trace. Leave out kind.")
    if isinstance(result, Answer):
        return of_answer(result, documents, title)
    if isinstance(result, Translation):
        return of_translation(result, documents, title)
    if isinstance(result, Generation):
        return of_generation(result, documents, title)
    if isinstance(result, Summary):
        return of_summary(result, documents, title)
    raise SpecError(
        f"a report of {type(result).__name__} was asked for; there are reports of Answer, Translation, Generation, "
        "Summary and Trace. Pass one of these."
    )
