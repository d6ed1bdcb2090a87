"""A text in another language, and for each sentence and word of it where it came from.

    result = translate("The red car stopped.\\nIt was late.", source="en", target="pt")
    result.text
    result.sentences[0].words[1].sources[0].text

The text is cut into sentences, and all that lies between them stays as it is: line breaks, Markdown's marks, code
between fences. Sentences of similar length are translated together. `translating` yields the translation as it is made.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from ... import models
from ...errors import InputError, SpecError
from ...models import Progress, unheard
from ...sentences import Span, words
from .._meter import Meter
from .._network import loaded
from ._chosen import translator
from ._laid import laid
from ._segments import segments
from ._translator import Part, Translator, Written
from ._words import between_words
from .result import Passage, Sentence, Source, Translation, Word

__all__ = ["PAIRS", "translate", "translating"]

PAIRS: Mapping[tuple[str, str], str] = {("en", "pt"): "marian-en-pt", ("pt", "en"): "marian-pt-en"}
"""The known model for each pair of languages, (source, target)."""

_FAINT = 0.05
"""Weights below this are not listed, unless there is nothing above."""

_WINDOW = 16
"""Batches that are sorted by length together. The first windows are smaller, so that the first words come soon."""


def translate(
    text: str,
    *,
    source: str = "en",
    target: str = "pt",
    model: str | tuple[Any, Any] | None = None,
    align: bool = True,
    batch_size: int = 32,
    num_beams: int = 1,
    progress: Progress | None = None,
) -> Translation:
    """Translate a text and tell which words of it each word of the translation looked at.

    `source` and `target` are codes of languages (ISO 639); `PAIRS` has the known model of each pair. `model`, a name as
    in `sightline.models.resolve` or a loaded pair (model, tokenizer), may be

    - a model with an encoder. M2M100, NLLB and mBART are told the languages, by these codes or their own ("eng_Latn"),
      and T5 by the prefix that its configuration has for them. One that serves a single pair is told nothing.
    - any other model with a chat template, which is asked to translate, sentence by sentence. How well it does is its
      own matter: small ones translate badly, leave things out or answer in place of translating.

    With `align` each word comes with the words it came from. A model that was trained to align words, as the known ones
    were, declares which decoder layer does, and its attention comes with the translation at no price worth speaking of
    (greedily; with beams the decoder reads once more). With others each word costs a backward pass through the decoder:
    of a batch of sentences, as many as the longest has words. What is written does not depend on it.

    `batch_size` sentences are translated at once, greedily or with `num_beams` beams. `progress` is told of the phases
    "converting", "loading" and "translating", this one counted in sentences. Words that the model's vocabulary has no
    characters for, such as emoji, stay as they are. Memory: that of the model on one batch of sentences, and the text.

    Raises InputError for an empty text, for a pair of languages without a known model and for languages that the model
    does not have; SpecError for options that make no sense; ModelError and Unsupported for a model that cannot be used
    or a missing package.
    Source of the relevance: Chefer, Gur & Wolf (2021), equation 5, as in `sightline.evidence`.
    """
    with Meter() as meter:
        name, network, tokenizer = _model(source, target, model, batch_size, num_beams, text, progress)
        by = translator(network, tokenizer, name, source=source, target=target, align=align, beams=num_beams)
        passages = list(_Run(by, source, batch_size, progress or unheard).passages(text))
    return Translation.of(passages, name, meter.seconds, meter.peak_bytes)


def translating(
    chunks: Iterable[str],
    *,
    source: str = "en",
    target: str = "pt",
    model: str | tuple[Any, Any] | None = None,
    align: bool = True,
    batch_size: int = 32,
    num_beams: int = 1,
    progress: Progress | None = None,
) -> Iterator[Passage]:
    """Translate a text that arrives in chunks, and yield what is translated, in order.

    Each chunk holds whole paragraphs, and is translated before the next is asked for. The texts of all passages, one
    after the other, are the translation. Options and errors are those of `translate`, errors raised when the first
    passage is asked for.
    """
    chunks = iter(chunks)
    before = ""  # blank chunks: nothing is loaded for them
    for chunk in chunks:
        before += chunk
        if before.strip():
            break
    name, network, tokenizer = _model(source, target, model, batch_size, num_beams, before, progress)
    by = translator(network, tokenizer, name, source=source, target=target, align=align, beams=num_beams)
    run = _Run(by, source, batch_size, progress or unheard)
    yield from run.passages(before)
    for chunk in chunks:
        yield from run.passages(chunk)


def _model(
    source: str,
    target: str,
    model: str | tuple[Any, Any] | None,
    batch_size: int,
    num_beams: int,
    text: str,
    progress: Progress | None,
) -> tuple[str, Any, Any]:
    """The model's name, itself and its tokenizer, once all else was found good."""
    for option, value, what in (("batch_size", batch_size, "sentences"), ("num_beams", num_beams, "hypotheses")):
        if value < 1:
            raise SpecError(f"{option} is {value}; it counts {what}. Pass 1 or more.")
    if model is None and (source, target) not in PAIRS:
        pairs = ", ".join(f"{a} → {b}" for a, b in PAIRS)
        raise InputError(
            f"a translation from {source!r} to {target!r} was asked for; there is a known model for {pairs}. Choose "
            "one of these, or name a model that translates between your languages."
        )
    if isinstance(model, str) and model in PAIRS.values() and PAIRS.get((source, target)) != model:
        between = next(" to ".join(map(repr, pair)) for pair, known in PAIRS.items() if known == model)
        raise InputError(
            f"a translation from {source!r} to {target!r} by {model} was asked for; it translates from {between}. Name "
            "these languages, or another model."
        )
    if not text.strip():
        raise InputError("a translation was asked for; the text is empty. Give a text with something in it.")
    return loaded(PAIRS[source, target] if model is None else model, progress)


class _Run:
    """A translation under way: how far it has come in the source and in the target."""

    def __init__(self, translator: Translator, language: str, batch_size: int, tell: Progress) -> None:
        self._translator, self._language, self._batch, self._tell = translator, language, batch_size, tell
        self._read = self._wrote = self._done = 0
        self._window = 1

    def passages(self, chunk: str) -> Iterator[Passage]:
        """Translate a chunk: windows of sentences, with what lies between them."""
        spans = segments(chunk, self._language)
        parts = [part for span in spans for part in self._translator.parts(chunk, span)]
        total = self._done + len(parts)
        self._tell("translating", self._done, total)
        at = first = 0
        while at < len(chunk):
            window = parts[first : first + self._window * self._batch]
            first += len(window)
            self._window = min(_WINDOW, 2 * self._window)
            upto = parts[first].span.start if first < len(parts) else len(chunk)
            yield self._passage(chunk, at, upto, window, self._written(window, total))
            at = upto
        self._read += len(chunk)

    def _written(self, window: Sequence[Part], total: int) -> Sequence[Written]:
        """The parts of a window, translated in batches of similar length."""
        order = sorted(range(len(window)), key=lambda i: len(window[i].ids))
        found: dict[int, Written] = {}
        for start in range(0, len(order), self._batch):
            batch = order[start : start + self._batch]
            with models.quiet():
                found.update(zip(batch, self._translator.write([window[i] for i in batch]), strict=True))
            self._done += len(batch)
            self._tell("translating", self._done, total)
        return [found[i] for i in range(len(window))]

    def _passage(self, chunk: str, at: int, upto: int, parts: Sequence[Part], written: Sequence[Written]) -> Passage:
        """chunk[at:upto], with the parts that lie in it replaced by what was written for them."""
        pieces: list[str] = []
        sentences: list[Sentence] = []
        for part, result in zip(parts, written, strict=True):
            between = chunk[at : part.span.start]
            self._wrote += len(between)
            sentence = _sentence(chunk, part, result, self._read, self._wrote)
            self._wrote += len(sentence.text)
            pieces += [between, sentence.text]
            sentences.append(sentence)
            at = part.span.end
        self._wrote += upto - at
        return Passage("".join([*pieces, chunk[at:upto]]), tuple(sentences))


def _sentence(chunk: str, part: Part, result: Written, read: int, wrote: int) -> Sentence:
    """What was written for a part. The chunk begins at `read` in the source, the sentence at `wrote` in the target."""
    start, end = part.span
    original = chunk[start:end]
    text, places = laid(result.text, result.places, original)
    aligned: list[Word] = []
    if result.weights is not None:
        read_words, written_words = words(original, signs=True), words(text, signs=True)
        seen = [Span(place.start - start, place.end - start) for place in part.places]
        weights = between_words(result.weights, (places, written_words), (seen, read_words)).tolist()
        for (a, b), row in zip(written_words, weights, strict=True):
            sources = _sources(original, read_words, row, read + start)
            aligned.append(Word(text[a:b], wrote + a, wrote + b, sources))
    whole = Source(original, read + start, read + end, 1.0)
    return Sentence(text, wrote, wrote + len(text), (whole,), tuple(aligned), result.complete)


def _sources(text: str, places: Sequence[Span], weights: Sequence[float], offset: int) -> tuple[Source, ...]:
    """The words that are worth listing, the one of the largest weight first."""
    order = sorted(range(len(places)), key=lambda i: -weights[i])
    kept = [i for rank, i in enumerate(order) if weights[i] >= _FAINT or (rank == 0 and weights[i] > 0)]
    return tuple(
        Source(text[places[i].start : places[i].end], offset + places[i].start, offset + places[i].end, weights[i])
        for i in kept
    )
