"""What a model is asked about a question besides answering it: whether the document tells, in several ways."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from ..evidence import Check
from ._chat import text_tokens
from ._prompt import Prompt

__all__ = ["INVITING", "REFUSALS", "check"]

REFUSALS = ("not in the text", "Not in the text.")
"""The answers that are asked for where the document does not tell: as the order spells them, and as a sentence."""

INVITING = f'Using only the text above, answer in one short sentence. If the text does not say, answer "{REFUSALS[0]}".'
"""Not what the answer itself is asked with: SmolLM2 135M then says "not in the text" of what is there."""

_ASKING = (
    "Does the text above answer this question? Reply yes or no.",
    "Can this question be answered using only the text above? Reply yes or no.",
)
_STATING = "Does the text above state this answer? Reply yes or no."
_YES, _NO = "yes", "no"


def check(prompt: Prompt, answer: str) -> Check:
    """The same question with an invitation to refuse, and yes-or-no questions about the same document."""
    yes, no = _openings(prompt.tokenizer, _YES), _openings(prompt.tokenizer, _NO)
    refusals = [text_tokens(prompt.tokenizer, text)[0] for text in REFUSALS]
    return Check(
        inviting=replace(prompt, order=INVITING).tokens,
        refusals=refusals,
        asking=[replace(prompt, order=order).tokens for order in _ASKING],
        stating=replace(prompt, order=f"Question: {prompt.question} Answer: {answer}", question=_STATING).tokens,
        yes=yes - no,
        no=no - yes,
    )


def _openings(tokenizer: Any, word: str) -> frozenset[int]:
    """The tokens that a word may begin with: as it is, with a capital, and either after a blank."""
    forms = (word, word.capitalize(), f" {word}", f" {word.capitalize()}")
    return frozenset(text_tokens(tokenizer, form)[0][0] for form in forms)
