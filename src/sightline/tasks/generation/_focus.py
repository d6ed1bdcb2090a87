"""Where a token looked as it was produced: the relevance of its row, summed to words.

With c_j of everything read (`sightline.evidence.Row`), the share of a word is Σ c_j over its tokens / Σ c_j over all
tokens, those of the prompt and of the text so far. Tokens that belong to no word (white space, the chat template, a
token at the start that attention rests on) count in the whole, so shares sum to at most 1. A token that only takes up
weight has values that move nothing, and no relevance: it is what a list of attention weights would show first.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from ...evidence import owners
from ...sentences import Span, words
from ._words import Words

__all__ = ["Focus", "Source"]


@dataclass(frozen=True)
class Source:
    """A word that a token looked at: characters start … end − 1 of the prompt or of the output so far.

    `share` is its part of the relevance of everything the model had read, 0 … 1.
    """

    where: Literal["prompt", "output"]
    start: int
    end: int
    text: str
    share: float


class Focus:
    """The words of a prompt and of the text written after it, as sources of a token.

    `places` is where each of the prompt's tokens lies in the prompt, None outside it.
    """

    def __init__(self, prompt: str, places: Sequence[Span | None], top: int) -> None:
        self._prompt = prompt
        self._top = top
        self._spans = words(prompt, signs=True)
        found = owners(places, self._spans)
        self._tokens = torch.tensor([j for j, word in enumerate(found) if word is not None], dtype=torch.long)
        self._words = torch.tensor([word for word in found if word is not None], dtype=torch.long)
        self._read = len(places)
        self._output = Words()

    def add(self, text: str) -> None:
        """One more token was produced, and wrote this text."""
        self._output.add(text)

    def sources(self, weights: Tensor) -> tuple[Source, ...]:
        """The words with the largest shares, largest first; of equals the earlier. weights: c_j of all tokens read."""
        whole = float(weights.sum())
        if whole <= 0:
            return ()
        shares = torch.zeros(len(self._spans) + len(self._output.spans), dtype=torch.float64)
        shares.index_add_(0, self._words, weights[self._tokens])
        # The last token produced has been read too: it is the row itself.
        for word, weight in zip(self._output.of_token, weights[self._read :].tolist(), strict=True):
            if word is not None:
                shares[len(self._spans) + word] += weight
        order = torch.argsort(shares, descending=True, stable=True)[: self._top].tolist()
        return tuple(self._source(word, float(shares[word]) / whole) for word in order if shares[word] > 0)

    def _source(self, word: int, share: float) -> Source:
        if word < len(self._spans):
            start, end = self._spans[word]
            return Source("prompt", start, end, self._prompt[start:end], share)
        start, end = self._output.spans[word - len(self._spans)]
        return Source("output", start, end, self._output.text[start:end], share)
