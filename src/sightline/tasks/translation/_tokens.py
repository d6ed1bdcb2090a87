"""Tokens of a text and their places in it, in both directions, by whatever tokenizer a model has."""

from __future__ import annotations

import re
from typing import Any

from ...errors import Unsupported
from ...sentences import Span, stripped
from .._chat import text_tokens

__all__ = ["Tokens", "stripped"]


class Tokens:
    """A tokenizer that can say where its tokens lie.

    Raises Unsupported for one that cannot: it is neither fast, nor SentencePiece's, nor one with `pieces` and `spell`.
    """

    def __init__(self, tokenizer: Any, name: str) -> None:
        self.tokenizer = tokenizer
        # What Transformers' slow tokenizers of Marian and M2M100 call the vocabulary of their source.
        self._sentencepiece: Any = getattr(tokenizer, "spm_source", None) or getattr(tokenizer, "sp_model", None)
        fast = getattr(tokenizer, "is_fast", False)
        if not (hasattr(tokenizer, "pieces") or fast or self._sentencepiece is not None):
            raise Unsupported(
                f"a translation by {name} was asked for; its tokenizer, {type(tokenizer).__name__}, cannot say where "
                "its tokens lie. Use a model with a fast tokenizer (a tokenizer.json)."
            )

    def of(self, text: str, span: Span) -> tuple[tuple[int, ...], tuple[Span, ...]]:
        """Tokens of a span, without those that frame it, and their places in the text. Line breaks are spaces."""
        start, end = span
        inside = re.sub(r"[\r\n]", " ", text[start:end])
        if hasattr(self.tokenizer, "pieces"):
            found = self.tokenizer.pieces(inside)
            return tuple(p.id for p in found), tuple(Span(start + p.start, start + p.end) for p in found)
        ids, places = (
            text_tokens(self.tokenizer, inside) if getattr(self.tokenizer, "is_fast", False) else self._slow(inside)
        )
        found = (stripped(inside, Span(a, b)) for a, b in places)
        return tuple(ids), tuple(Span(start + a, start + b) for a, b in found)

    def _slow(self, text: str) -> tuple[list[int], list[Span]]:
        found = self._sentencepiece.encode(text, return_type="offset_mapping")
        return [int(self.tokenizer.convert_tokens_to_ids(piece)) for piece in found["pieces"]], [
            Span(*place) for place in found["offsets"]
        ]

    def spelled(self, ids: list[int]) -> tuple[str, tuple[Span, ...]]:
        """The text of tokens, and each one's place in it. Those that end or pad stand for nothing."""
        if hasattr(self.tokenizer, "spell"):
            text, pieces = self.tokenizer.spell(ids)
            return text, tuple(Span(p.start, p.end) for p in pieces)
        silent = set(self.tokenizer.all_special_ids)
        kept = [i for i in ids if i not in silent]
        whole = self._decoded(kept)
        start = len(whole) - len(whole.lstrip())
        text = whole.strip()
        places: list[Span] = []
        at = shown = 0
        for i in ids:
            before = at
            if i not in silent:
                shown += 1
                # Half a character decodes to a replacement, which is not yet the text's own.
                at = max(at, _common(self._decoded(kept[:shown]), whole))
            own = Span(min(len(text), max(0, before - start)), min(len(text), max(0, at - start)))
            places.append(stripped(text, own))
        return text, tuple(places)

    def _decoded(self, ids: list[int]) -> str:
        return str(self.tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False))

    def framed(self, letter: str = "a") -> tuple[list[int], list[int]]:
        """The tokens that the tokenizer puts before a text and after it, seen around the ids of one letter."""
        if hasattr(self.tokenizer, "pieces"):
            return [], [self.tokenizer.ends]
        bare: list[int] = self.tokenizer(letter, add_special_tokens=False)["input_ids"]
        full: list[int] = self.tokenizer(letter)["input_ids"]
        at = next((i for i in range(len(full)) if full[i : i + len(bare)] == bare), 0)
        return full[:at], full[at + len(bare) :]


def _common(a: str, b: str) -> int:
    """How many characters two texts begin with alike."""
    return next((i for i, (x, y) in enumerate(zip(a, b)) if x != y), min(len(a), len(b)))
