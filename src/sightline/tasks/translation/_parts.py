"""A segment as what a model can read: words that it cannot read are left out, and long runs are cut."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from typing import Any

from ...sentences import Span, stripped, words
from .._network import context
from ._tokens import Tokens
from ._translator import Part

__all__ = ["longest", "parts", "room"]

_LONGEST = 256
"""Tokens that are read at once. Translation models learn from sentences; longer runs are cut at a clause or a word."""

_ROOM = (2, 50)
"""A translation may take this many times its source's tokens, and so many more."""

_UNREAD = "LNS"
"""Kinds of characters (letters, numbers, symbols) that must not be lost where the vocabulary lacks them."""


def longest(network: Any) -> int:
    """The tokens of a text that a model with an encoder reads at once."""
    limit = context(network)
    return _LONGEST if limit is None else max(1, min(_LONGEST, limit // 2 - 2))


def room(part: Part, network: Any) -> int:
    """The tokens that a part's translation may take."""
    least, limit = _ROOM[0] * len(part.ids) + _ROOM[1], context(network)
    return least if limit is None else max(1, min(least, limit - 2))


def parts(tokens: Tokens, text: str, span: Span, most: int) -> list[Part]:
    """The whole of a segment, or what is left around words that the vocabulary lacks, in pieces of `most` tokens.

    Words of which it has no character (emoji, another script) are left out, and so stay as they are. A segment of too
    many tokens is cut, after punctuation if there is any, else between words.
    """
    ids, places = tokens.of(text, span)
    if not ids:
        return []
    unknown = getattr(tokens.tokenizer, "unk_token_id", None)
    if unknown in ids and (unread := _unread(text, span, ids, places, unknown)):
        return [part for piece in _around(text, span, unread) for part in parts(tokens, text, piece, most)]
    if len(ids) <= most:
        return [Part(span, ids, places)]
    first, rest = _halved(text, span, places[most].start)
    if first == span:  # nothing before the border to cut at: the tokens of one character
        return [Part(span, ids[:most], places[:most])]
    return [*parts(tokens, text, first, most), *parts(tokens, text, rest, most)]


def _unread(text: str, span: Span, ids: Sequence[int], places: Sequence[Span], unknown: Any) -> list[Span]:
    """Words none of whose characters the vocabulary has. Signs of punctuation are no loss to translate without."""
    lacking: set[int] = set()
    for i, place in zip(ids, places, strict=True):
        if i == unknown:
            lacking.update(range(place.start, place.end))
    found: list[Span] = []
    for start, end in words(text[span.start : span.end], signs=True):
        place = range(span.start + start, span.start + end)
        core = [i for i in place if unicodedata.category(text[i])[0] in _UNREAD]
        if core and lacking.issuperset(core):
            found.append(Span(place.start, place.stop))
    return found


def _around(text: str, span: Span, left_out: Sequence[Span]) -> list[Span]:
    """What is left of a span, without white space at the ends; pieces without a letter are left out too."""
    edges = [span.start, *(edge for place in left_out for edge in place), span.end]
    pieces = (stripped(text, Span(a, b)) for a, b in zip(edges[::2], edges[1::2], strict=True))
    return [piece for piece in pieces if any(map(str.isalpha, text[piece.start : piece.end]))]


def _halved(text: str, span: Span, before: int) -> tuple[Span, Span]:
    """Cut a span before a place: after the last punctuation, else the last blank, else right there."""
    inside = text[span.start : before]
    least = len(inside) // 4  # a cut close to the beginning would gain little
    cuts = [m.end() for m in re.finditer(r"[,;:.!?)—–]\s+", inside)] or [m.end() for m in re.finditer(r"\s+", inside)]
    at = cuts[-1] if cuts and cuts[-1] > least else max(1, len(inside))
    return stripped(text, Span(span.start, span.start + at)), stripped(text, Span(span.start + at, span.end))
