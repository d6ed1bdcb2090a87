"""A question about a document, answered, with the sentences that the answer came from.

    result = answer(document, "Who kept the lighthouse?")
    result.text
    result.citations[0].text, result.citations[0].drop
    result.supported, result.document_drop

The model writes its answer greedily. Each citation is a sentence of the document with its share of the relevance and
the measured drop of the answer's log-probability when it is taken out; the answer is supported where it loses much when
the whole document is hidden from it. See `sightline.evidence`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ... import models
from ...errors import InputError, SpecError
from ...evidence import SUPPORT, Evidence, document_drop, find_evidence
from ...models import Progress
from ...reader import Reader
from ...sentences import Span, sentences
from .._chat import stop_tokens
from .._meter import Meter
from .._network import context, loaded
from .._prompt import Prompt
from ..citation import Citation, cited
from ..documents import check_document, check_question

__all__ = ["Answer", "answer"]


@dataclass(frozen=True)
class Answer:
    """What the model answered, and from where: citations in the order of their measured drop, largest first.

    `document_drop` is by how many nats the answer's log-probability falls when its tokens may not look at the document
    at all; 0 for an empty answer. `seconds` is the time taken, loading included; `peak_bytes` the most memory the
    process held meanwhile.
    """

    text: str
    citations: tuple[Citation, ...]
    model: str
    seconds: float
    peak_bytes: int
    document_drop: float

    @property
    def supported(self) -> bool:
        """Whether the answer rests on the document: its `document_drop` is at least `sightline.evidence.SUPPORT`.

        A supported answer may still be wrong: it may rest on the wrong sentence, or on a wrong document.
        """
        return self.document_drop >= SUPPORT

    def to_dict(self) -> dict[str, Any]:
        """As plain data for JSON, with the answer's text under "answer"."""
        return {
            "answer": self.text,
            "citations": [dict(vars(citation)) for citation in self.citations],
            "model": self.model,
            "seconds": self.seconds,
            "peak_bytes": self.peak_bytes,
            "supported": self.supported,
            "document_drop": self.document_drop,
        }


def answer(
    document: str,
    question: str,
    *,
    model: str | tuple[Any, Any] = models.DEFAULT,
    max_new_tokens: int = 64,
    citations: int = 3,
    shortlist: int = 12,
    progress: Progress | None = None,
) -> Answer:
    """Answer a question from a document; measure which sentences the answer came from, and whether from any.

    `model` is a name as in `sightline.models.resolve`, or a loaded pair (model, tokenizer). The answer has at most
    `max_new_tokens` tokens; up to `citations` sentences are measured, chosen from the `shortlist` that have most
    relevance. `progress` is told of the phases "converting",
    "loading", "reading", "answering", "evidence" and "measuring", each of them counted in tokens where it can be.

    Time: reading the document once, running the answer's tokens about `shortlist` + 5 times more, and for each citation
    reading again what follows the sentence. Memory: O(document), no attention matrix is stored.

    Raises InputError for an empty document or question and for a document longer than the model's context; SpecError
    for options that make no sense; ModelError and Unsupported for a model that cannot be used or a missing package.
    """
    check_document(document)
    check_question(question)
    if max_new_tokens < 1:
        raise SpecError(f"max_new_tokens is {max_new_tokens}; an answer needs room for one token. Pass 1 or more.")
    if citations < 0:
        raise SpecError(f"citations is {citations}; it counts sentences. Pass 0 or more.")
    if shortlist < 1:
        raise SpecError(f"shortlist is {shortlist}; it counts sentences to choose from. Pass 1 or more.")
    tell = progress or _nothing
    spans = sentences(document) if citations else []
    with Meter() as meter:
        name, network, tokenizer = loaded(model, progress)
        with models.quiet():
            prompt = Prompt(document, question.strip(), tokenizer)
            _check_length(network, name, len(prompt.tokens), max_new_tokens)
            text, found, support = _answer(
                network, tokenizer, prompt, spans, max_new_tokens, citations, shortlist, tell
            )
    return Answer(text, cited(document, found), name, meter.seconds, meter.peak_bytes, support)


def _answer(
    network: Any,
    tokenizer: Any,
    prompt: Prompt,
    spans: Sequence[Span],
    max_new_tokens: int,
    citations: int,
    shortlist: int,
    tell: Progress,
) -> tuple[str, list[Evidence], float]:
    """Read, answer, look for evidence, measure it: the answer, what it rests on, and its document drop."""
    *most, last = prompt.tokens
    reader = Reader(network)
    tell("reading", 0, len(most))
    reader.read(most, lambda done: tell("reading", done, len(most)))
    tell("answering", 0, max_new_tokens)
    tokens = reader.generate(
        last,
        max_new_tokens,
        stop_tokens(network, tokenizer),
        lambda done: tell("answering", done, max_new_tokens),
    )
    text = tokenizer.decode(tokens, skip_special_tokens=True).strip()
    if not text:
        return text, [], 0.0  # a model that says nothing leaves nothing to find evidence for
    tell("evidence", 0, None)
    support = document_drop(reader, prompt.tokens, prompt.places, tokens)
    found = find_evidence(
        reader,
        prompt.tokens,
        prompt.places,
        spans,
        tokens,
        prompt.without,
        top=citations,
        shortlist=shortlist,
        progress=lambda done, total: tell("measuring", done, total),
    )
    return text, found, support


def _check_length(network: Any, name: str, tokens: int, room: int) -> None:
    """Raise InputError where the prompt and the room for its answer do not fit in the model's context."""
    limit = context(network)
    if limit is not None and tokens + room > limit:
        raise InputError(
            f"an answer from this document was asked for; with the question it has {tokens:,} tokens and the answer "
            f"may take {room:,} more, and the context of {name} is {limit:,} tokens. Give a shorter document, "
            "or a model with a longer context."
        )


def _nothing(phase: str, done: int, total: int | None) -> None:
    """Progress that nobody listens to."""
