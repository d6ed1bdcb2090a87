"""A text summarised by a model, window by window where it is long, and where each sentence of the summary came from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from ...errors import InputError
from ...evidence import Evidence, document_drop, find_evidence
from ...models import Progress
from ...reader import Reader
from ...sentences import Span
from .._chat import stop_tokens, text_tokens
from .._prompt import Prompt
from .._windows import units, windows
from ._written import worth_keeping

__all__ = ["Read", "Writer"]

_ORDER = "Using only the text above,"
_REQUEST = "write a summary of it in three to five short sentences."

_SLACK = 16
"""Tokens that a window may have more than the same stretch of the whole text: they are cut anew at its ends."""


@dataclass(frozen=True)
class Read:
    """A window of a text: what of it was read, its sentences by their places in the text, and the summary of it."""

    span: Span
    sentences: tuple[Span, ...]
    prompt: Prompt
    tokens: tuple[int, ...]
    summary: str
    truncated: bool


class Writer:
    """Writes summaries of texts of any length with one model, and measures what they rest on.

    `limit` is the model's context in tokens, None where it is not known; a summary has at most `room` tokens. Raises
    InputError where the context leaves no place for a text.
    """

    def __init__(self, network: Any, tokenizer: Any, limit: int | None, room: int, tell: Progress) -> None:
        self._tokenizer, self._room, self._tell = tokenizer, room, tell
        self._network, self._reader = network, Reader(network)
        self._held: Prompt | None = None
        self._stop = stop_tokens(network, tokenizer)
        self._done = self._expected = 0
        frame = len(self._prompt("").tokens)
        self._text = None if limit is None else limit - frame - room - _SLACK
        # Less would not get shorter from one round to the next.
        if self._text is not None and self._text < 2 * (room + 2):
            raise InputError(
                f"a summary of up to {room:,} tokens was asked for; the model's context is {limit:,} tokens, of which "
                f"the request takes {frame:,}. Ask for a shorter summary, or use a model with a longer context."
            )

    def rounds(self, text: str) -> list[list[Read]]:
        """The windows of the text; then those of their summaries put together, until one window holds them all."""
        found: list[list[Read]] = []
        while True:
            cut = self._windows(text)
            self._expected += sum(len(prompt.tokens) + self._room for _, _, prompt in cut)
            found.append([self._summarised(*window) for window in cut])
            if len(cut) == 1:
                return found
            text = joined(found[-1])[0]
            if not text.strip():
                return found

    def sources(self, rounds: Sequence[Sequence[Read]], written: Sequence[range]) -> list[int]:
        """For each sentence of the last summary, given by its tokens, the window of the text that it came from.

        From the last round back: the summary whose sentence has the largest measured drop is the window to look into.
        """
        tokens = rounds[-1][-1].tokens
        at = [0] * len(written)
        for i in range(len(rounds) - 1, 0, -1):
            places = joined(rounds[i - 1])[1]
            for number in sorted(range(len(written)), key=lambda k: at[k]):  # each window is read once
                inside = written[number]
                read = rounds[i][at[number]]
                found = self.evidence(read, tokens[: inside.start], tokens[inside.start : inside.stop], 2)[0]
                best = found[0].span.start if found else read.span.start
                at[number] = next(k for k, place in enumerate(places) if best < place.end)
        return at

    def evidence(
        self, read: Read, earlier: Sequence[int], tokens: Sequence[int], top: int
    ) -> tuple[list[Evidence], float]:
        """What of a window a sentence rests on, given the sentences before it, and its document drop in nats.

        Spans are places in the text.
        """
        prompt = read.prompt
        whole, places = (*prompt.tokens, *earlier), (*prompt.places, *[None] * len(earlier))
        self._read(prompt, whole[:-1])
        log_prob = self._reader.log_prob(whole[-1:], tokens)
        drop = document_drop(self._reader, whole, places, tokens, log_prob=log_prob)
        start = read.span.start
        found = find_evidence(
            self._reader.fork(),  # measuring goes back in it; ours goes on to the next sentence
            whole,
            places,
            [Span(s.start - start, s.end - start) for s in read.sentences],
            tokens,
            lambda span: (*prompt.without(span), *earlier),
            top=top,
            log_prob=log_prob,
        )
        return [replace(e, span=Span(e.span.start + start, e.span.end + start)) for e in found], drop

    def _windows(self, text: str) -> list[tuple[Span, tuple[Span, ...], Prompt]]:
        """The windows of a text: where, with which sentences, and the prompt."""
        places = text_tokens(self._tokenizer, text)[1]
        room = self._text or len(places) + 1
        spans, firsts = units(text, places, room // 2)
        if not spans or len(places) <= room:
            return [(Span(0, len(text)), tuple(spans), self._prompt(text))]
        found: list[tuple[Span, tuple[Span, ...], Prompt]] = []
        for run in windows(firsts, len(places), room, room // 8):
            inside = tuple(spans[i] for i in run)
            whole = Span(inside[0].start, inside[-1].end)
            found.append((whole, inside, self._prompt(text[whole.start : whole.end])))
        return found

    def _prompt(self, text: str) -> Prompt:
        return Prompt(text, _REQUEST, self._tokenizer, _ORDER)

    def _summarised(self, span: Span, inside: tuple[Span, ...], prompt: Prompt) -> Read:
        read = self._done + len(prompt.tokens)
        self._read(prompt, prompt.tokens[:-1], self._done)

        def told(written: int) -> None:
            self._tell("summarising", read + written, self._expected)

        tokens = self._reader.generate(prompt.tokens[-1], self._room, self._stop, told)
        self._done = read + self._room
        self._tell("summarising", self._done, self._expected)
        truncated = len(tokens) == self._room
        tokens = worth_keeping(self._tokenizer, tokens, truncated)
        text = self._tokenizer.decode(tokens, skip_special_tokens=True).strip()
        return Read(span, inside, prompt, tuple(tokens), text, truncated)

    def _read(self, prompt: Prompt, tokens: Sequence[int], done: int | None = None) -> None:
        """Have the reader hold these tokens, the first of which are the prompt's, and no others."""
        if self._held is not prompt:
            self._reader = Reader(self._network)
            self._held = prompt
        # What it holds of this prompt is a beginning of it; the rest may be another sentence's.
        self._reader.rewind(min(self._reader.length, len(prompt.tokens) - 1))
        at = self._reader.length
        self._reader.read(
            tokens[at:],
            None if done is None else lambda more: self._tell("summarising", done + at + more, self._expected),
        )


def joined(reads: Sequence[Read]) -> tuple[str, list[Span]]:
    """The summaries of windows as one text, and where each lies in it, the blank lines after it included."""
    text, places = "", list[Span]()
    for read in reads:
        start = len(text)
        text += read.summary + "\n\n"
        places.append(Span(start, len(text)))
    return text, places
