"""The tokens of a recording, and where they stand in the text."""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from ..errors import ShapeError, SpecError

__all__ = ["Tokens"]


@dataclass(frozen=True)
class Tokens:
    """b sequences of t tokens, padding included: the rows or columns of recorded matrices, by position.

    ids: int64 [b, t]. strings: each token as text, b × t. texts: the b texts, or None where they are not known.
    offsets: int64 [b, t, 2], the characters of its text that a token stands for, start and end, −1 where it stands for
    none (special tokens); None where no text or no tokenizer says.
    """

    ids: Tensor = field(repr=False)
    strings: tuple[tuple[str, ...], ...] = field(repr=False)
    texts: tuple[str, ...] | None = None
    offsets: Tensor | None = field(default=None, repr=False)

    def __len__(self) -> int:
        """Tokens of each sequence."""
        return self.ids.shape[1]

    @staticmethod
    def of(tokenizer: Any, ids: Tensor | Sequence[int], texts: str | Sequence[str] | None = None) -> Tokens:
        """What a Transformers tokenizer says of these ids, [t] or [b, t].

        `texts` is the text that the ids were made from, one per sequence; special tokens and a chat template around it
        may be missing from it. Without it the text is what the ids decode to.

        Raises ShapeError for ids that are no integers [t] or [b, t]; SpecError where texts and sequences differ in
        number.
        """
        rows = torch.as_tensor(ids)
        rows = rows[None] if rows.ndim == 1 else rows
        if rows.ndim != 2 or not rows.numel() or rows.is_floating_point():
            raise ShapeError(
                f"the ids of tokens must be integers [t] or [b, t]; they are {rows.dtype} with shape "
                f"{tuple(rows.shape)}. Pass what the tokenizer or generate() returned."
            )
        rows = rows.detach().to("cpu", torch.int64)
        listed: list[list[int]] = rows.tolist()
        given = [texts] if isinstance(texts, str) else texts
        if given is not None and len(given) != len(listed):
            raise SpecError(f"{len(given)} texts were given for {len(listed)} sequences of tokens. Give one for each.")
        if given is None:
            given = [_decode(tokenizer, row) for row in listed]
        known = {i: _decode(tokenizer, [i]) for i in sorted({i for row in listed for i in row})}
        return Tokens(
            rows,
            tuple(tuple(known[i] for i in row) for row in listed),
            tuple(given),
            _offsets(tokenizer, listed, given),
        )


def _decode(tokenizer: Any, ids: list[int]) -> str:
    return str(tokenizer.decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False))


def _offsets(tokenizer: Any, rows: list[list[int]], texts: Sequence[str]) -> Tensor | None:
    """[b, t, 2], −1 for tokens that the text does not hold; None where nothing could be placed."""
    if not getattr(tokenizer, "is_fast", False):
        return None  # only fast tokenizers keep the way back from a token to its characters
    found = torch.full((len(rows), len(rows[0]), 2), -1, dtype=torch.int64)
    placed = False
    for row, text, into in zip(rows, texts, found, strict=True):
        if not text:
            continue
        encoded = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
        at = _find(row, encoded["input_ids"])
        if at is not None:
            into[at : at + len(encoded["input_ids"])] = torch.tensor(encoded["offset_mapping"])
            placed = True
    return found if placed else None


def _find(row: list[int], part: list[int]) -> int | None:
    """Where `part` lies in `row`, in one piece; None where it does not."""
    if not part:
        return None
    size = array("q").itemsize
    haystack, needle = array("q", row).tobytes(), array("q", part).tobytes()
    at = haystack.find(needle)
    while at >= 0 and at % size:
        at = haystack.find(needle, at + 1)
    return at // size if at >= 0 else None
