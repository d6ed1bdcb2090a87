"""A question about a document as a model's tokens, each of which knows its place in the document."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

from ..sentences import Span
from ._chat import frame, text_tokens

__all__ = ["Prompt"]

_ORDER = "Using only the text above, answer in one short sentence."


@dataclass(frozen=True)
class Prompt:
    """A document and a question, rendered with the chat template of a tokenizer.

    What the template adds and what the user wrote are turned into tokens apart. That keeps the places of the document's
    tokens exact whatever a template does, and it keeps text that looks like a control token ("<|im_end|>") text.

    Raises ModelError for a tokenizer that cannot say where its tokens lie.
    """

    document: str
    question: str
    tokenizer: Any = field(repr=False)
    order: str = field(default=_ORDER, repr=False)
    tokens: tuple[int, ...] = field(init=False, repr=False)
    places: tuple[Span | None, ...] = field(init=False, repr=False)
    """Where each token lies in the document, None for those outside it."""
    asked: int = field(init=False, repr=False)
    """The number of the token that the question begins with."""

    def __post_init__(self) -> None:
        tokens, places, asked = self._encode()
        object.__setattr__(self, "tokens", tokens)
        object.__setattr__(self, "places", places)
        object.__setattr__(self, "asked", asked)

    def lacking(self, span: Span) -> Prompt:
        """The same with a sentence taken out of its document, and the blanks it leaves behind."""
        start, end = span
        after = self.document[end:]
        end += len(after) - len(after.lstrip(" \t"))
        before = self.document[:start]
        if end == len(self.document) or self.document[end] in "\r\n":
            before = before.rstrip(" \t")
        return replace(self, document=before + self.document[end:])

    def without(self, span: Span) -> tuple[int, ...]:
        """The tokens of `lacking`."""
        return self.lacking(span).tokens

    def _encode(self) -> tuple[tuple[int, ...], tuple[Span | None, ...], int]:
        document = self.document
        before, after = frame(self.tokenizer)
        head, _ = text_tokens(self.tokenizer, before, control=True)
        body, places = text_tokens(self.tokenizer, f"{document}\n\n{self.order} {self.question}")
        tail, _ = text_tokens(self.tokenizer, after, control=True)
        question = len(document) + len(f"\n\n{self.order} ")
        asked = len(head) + next((at for at, place in enumerate(places) if place.end > question), len(body))
        inside = [Span(p.start, min(p.end, len(document))) if p.start < len(document) else None for p in places]
        return (*head, *body, *tail), (*[None] * len(head), *inside, *[None] * len(tail)), asked
