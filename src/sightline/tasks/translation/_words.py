"""Which words of one text belong to which of another, from the weights between their tokens."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ...sentences import Span

__all__ = ["between_words"]


def between_words(
    weights: Tensor,
    target: tuple[Sequence[Span], Sequence[Span]],
    source: tuple[Sequence[Span], Sequence[Span]],
) -> Tensor:
    """weights [n,m] between tokens of a target and of a source → [target words, source words].

    W = T P S. S[j,c] is the part of token j's characters that lies in source word c, T[a,i] the part of target word a's
    characters that token i spells, out of those that any token spells. A row sums to 1 less what went to tokens that
    lie in no word, such as the one that ends a sentence.

    target and source are each (the places of the tokens, the places of the words); n and m may exceed the tokens.
    """
    (written, heads), (read, words_read) = target, source
    spelled = _overlaps(written, heads).T
    spelled = spelled / spelled.sum(1, keepdim=True).clamp_min(1)
    lies = _overlaps(read, words_read)
    lies = lies / torch.tensor([max(1, end - start) for start, end in read]).reshape(-1, 1)
    return spelled @ weights[: len(written), : len(read)].float() @ lies


def _overlaps(tokens: Sequence[Span], words: Sequence[Span]) -> Tensor:
    """Characters in common, [tokens, words]."""
    a = torch.tensor(tokens, dtype=torch.int64).reshape(-1, 1, 2)
    b = torch.tensor(words, dtype=torch.int64).reshape(1, -1, 2)
    common = torch.minimum(a[..., 1], b[..., 1]) - torch.maximum(a[..., 0], b[..., 0])
    return common.clamp_min(0).float()
