"""What a translator is: something that cuts a text into what it can read, and translates pieces of it together."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol

from torch import Tensor

from ...sentences import Span

__all__ = ["Part", "Translator", "Written"]


class Part(NamedTuple):
    """What is translated at once: a span of the text, its tokens as the model reads them, and their places in it."""

    span: Span
    ids: tuple[int, ...]
    places: tuple[Span, ...]


class Written(NamedTuple):
    """A translation: its text, and whether the model came to an end.

    `weights` [rows, source tokens] says where each of some places in the text came from (tokens, or words), `places` in
    the order of the rows. It is None where it was not asked for. A row sums to 1 at most.
    """

    text: str
    complete: bool
    places: tuple[Span, ...] = ()
    weights: Tensor | None = None


class Translator(Protocol):
    """A model that translates, told which languages and whether to align."""

    def parts(self, text: str, span: Span) -> list[Part]:
        """A segment of a text as what the model can read."""
        ...

    def write(self, batch: Sequence[Part]) -> list[Written]:
        """Translate parts, together. What is written does not depend on whether it is aligned."""
        ...
