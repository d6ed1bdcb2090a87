"""A text at every granularity."""

from __future__ import annotations

from collections.abc import Sequence

from ..errors import Unsupported
from ..sentences import Span, paragraphs, sentences, words
from .model import Level, Text

__all__ = ["leveled"]


def leveled(
    text: str,
    name: str = "",
    *,
    tokens: Sequence[Span] | None = None,
    cut: Sequence[Span] | None = None,
    language: str = "en",
) -> Text:
    """The text with its words, sentences and paragraphs, and its tokens where they are known.

    `cut` are its sentences, where something has cut them already. Without the package sentencex, which nothing else
    that a trace needs asks for, a text has no sentences.
    """
    levels: dict[Level, tuple[Span, ...]] = {}
    if tokens is not None:
        levels["token"] = tuple(tokens)
    levels["word"] = tuple(words(text, signs=True))
    if cut is None:
        try:
            cut = sentences(text, language=language)
        except Unsupported:
            cut = ()
    if cut:
        levels["sentence"] = tuple(cut)
    levels["paragraph"] = tuple(paragraphs(text))
    return Text(text, levels, name)
