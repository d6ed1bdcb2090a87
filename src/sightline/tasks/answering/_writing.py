"""An answer as it is written: its tokens, and its text piece by piece."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import Any

from ...reader import Reader
from .._written import Written

__all__ = ["written"]


def written(
    reader: Reader,
    prompt: Sequence[int],
    limit: int,
    stop: Collection[int],
    tokenizer: Any,
    progress: Callable[[int], None],
    wrote: Callable[[str], None] | None,
) -> tuple[list[int], str, float]:
    """The tokens of `Reader.generate`, their text, and their log-probability in nats.

    The text is without blanks around; half a character at its end is left out. The reader has read prompt[:-1]. `wrote`
    hears the text as it grows; blanks wait for what they stand before, so that the pieces together are the text.
    """
    tokens: list[int] = []
    pieces = Written(tokenizer, prompt)
    text = blanks = ""
    log_prob = 0.0
    for token, of_token in reader.stream(prompt[-1], limit, stop):
        log_prob += of_token
        tokens.append(token)
        progress(len(tokens))
        piece = (blanks + pieces.add(token)) if text else pieces.add(token).lstrip()
        new = piece.rstrip()
        blanks = piece[len(new) :]
        text += new
        if new and wrote is not None:
            wrote(new)
    return tokens, text, log_prob
