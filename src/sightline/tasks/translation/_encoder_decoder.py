"""A translator of a model that reads in one stack and writes in another."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ...sentences import Span, words
from ._alignment import alignment_layer, attention_weights, encoded, word_relevance
from ._parts import longest, parts, room
from ._tokens import Tokens
from ._told import Told
from ._translator import Part, Written

__all__ = ["EncoderDecoder", "tokens_of"]


class EncoderDecoder:
    """See `Translator`. Greedy with `beams` = 1. Words are aligned as `_alignment` says."""

    def __init__(self, network: Any, tokens: Tokens, name: str, told: Told, align: bool, beams: int) -> None:
        self._network, self._tokens, self._name, self._told = network, tokens, name, told
        self._align, self._beams = align, beams
        self._layer = alignment_layer(network)

    def parts(self, text: str, span: Span) -> list[Part]:
        """See `Translator`."""
        return parts(self._tokens, text, span, longest(self._network))

    @torch.no_grad()
    def write(self, batch: Sequence[Part]) -> list[Written]:
        """See `Translator`."""
        ids, mask = self._padded(batch)
        rooms = [room(part, self._network) for part in batch]
        states = self._network.get_encoder()(input_ids=ids, attention_mask=mask).last_hidden_state
        if self._beams == 1 and hasattr(self._network, "write_greedily"):
            written, weights = self._network.write_greedily(states, mask, rooms)
            if self._align and self._layer is None:
                return self._explained(batch, written, states, mask, self._started(written))
            return self._spelled(batch, written, weights if self._align else None)
        out = self._network.generate(
            encoder_outputs=encoded(states),
            attention_mask=mask,
            max_new_tokens=max(rooms),
            num_beams=self._beams,
            do_sample=False,
            **self._told.options,
        )
        # Each its own room, so that the neighbours in a batch change nothing.
        written = [row[:most] for row, most in zip(out[:, 1:].tolist(), rooms, strict=True)]
        if not self._align:
            return self._spelled(batch, written, None)
        if self._layer is None:
            return self._explained(batch, written, states, mask, out)
        seen = attention_weights(self._network, states, mask, out, self._layer, self._name)
        return self._spelled(batch, written, list(seen))

    def _padded(self, batch: Sequence[Part]) -> tuple[Tensor, Tensor]:
        """Ids and mask [b,m], padded on the right."""
        framed = [[*self._told.head, *part.ids, *self._told.tail] for part in batch]
        m = max(map(len, framed))
        pad = self._network.config.pad_token_id or 0
        ids = torch.tensor([[*row, *[pad] * (m - len(row))] for row in framed])
        mask = torch.tensor([[1] * len(row) + [0] * (m - len(row)) for row in framed])
        return ids.to(self._network.device), mask.to(self._network.device)

    def _started(self, written: Sequence[list[int]]) -> Tensor:
        """What was written after the start token [b,n+1], padded on the right."""
        config, n = self._network.config, max(map(len, written))
        rows = [[config.decoder_start_token_id, *row, *[config.pad_token_id] * (n - len(row))] for row in written]
        return torch.tensor(rows, device=self._network.device)

    def _spelled(
        self, batch: Sequence[Part], written: Sequence[list[int]], weights: Sequence[Tensor] | None
    ) -> list[Written]:
        """What was written, with a row of weights for each token."""
        found: list[Written] = []
        for i, (part, tokens) in enumerate(zip(batch, written, strict=True)):
            text, places = self._tokens.spelled(tokens)
            seen = None if weights is None else self._own(weights[i][: len(tokens)], part)
            found.append(Written(text, self._ended(tokens), places, seen))
        return found

    def _explained(
        self, batch: Sequence[Part], written: Sequence[list[int]], states: Tensor, mask: Tensor, out: Tensor
    ) -> list[Written]:
        """What was written, with a row of weights for each word."""
        texts = [self._tokens.spelled(tokens) for tokens in written]
        spans = [words(text, signs=True) for text, _ in texts]
        positions = [[tokens_of(word, places) for word in of] for (_, places), of in zip(texts, spans, strict=True)]
        shares = word_relevance(self._network, states, mask, out, positions)
        return [
            Written(text, self._ended(tokens), tuple(of), self._own(rows, part))
            for (text, _), tokens, of, rows, part in zip(texts, written, spans, shares, batch, strict=True)
        ]

    def _own(self, weights: Tensor, part: Part) -> Tensor:
        """The columns of a part's own tokens."""
        before = len(self._told.head)
        return weights[:, before : before + len(part.ids)]

    def _ended(self, tokens: Sequence[int]) -> bool:
        found = self._network.generation_config.eos_token_id
        ends = found if isinstance(found, list) else [] if found is None else [found]
        return not ends or any(token in ends for token in tokens)


def tokens_of(word: Span, places: Sequence[Span]) -> list[int]:
    """The tokens that spell some of a word, by number."""
    return [i for i, place in enumerate(places) if place.start < word.end and place.end > word.start]
