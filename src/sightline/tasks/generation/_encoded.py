"""A prompt as a model's tokens, each of which knows its place in the prompt."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ...errors import InputError, ModelError
from ...sentences import Span
from .._chat import frame, text_tokens

__all__ = ["Encoded", "check_prompt", "encode"]


@dataclass(frozen=True)
class Encoded:
    """Tokens, and the characters of the prompt that each stands for: None for those that the prompt does not hold."""

    tokens: tuple[int, ...]
    places: tuple[Span | None, ...]


def check_prompt(prompt: str) -> None:
    """Raise InputError for a prompt that is empty, or that is not text."""
    if not prompt.strip():
        raise InputError("a text was to be written after a prompt; the prompt is empty. Give it a few words.")
    try:
        prompt.encode()
    except UnicodeEncodeError as error:
        raise InputError(
            f"a text was to be written after a prompt; the prompt is not text: character {error.start} is half of a "
            "pair (a surrogate), or a byte that is not UTF-8. Give UTF-8 text."
        ) from error


def encode(prompt: str, tokenizer: Any, *, chat: bool) -> Encoded:
    """The prompt as the user's message in the chat template of the tokenizer, or as it is.

    In a chat the template's tokens and the prompt's are made apart, see `Prompt`: text that looks like a control token
    stays text. As it is, the prompt is what the tokenizer reads by itself: with the tokens that it puts before a text,
    and with control tokens where the prompt spells them.

    Raises ModelError for a tokenizer that cannot say where its tokens lie, and in a chat for one without a template.
    """
    if chat:
        if not getattr(tokenizer, "chat_template", None):
            raise ModelError(
                "a chat was asked for; the tokenizer of this model has no chat template, so it was not made for chats. "
                "Have it continue the prompt as it is: chat=False (--raw)."
            )
        before, after = frame(tokenizer)
        head, _ = text_tokens(tokenizer, before, control=True)
        body, places = text_tokens(tokenizer, prompt)
        tail, _ = text_tokens(tokenizer, after, control=True)
        return Encoded((*head, *body, *tail), (*[None] * len(head), *places, *[None] * len(tail)))
    tokens, places = text_tokens(tokenizer, prompt, control=True, framed=True)
    # A token that the tokenizer added stands for no characters.
    return Encoded(tuple(tokens), tuple(place if place.start < place.end else None for place in places))
