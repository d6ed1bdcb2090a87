"""A translator of a model that continues text: it is asked in a chat, sentence by sentence."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ...errors import InputError, Unsupported
from ...evidence import key_relevance
from ...reader import Reader
from ...sentences import Span, words
from .._chat import frame, stop_tokens, text_tokens
from .._network import context
from ._encoder_decoder import tokens_of
from ._languages import named
from ._parts import longest, parts, room
from ._tokens import Tokens
from ._translator import Part, Written

__all__ = ["Instructed"]

_ORDER = "Translate the following text from {source} to {target}. Reply with the translation and nothing else.\n\n"


class Instructed:
    """See `Translator`. Greedy, one sentence after the other; its first line is the translation.

    A word's weights are shares of the relevance of the sentence's tokens in the prompt, as
    `sightline.evidence.key_relevance` has it: c_j / Σ_j c_j with j over the sentence. What the word owes to the order
    and to the words before it is left out. The cost is a pass over the tokens written, forward and backward.

    Raises Unsupported for a tokenizer without a chat template; ModelError for a model that is no ordinary decoder.
    """

    def __init__(self, network: Any, tokens: Tokens, name: str, source: str, target: str, align: bool) -> None:
        if not getattr(tokens.tokenizer, "chat_template", None):
            raise Unsupported(
                f"a translation by {name} was asked for; it has no encoder, and its tokenizer no chat template in "
                "which to ask. Use a translation model, such as marian-en-pt, or one that was made for chats."
            )
        self._reader, self._tokens, self._name, self._align = Reader(network), tokens, name, align
        self._stop = stop_tokens(network, tokens.tokenizer)
        before, after = frame(tokens.tokenizer)
        order = _ORDER.format(source=named(source), target=named(target))
        self._head = [*text_tokens(tokens.tokenizer, before, control=True)[0], *text_tokens(tokens.tokenizer, order)[0]]
        self._tail = text_tokens(tokens.tokenizer, after, control=True)[0]

    def parts(self, text: str, span: Span) -> list[Part]:
        """See `Translator`. Raises InputError where the order alone fills the model's context."""
        most, limit = longest(self._reader.model), context(self._reader.model)
        if limit is not None:
            # The sentence, twice that and fifty for the translation.
            most = min(most, (limit - len(self._head) - len(self._tail) - 50) // 3)
        if most < 1:
            raise InputError(
                f"a translation by {self._name} was asked for; its context is {limit:,} tokens, and the order to "
                "translate fills it. Use a model with a longer context."
            )
        return parts(self._tokens, text, span, most)

    def write(self, batch: Sequence[Part]) -> list[Written]:
        """See `Translator`."""
        return [self._write(part) for part in batch]

    def _write(self, part: Part) -> Written:
        prompt = [*self._head, *part.ids, *self._tail]
        reader, most = self._reader, room(part, self._reader.model)
        shared = min(len(self._head), reader.length)  # the order, as the sentence before left it
        reader.rewind(shared)
        reader.read(prompt[shared:-1])
        answer = reader.generate(prompt[-1], most, self._stop)
        text, places, complete = self._first_line(answer, len(answer) < most)
        if not self._align:
            return Written(text, complete)
        spans = words(text, signs=True)
        rows = self._relevance(prompt, answer, [tokens_of(word, places) for word in spans])
        return Written(text, complete, tuple(spans), rows[:, len(self._head) : len(self._head) + len(part.ids)])

    def _first_line(self, answer: list[int], complete: bool) -> tuple[str, tuple[Span, ...], bool]:
        """What of an answer is the translation: sentences were handed over as one line each."""
        text, places = self._tokens.spelled(answer)
        line = text.splitlines()[0].rstrip() if text else ""
        cut = tuple(Span(min(place.start, len(line)), min(place.end, len(line))) for place in places)
        return line, cut, complete or len(line) < len(text)

    def _relevance(self, prompt: list[int], answer: list[int], written: Sequence[Sequence[int]]) -> Tensor:
        """Shares [words, prompt] of the sentence's tokens, 0 for all others."""
        rows = torch.zeros(len(written), len(prompt), dtype=torch.float64)
        inside = slice(len(self._head), len(prompt) - len(self._tail))
        # From the last word to the first: what the reader holds then serves each.
        for i in reversed(range(len(written))):
            if not written[i]:
                continue
            first, last = written[i][0], written[i][-1]
            weights, _ = key_relevance(self._reader, [*prompt, *answer[:first]], answer[first : last + 1])
            rows[i, inside] = weights[inside] / weights[inside].sum().clamp_min(torch.finfo(torch.float64).tiny)
        return rows
