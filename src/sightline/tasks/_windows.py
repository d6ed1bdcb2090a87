"""A document longer than a model's context, cut into windows at the borders of its sentences."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence

from ..sentences import Span, sentences, stripped

__all__ = ["units", "windows"]


def units(text: str, tokens: Sequence[Span], longest: int) -> tuple[list[Span], list[int]]:
    """The sentences of a text as spans, and for each the number of the token that it begins with.

    `tokens` are the places of the text's tokens, in order. A sentence of more than `longest` tokens is cut into pieces
    of at most that many, at a token after a blank in the second half of the piece, where there is one.
    """
    starts = [token.start for token in tokens]
    ends = [token.end for token in tokens]
    found: list[Span] = []
    for span in sentences(text):
        end = bisect_left(starts, span.end)
        # The first token that reaches into the sentence, which may begin before it: " The" has the blank with it.
        at = min(bisect_left(ends, span.start + 1), end)
        begin = span.start
        while end - at > longest:
            cut = next((i for i in range(at + longest, at + longest // 2, -1) if _after_blank(text, tokens[i])), None)
            at = at + longest if cut is None else cut
            border = max(begin, starts[at])
            # Byte-level tokens may share one character, and then a border: no piece is empty.
            if begin < border < span.end:
                found.append(stripped(text, Span(begin, border)))
                begin = border
        found.append(stripped(text, Span(begin, span.end)))
    found = [span for span in found if span.start < span.end]
    return found, [bisect_left(ends, span.start + 1) for span in found]


def windows(firsts: Sequence[int], total: int, room: int, overlap: int) -> list[range]:
    """Runs of sentences, in order, that are read at once, each as long as it can be: it holds at most `room` tokens.

    `firsts` are the first tokens of the sentences, `total` the number of tokens of the text. Every sentence is in one
    run at least. A run begins with the last sentences of the one before, as many as `overlap` tokens hold, and always
    with something new. A sentence of more than `room` tokens is a run of its own.

    >>> from sightline.tasks._windows import windows
    >>> windows([0, 10, 20, 30], 40, 25, 10)
    [range(0, 2), range(1, 3), range(2, 4)]
    """
    ends = [*firsts[1:], total]
    found: list[range] = []
    begin = end = 0
    while end < len(firsts):
        new = end
        while end < len(firsts) and (end == new or ends[end] - firsts[begin] <= room):
            if end == new:  # the overlap gives way to what is new
                while begin < new and ends[end] - firsts[begin] > room:
                    begin += 1
            end += 1
        found.append(range(begin, end))
        begin = end
        while begin > new and ends[end - 1] - firsts[begin - 1] <= overlap:
            begin -= 1
    return found


def _after_blank(text: str, token: Span) -> bool:
    before = text[token.start - 1 : token.start]
    return before.isspace() or text[token.start : token.start + 1].isspace()
