"""What a translation is: its text, and for each sentence and word of it where it came from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from .. import _shown

__all__ = ["Passage", "Sentence", "Source", "Translation", "Word"]


@dataclass(frozen=True)
class Source:
    """A place that something came from: the source text's characters start … end − 1, and the weight it has, 0 … 1."""

    text: str
    start: int
    end: int
    weight: float


@dataclass(frozen=True)
class Word:
    """A word of the translation, or a run of punctuation: the translation's characters start … end − 1.

    `sources` are the words it came from, the one of the largest weight first. Weights are the attention of the decoder
    layer that was trained to align words, the mean over its heads and over the tokens of the word; of a model without
    one, shares of the relevance for the word (see `translate`). They sum to at most 1; the rest went to what is no
    word, such as the end of the sentence, and to words of less weight than is listed.
    """

    text: str
    start: int
    end: int
    sources: tuple[Source, ...]


@dataclass(frozen=True)
class Sentence:
    """A sentence, heading, item or cell of the translation: the translation's characters start … end − 1.

    `sources` is the one that it translates, of weight 1. `words` is empty where no alignment was asked for.
    `complete` is False where the model found no end and was stopped: its text is then not to be trusted.
    """

    text: str
    start: int
    end: int
    sources: tuple[Source, ...]
    words: tuple[Word, ...]
    complete: bool


@dataclass(frozen=True)
class Passage:
    """The next part of a translation: the texts of all passages, one after the other, are the translation.

    Places in `sentences` are places in the whole translation and in the whole source.
    """

    text: str
    sentences: tuple[Sentence, ...]


@dataclass(frozen=True)
class Translation:
    """A text in another language: what is in no sentence of `sentences` is the source's own, line breaks above all.

    `seconds` is the time taken, loading included; `peak_bytes` the most memory the process held meanwhile.
    """

    text: str
    sentences: tuple[Sentence, ...]
    model: str
    seconds: float
    peak_bytes: int

    @staticmethod
    def of(passages: Sequence[Passage], model: str, seconds: float, peak_bytes: int) -> Translation:
        """All passages of a translation, in order."""
        sentences = tuple(sentence for passage in passages for sentence in passage.sentences)
        return Translation("".join(p.text for p in passages), sentences, model, seconds, peak_bytes)

    def _repr_html_(self) -> str:
        return _shown.translation(self)

    def to_dict(self) -> dict[str, Any]:
        """As plain data for JSON: the text under "translation", the sentences under "units"."""
        return {
            "translation": self.text,
            "units": [asdict(sentence) for sentence in self.sentences],
            "model": self.model,
            "seconds": self.seconds,
            "peak_bytes": self.peak_bytes,
        }
