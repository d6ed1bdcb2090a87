"""What a model wrote, as sentences with their tokens, and what of it is worth keeping."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from ...sentences import Span, sentences

__all__ = ["ends_sentence", "sentence_tokens", "worth_keeping"]

_ENDED = re.compile(r"[.!?…。！？][\"'”’»)\]*_]*$")


def ends_sentence(text: str) -> bool:
    """Whether a text ends as a whole sentence does: with a full stop or the like, perhaps a closing quote after it."""
    return _ENDED.search(text) is not None


def worth_keeping(tokenizer: Any, tokens: Sequence[int], truncated: bool) -> Sequence[int]:
    """What a model wrote up to where it says a sentence a second time, and without a last one that was cut off.

    Small models go round in circles: from the first repetition on there is nothing new. A cut-off sentence stays where
    it is the only one.
    """
    text, written = sentence_tokens(tokenizer, tokens)
    said: set[str] = set()
    for span, inside in written:
        sentence = " ".join(text[span.start : span.end].split())
        cut_off = truncated and inside.stop == len(tokens) and not ends_sentence(sentence)
        if said and (sentence in said or cut_off):
            return tokens[: inside.start]
        said.add(sentence)
    return tokens


def sentence_tokens(tokenizer: Any, tokens: Sequence[int]) -> tuple[str, list[tuple[Span, range]]]:
    """What a model wrote, without the blanks around it, and its sentences: where, and with which tokens.

    Every token is in one sentence; the blanks between two are in the second one.
    """
    decoded: str = tokenizer.decode(tokens, skip_special_tokens=True)
    text = decoded.strip()
    before = len(decoded) - len(decoded.lstrip())
    spans = sentences(text)
    starts = [len(tokenizer.decode(tokens[:i], skip_special_tokens=True)) - before for i in range(len(tokens))]
    found: list[tuple[Span, range]] = []
    at = 0
    for number, span in enumerate(spans):
        end = at
        while end < len(tokens) and (starts[end] < span.end or number == len(spans) - 1):
            end += 1
        if end == at:  # no token begins in it: it goes with the sentence before
            if found:
                found[-1] = (Span(found[-1][0].start, span.end), found[-1][1])
            continue
        found.append((span, range(at, end)))
        at = end
    return text, found
