"""Tokens to text, as they come: what is definite, and never half a character."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

__all__ = ["Written"]

_BEFORE = 8
"""Tokens of the prompt that are decoded with the first ones written: tokenizers that mark a word's leading space leave
it out at the start of a text."""

_BROKEN = "\ufffd"
"""What decoders put in place of bytes that are no character, or not yet."""


class Written:
    """The text of tokens that follow a prompt.

    A token of a byte-level vocabulary may end in the middle of a character; what is not whole waits for the token that
    completes it. Each token costs decoding the few since the last whole character. Control tokens have no text.
    """

    def __init__(self, tokenizer: Any, prompt: Sequence[int]) -> None:
        self._tokenizer = tokenizer
        self._before = list(prompt[-_BEFORE:])
        self._new: list[int] = []
        self._shown = 0

    def add(self, token: int) -> str:
        """The characters that this token makes definite: "" where it ends in the middle of the first."""
        self._new.append(token)
        start = len(self._decode(self._before))
        text = self._decode([*self._before, *self._new])[start:]
        whole = text.rstrip(_BROKEN)
        added = whole[self._shown :]
        self._shown = max(self._shown, len(whole))
        if len(whole) == len(text):
            # A control token writes nothing, so it is no beginning to decode from.
            self._before = (self._new if whole else [*self._before, *self._new])[-_BEFORE:]
            self._new, self._shown = [], 0
        return added

    def _decode(self, tokens: list[int]) -> str:
        return str(self._tokenizer.decode(tokens, skip_special_tokens=True, clean_up_tokenization_spaces=False))
