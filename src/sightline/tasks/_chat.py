"""Chat templates and tokens: what a model reads around the user's text, the text itself, and what ends a reply."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..errors import ModelError
from ..sentences import Span

__all__ = ["frame", "stop_tokens", "text_tokens"]

_MARK = "\ue000sightline\ue000"
"""Stands for the user's text while the chat template is rendered: private-use characters, unknown to templates."""


def stop_tokens(model: Any, tokenizer: Any) -> frozenset[int]:
    """The tokens that end an answer: those that the model's generation settings and its tokenizer name."""
    found: set[int] = set()
    for ids in (getattr(model.generation_config, "eos_token_id", None), tokenizer.eos_token_id):
        if ids is not None:
            found.update(ids if isinstance(ids, list | tuple) else [ids])
    return frozenset(int(i) for i in found)


def frame(tokenizer: Any) -> tuple[str, str]:
    """What the chat template puts before and after the user's text. A model without one gets plain text to continue."""
    if not getattr(tokenizer, "chat_template", None):
        return tokenizer.bos_token or "", "\nAnswer:"
    messages = [{"role": "user", "content": _MARK}]
    rendered: str = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    if rendered.count(_MARK) != 1:
        raise ModelError(
            "a request was to be made in a chat; the chat template of this model's tokenizer shows the user's message "
            f"{rendered.count(_MARK)} times instead of once. Use a model with an ordinary chat template."
        )
    before, _, after = rendered.partition(_MARK)
    return before, after


def text_tokens(
    tokenizer: Any, text: str, *, control: bool = False, framed: bool = False
) -> tuple[list[int], list[Span]]:
    """Tokens of a text and the characters each stands for.

    Only with `control` does text that spells a control token become one; with `framed` there are also the tokens that
    the tokenizer puts around a text, which stand for no characters. Raises ModelError for a tokenizer that cannot say
    where its tokens lie.
    """
    if not getattr(tokenizer, "is_fast", False):
        raise ModelError(
            f"a text was to be read by tokens that know their places in it; {type(tokenizer).__name__} cannot "
            "say where its tokens lie. Use a model with a fast tokenizer (a tokenizer.json)."
        )
    encoded: Mapping[str, Any] = tokenizer(
        text,
        add_special_tokens=framed,
        return_offsets_mapping=True,
        split_special_tokens=not control,
        verbose=False,
    )
    return encoded["input_ids"], [Span(*place) for place in encoded["offset_mapping"]]
