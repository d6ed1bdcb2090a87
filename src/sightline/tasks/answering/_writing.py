"""An answer as it is written: its tokens, and its text piece by piece."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any

from ...reader import Reader

__all__ = ["written"]


def written(
    reader: Reader,
    last: int,
    limit: int,
    stop: Collection[int],
    tokenizer: Any,
    progress: Callable[[int], None],
    wrote: Callable[[str], None] | None,
) -> tuple[list[int], str]:
    """The likeliest next token again and again, as `Reader.generate`, and the text of the tokens without blanks around.

    `wrote` hears the text as it grows. A piece waits for the characters that it begins (a token may be a part of one),
    and blanks for what they stand before, so that the pieces together are the text.
    """
    tokens: list[int] = []
    said = ""
    while len(tokens) < limit:
        token = int(reader.next_logits(tokens[-1] if tokens else last).argmax())
        if token in stop:
            break
        tokens.append(token)
        progress(len(tokens))
        said = _say(tokenizer.decode(tokens, skip_special_tokens=True).strip().rstrip("\ufffd").rstrip(), said, wrote)
    text = tokenizer.decode(tokens, skip_special_tokens=True).strip()
    _say(text, said, wrote)
    return tokens, text


def _say(text: str, said: str, wrote: Callable[[str], None] | None) -> str:
    """Tell what is new in the text; what was told by then."""
    if not text.startswith(said) or text == said:
        return said
    if wrote is not None:
        wrote(text[len(said) :])
    return text
