"""A question about a document as a model's tokens, each of which knows its place in the document."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ..errors import ModelError
from ..sentences import Span

__all__ = ["Prompt", "stop_tokens"]

_ORDER = "Using only the text above, answer in one short sentence."

_MARK = "\ue000sightline\ue000"
"""Stands for the user's text while the chat template is rendered: private-use characters, unknown to templates."""


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
    tokens: tuple[int, ...] = field(init=False, repr=False)
    places: tuple[Span | None, ...] = field(init=False, repr=False)
    """Where each token lies in the document, None for those outside it."""

    def __post_init__(self) -> None:
        tokens, places = self._encode(self.document)
        object.__setattr__(self, "tokens", tokens)
        object.__setattr__(self, "places", places)

    def without(self, span: Span) -> tuple[int, ...]:
        """The tokens of this prompt with a sentence taken out of its document, and the blanks it leaves behind."""
        start, end = span
        after = self.document[end:]
        end += len(after) - len(after.lstrip(" \t"))
        before = self.document[:start]
        if end == len(self.document) or self.document[end] in "\r\n":
            before = before.rstrip(" \t")
        return self._encode(before + self.document[end:])[0]

    def _encode(self, document: str) -> tuple[tuple[int, ...], tuple[Span | None, ...]]:
        before, after = _frame(self.tokenizer)
        head, _ = _tokens(self.tokenizer, before, text_only=False)
        body, places = _tokens(self.tokenizer, f"{document}\n\n{_ORDER} {self.question}", text_only=True)
        tail, _ = _tokens(self.tokenizer, after, text_only=False)
        inside = [Span(p.start, min(p.end, len(document))) if p.start < len(document) else None for p in places]
        return (*head, *body, *tail), (*[None] * len(head), *inside, *[None] * len(tail))


def stop_tokens(model: Any, tokenizer: Any) -> frozenset[int]:
    """The tokens that end an answer: those that the model's generation settings and its tokenizer name."""
    found: set[int] = set()
    for ids in (getattr(model.generation_config, "eos_token_id", None), tokenizer.eos_token_id):
        if ids is not None:
            found.update(ids if isinstance(ids, list | tuple) else [ids])
    return frozenset(int(i) for i in found)


def _frame(tokenizer: Any) -> tuple[str, str]:
    """What the chat template puts before and after the user's text. A model without one gets plain text to continue."""
    if not getattr(tokenizer, "chat_template", None):
        return tokenizer.bos_token or "", "\nAnswer:"
    messages = [{"role": "user", "content": _MARK}]
    rendered: str = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    if rendered.count(_MARK) != 1:
        raise ModelError(
            "an answer was asked for; the chat template of this model's tokenizer shows the user's message "
            f"{rendered.count(_MARK)} times instead of once. Use a model with an ordinary chat template."
        )
    before, _, after = rendered.partition(_MARK)
    return before, after


def _tokens(tokenizer: Any, text: str, *, text_only: bool) -> tuple[list[int], list[Span]]:
    """Tokens and the characters each stands for. With `text_only` nothing in the text counts as a control token."""
    if not getattr(tokenizer, "is_fast", False):
        raise ModelError(
            f"an answer with its places in the document was asked for; {type(tokenizer).__name__} cannot say where its "
            "tokens lie. Use a model with a fast tokenizer (a tokenizer.json)."
        )
    encoded: Mapping[str, Any] = tokenizer(
        text,
        add_special_tokens=False,
        return_offsets_mapping=True,
        split_special_tokens=text_only,
        verbose=False,
    )
    return encoded["input_ids"], [Span(*place) for place in encoded["offset_mapping"]]
