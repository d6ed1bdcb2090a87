"""A document of any length, summarised, with the sentences that each sentence of the summary came from.

    result = summarize(document)
    for sentence in result.sentences:
        sentence.text, sentence.supported, sentence.citations[0].text, sentence.citations[0].drop

    summarize(document, extractive=5).excerpts        # its five most attended sentences; nothing is written

A document longer than the model's context is read in windows that overlap, each is summarised, and the summaries are
summarised together.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ... import models
from ...errors import SpecError
from ...evidence import rests_on_document
from ...models import Progress, unheard
from ...sentences import Span
from .. import _shown
from .._meter import Meter
from .._network import context, loaded
from ..citation import Citation, cited, line_of
from ..documents import check_document
from ._abstract import Read, Writer
from ._centrality import central
from ._written import ends_sentence, sentence_tokens

__all__ = ["Excerpt", "Sentence", "Summary", "Window", "summarize"]


@dataclass(frozen=True)
class Sentence:
    """A sentence of a summary, summary[start:end] == text, and what it rests on.

    `citations` come in the order of their measured drop, largest first: that of this sentence's log-probability, given
    the summary's sentences before it. `document_drop`, in nats, is what it loses when its `tokens` may not look at the
    document at all; `supported` is `sightline.evidence.rests_on_document` of the two. `window` is the number, from 0,
    of the window in which all this was measured. A supported sentence may still be wrong.
    """

    text: str
    start: int
    end: int
    citations: tuple[Citation, ...]
    supported: bool
    document_drop: float
    tokens: int
    window: int


@dataclass(frozen=True)
class Excerpt:
    """A sentence of the document: document[start:end] == text, which begins on line `line` (from 1).

    `score` is the attention it gets from the other sentences of its window, relative to their mean.
    """

    text: str
    start: int
    end: int
    line: int
    score: float


@dataclass(frozen=True)
class Window:
    """A stretch of the document that was read at once, document[start:end], and the summary of it alone.

    It begins on line `line` and ends on line `last_line`. `summary` is None where nothing was written.
    """

    start: int
    end: int
    line: int
    last_line: int
    summary: str | None


@dataclass(frozen=True)
class Summary:
    """A summary: `sentences` where it was written, `excerpts` where it was picked out, and the windows that were read.

    `truncated` says whether the summary was cut off at its greatest length. `seconds` is the time taken, loading
    included; `peak_bytes` the most memory the process held meanwhile.
    """

    text: str
    sentences: tuple[Sentence, ...]
    excerpts: tuple[Excerpt, ...]
    windows: tuple[Window, ...]
    truncated: bool
    model: str
    seconds: float
    peak_bytes: int

    def _repr_html_(self) -> str:
        return _shown.summary(self)

    def to_dict(self) -> dict[str, Any]:
        """As plain data for JSON: the text under "summary", its sentences under "units"."""
        return {
            "summary": self.text,
            "units": [
                {**vars(sentence), "citations": [dict(vars(citation)) for citation in sentence.citations]}
                for sentence in self.sentences
            ],
            "excerpts": [dict(vars(excerpt)) for excerpt in self.excerpts],
            "windows": [dict(vars(window)) for window in self.windows],
            "truncated": self.truncated,
            "model": self.model,
            "seconds": self.seconds,
            "peak_bytes": self.peak_bytes,
        }


def summarize(
    document: str,
    *,
    model: str | tuple[Any, Any] = models.DEFAULT,
    extractive: int | None = None,
    max_new_tokens: int = 128,
    citations: int = 2,
    progress: Progress | None = None,
) -> Summary:
    """Summarise a document of any length, and measure which of its sentences each sentence of the summary came from.

    `model` is a name as in `sightline.models.resolve`, or a loaded pair (model, tokenizer). The summary, and that of
    each window of a long document, has at most `max_new_tokens` tokens; for each of its sentences up to `citations`
    sentences of the document are measured. Of a long document they are looked for in one window: the one whose summary
    the sentence came from, which is measured in the same way.

    With `extractive` nothing is written: the result has that many sentences of the document, or all where it has fewer,
    in its order. They are those with the highest `score`, how much the sentences after them attend to them; the formula
    is in `sightline.tasks.summary._centrality`. What does not end like a sentence, such as a heading, is picked after
    all that does. `max_new_tokens` and `citations` then do not matter.

    `progress` is told of the phases "converting", "loading", "summarising" and "citing", or "reading".

    Time: reading the document once, with its overlaps, and for each citation reading again what follows the sentence in
    its window. Memory: that of reading one window, and O(document); no attention matrix is stored.

    Raises InputError for an empty document and where the model's context has no room for one; SpecError for options
    that make no sense; ModelError and Unsupported for a model that cannot be used or a missing package.
    """
    check_document(document)
    if extractive is not None and extractive < 1:
        raise SpecError(f"extractive is {extractive}; it counts sentences. Pass 1 or more, or None.")
    if max_new_tokens < 1:
        raise SpecError(f"max_new_tokens is {max_new_tokens}; a summary needs room for one token. Pass 1 or more.")
    if citations < 0:
        raise SpecError(f"citations is {citations}; it counts sentences. Pass 0 or more.")
    tell = progress or unheard
    with Meter() as meter:
        name, network, tokenizer = loaded(model, progress)
        limit = context(network)
        with models.quiet():
            if extractive is not None:
                picked, stretches = central(network, tokenizer, document, limit, tell)
                excerpts = _excerpts(document, picked, extractive)
                windows = tuple(_window(document, span, None) for span in stretches)
                sentences, truncated = (), False
                text = "\n".join(excerpt.text for excerpt in excerpts)
            else:
                writer = Writer(network, tokenizer, limit, max_new_tokens, tell)
                rounds = writer.rounds(document)
                last = rounds[-1][-1]
                sentences = _sentences(document, writer, rounds, tokenizer, citations, tell)
                windows = tuple(_window(document, read.span, read.summary) for read in rounds[0])
                excerpts, text, truncated = (), last.summary, last.truncated
    return Summary(text, sentences, excerpts, windows, truncated, name, meter.seconds, meter.peak_bytes)


def _sentences(
    document: str,
    writer: Writer,
    rounds: Sequence[Sequence[Read]],
    tokenizer: Any,
    citations: int,
    tell: Progress,
) -> tuple[Sentence, ...]:
    """The sentences of the last round's summary, with their citations in the first round's windows."""
    tokens = rounds[-1][-1].tokens
    text, written = sentence_tokens(tokenizer, tokens)
    tell("citing", 0, len(written))
    sources = writer.sources(rounds, [inside for _, inside in written])
    found: dict[int, Sentence] = {}
    for number in sorted(range(len(written)), key=lambda i: sources[i]):  # each window is read once
        span, inside = written[number]
        read, own = rounds[0][sources[number]], tokens[inside.start : inside.stop]
        evidence, drop = writer.evidence(read, tokens[: inside.start], own, citations)
        found[number] = Sentence(
            text[span.start : span.end],
            span.start,
            span.end,
            cited(document, evidence),
            rests_on_document(drop, len(own)),
            drop,
            len(own),
            sources[number],
        )
        tell("citing", len(found), len(written))
    return tuple(found[number] for number in range(len(written)))


def _excerpts(document: str, scored: Sequence[tuple[Span, float]], wanted: int) -> tuple[Excerpt, ...]:
    """The highest scores, in the order of the document; of equal ones the first. What ends like no sentence is last."""

    def worse(i: int) -> tuple[bool, float, int]:
        span, score = scored[i]
        return not ends_sentence(document[span.start : span.end]), -score, i

    best = sorted(range(len(scored)), key=worse)[:wanted]
    return tuple(
        Excerpt(document[span.start : span.end], span.start, span.end, line_of(document, span.start), score)
        for span, score in (scored[i] for i in sorted(best))
    )


def _window(document: str, span: Span, summary: str | None) -> Window:
    last = line_of(document, max(span.start, span.end - 1))
    return Window(span.start, span.end, line_of(document, span.start), last, summary)
