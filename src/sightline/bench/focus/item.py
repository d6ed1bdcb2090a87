"""One question of the benchmark: sentences, what is asked of them, and which of them hold the answer."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

__all__ = ["TIERS", "Item"]

TIERS = {
    "A": "12 sentences, one of them asked about",
    "B": "the answer takes two sentences",
    "C": "the answer's words in other sentences, and older facts that contradict it",
    "D": "one sentence in filler of 0.5 to 8 thousand tokens",
    "E": "SQuAD, a passage of 4 to 10 sentences",
    "L": "SQuAD, the passage among others of its article, 30 to 60 sentences",
    "F": "nothing in the text answers the question",
}
"""The kinds of items."""


@dataclass(frozen=True)
class Item:
    """A document given by its sentences, and a question about it.

    `gold` are the numbers of the sentences that hold the answer, empty where that is not known or there are none.
    """

    tier: str
    name: str
    sentences: tuple[str, ...]
    question: str
    gold: tuple[int, ...] = ()

    @property
    def document(self) -> str:
        """The sentences, with a blank between them."""
        return self.without(())

    def without(self, removed: Collection[int]) -> str:
        """The document that lacks the sentences of these numbers."""
        return " ".join(text for i, text in enumerate(self.sentences) if i not in removed)
