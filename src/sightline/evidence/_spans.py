"""Tokens and the spans of text they belong to."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Sequence

from torch import Tensor

from ..sentences import Span


def span_relevance(weights: Tensor, places: Sequence[Span | None], spans: Sequence[Span]) -> list[float]:
    """Σ c_j over the tokens of each span; a token across a border belongs to the span that holds most of it.

    `spans` are in order and do not overlap: sentences, paragraphs, words, or any others.
    """
    scores = [0.0] * len(spans)
    for weight, owner in zip(weights.tolist(), owners(places, spans), strict=True):
        if owner is not None:
            scores[owner] += weight
    return scores


def owners(places: Sequence[Span | None], spans: Sequence[Span]) -> list[int | None]:
    """The span that each token belongs to, by number: the one that holds most of it, the first of several; or None."""
    starts = [span.start for span in spans]
    return [None if place is None else _owner(place, starts, spans) for place in places]


def _owner(place: Span, starts: Sequence[int], spans: Sequence[Span]) -> int | None:
    first, last = max(0, bisect_right(starts, place.start) - 1), bisect_left(starts, place.end)
    shared = [min(place.end, s.end) - max(place.start, s.start) for s in spans[first:last]]
    return first + shared.index(max(shared)) if shared and max(shared) > 0 else None
