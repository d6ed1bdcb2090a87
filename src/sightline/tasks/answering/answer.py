"""A question about documents, answered, with the sentences that the answer came from.

    result = answer(document, "Who kept the lighthouse?")
    result.text, result.verdict
    result.citations[0].text, result.citations[0].drop
    result.supported, result.support.document_drop

    answer({"log.txt": log, "letters.txt": letters}, "Who kept the lighthouse?").citations[0].source

The model writes its answer greedily. Each citation is a sentence of a document with its share of the relevance and
the measured drop of the answer's log-probability when it is taken out; `sightline.evidence.Support` says when an answer
is supported. Documents that are longer than what is read at once are
searched first: see `sightline.tasks.answering._choice`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ... import models
from ...errors import ModelError, SpecError
from ...evidence import SECOND_ROUND, SHORTLIST, Evidence, Support, find_evidence, find_support, ranked
from ...models import Progress, unheard
from ...reader import Reader
from .._chat import stop_tokens
from .._check import check
from .._meter import Meter
from .._network import context, loaded
from .._prompt import Prompt
from ..citation import Citation, cited, line_of
from ..documents import Document, as_documents, check_question
from ._choice import PASSAGES, READING, choose
from ._passages import Reading
from ._writing import written
from .result import Answer, Window

__all__ = ["answer"]


def answer(
    document: str | Mapping[str, str] | Sequence[Document],
    question: str,
    *,
    model: str | tuple[Any, Any] = models.DEFAULT,
    max_new_tokens: int = 64,
    citations: int = 3,
    shortlist: int = SHORTLIST,
    reading: int = READING,
    passages: int = PASSAGES,
    progress: Progress | None = None,
    wrote: Callable[[str], None] | None = None,
) -> Answer:
    """Answer a question from documents; measure which sentences the answer came from, and whether from any.

    `document` is a text, or several by their names, or a sequence of `sightline.tasks.documents.Document`. Where
    together they are longer than `reading` tokens, or than the model's context allows, they are cut into passages,
    which are searched; the answer comes from the `passages` that suit the question best. The result says what was read.

    `model` is a name as in `sightline.models.resolve`, or a loaded pair (model, tokenizer). The answer has at most
    `max_new_tokens` tokens; up to `citations` sentences are cited, measured out of the `shortlist` that have most
    relevance. `progress` is told of the phases "converting", "loading", "searching", "choosing", "reading",
    "answering", "evidence", "measuring" and "checking", counted in tokens where they can be. `wrote` hears the answer
    piece by piece as it is written; the pieces make up the answer's text.

    Time: searching, O(characters); reading what was chosen once, running the answer's tokens about `shortlist` + 5
    times more, and for each sentence measured reading again what follows it: `citations` of them, and
    `sightline.evidence.SECOND_ROUND` more where none of those is clear. Memory: O(characters + tokens read), no
    attention matrix is stored.

    Raises InputError for an empty document or question and where the model's context has no room for either; SpecError
    for options that make no sense; ModelError and Unsupported for a model that cannot be used or a missing package.
    """
    documents = as_documents(document)
    check_question(question)
    _check_options(max_new_tokens, citations, shortlist, reading, passages)
    tell = progress or unheard
    with Meter() as meter:
        name, network, tokenizer = loaded(model, progress)
        _check_decoder(name, network)
        with models.quiet():
            choice = choose(
                documents,
                question.strip(),
                network,
                tokenizer,
                limit=context(network),
                room=max_new_tokens,
                reading=reading,
                passages=passages,
                tell=tell,
            )
            prompt = Prompt(choice.reading.text, question.strip(), tokenizer)
            text, found, support = _answer(
                network, tokenizer, prompt, choice.reading, max_new_tokens, citations, shortlist, tell, wrote
            )
    return Answer(
        text,
        _citations(documents, choice.reading, found),
        name,
        meter.seconds,
        meter.peak_bytes,
        support,
        tuple(_window(documents, *stretch) for stretch in choice.reading.stretches),
        choice.searched,
    )


def _answer(
    network: Any,
    tokenizer: Any,
    prompt: Prompt,
    reading: Reading,
    max_new_tokens: int,
    citations: int,
    shortlist: int,
    tell: Progress,
    wrote: Callable[[str], None] | None,
) -> tuple[str, list[Evidence], Support]:
    """Read, answer, look for evidence, measure it: the answer, what it rests on, and its support."""
    most = prompt.tokens[:-1]
    reader = Reader(network)
    tell("reading", 0, len(most))
    reader.read(most, lambda done: tell("reading", done, len(most)))
    tell("answering", 0, max_new_tokens)
    tokens, text, log_prob = written(
        reader,
        prompt.tokens,
        max_new_tokens,
        stop_tokens(network, tokenizer),
        tokenizer,
        lambda done: tell("answering", done, max_new_tokens),
        wrote,
    )
    if not text:
        return text, [], Support(0.0, 0.0, 0.0, 0.0, 0.0)  # there is nothing to find evidence for
    tell("evidence", 0, None)
    found = find_evidence(
        reader.fork(),  # measuring forgets the end of the text
        prompt.tokens,
        prompt.places,
        reading.sentences if citations else (),
        tokens,
        prompt.without,
        top=citations,
        shortlist=shortlist,
        second_round=SECOND_ROUND,
        log_prob=log_prob,
        progress=lambda done, total: tell("measuring", done, total),
    )
    if found:
        most = found[0].span
    else:  # nothing is measured where nothing is cited
        spans = reading.sentences
        listed = ranked(reader, prompt.tokens, prompt.places, spans, tokens, shortlist=shortlist, log_prob=log_prob)
        most = spans[next(iter(listed.direct))]
    tell("checking", 0, None)
    asked, lacking = check(prompt, text), check(prompt.lacking(most), text)
    support = find_support(reader, prompt.tokens, prompt.places, tokens, asked, lacking, log_prob=log_prob)
    return text, found, support


def _citations(documents: Sequence[Document], reading: Reading, found: Sequence[Evidence]) -> tuple[Citation, ...]:
    """Evidence in what was read, as citations of the documents it comes from."""
    cites: list[Citation] = []
    for evidence in found:
        number, span = reading.origin(evidence.span)
        own = Evidence(span, evidence.relevance, evidence.drop, evidence.direct_drop)
        cites += cited(documents[number].text, [own], documents[number].name)
    return tuple(cites)


def _window(documents: Sequence[Document], number: int, span: tuple[int, int]) -> Window:
    document = documents[number]
    start, end = span
    return Window(document.name, start, end, line_of(document.text, start), line_of(document.text, max(start, end - 1)))


def _check_options(max_new_tokens: int, citations: int, shortlist: int, reading: int, passages: int) -> None:
    """Raise SpecError for numbers that make no sense."""
    if max_new_tokens < 1:
        raise SpecError(f"max_new_tokens is {max_new_tokens}; an answer needs room for one token. Pass 1 or more.")
    if citations < 0:
        raise SpecError(f"citations is {citations}; it counts sentences. Pass 0 or more.")
    if shortlist < 1:
        raise SpecError(f"shortlist is {shortlist}; it counts sentences to choose from. Pass 1 or more.")
    if reading < 1:
        raise SpecError(f"reading is {reading}; it counts tokens to read at once. Pass 1 or more.")
    if passages < 1:
        raise SpecError(f"passages is {passages}; it counts what the answer comes from. Pass 1 or more.")


def _check_decoder(name: str, network: Any) -> None:
    """Raise ModelError for a model with an encoder, before its tokenizer or anything else of it is blamed."""
    if getattr(network.config, "is_encoder_decoder", False):
        raise ModelError(
            f"{name} was asked to answer; it is an encoder–decoder, such as models that translate, and answering takes "
            f"a decoder-only model that follows instructions. Leave it out for {models.DEFAULT}, or name another; "
            "`sightline models list` says what each is for."
        )
