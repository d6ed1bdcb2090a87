"""What a model reads for a question: everything where it is short, else the passages that are most likely to answer it.

Passages are found by the words that they share with the question (`_search`), and among the first of these chosen by
what the question attends to when the model reads them together (`_attended`). Both orders count alike: a passage that
is r-th by one of them gets 1 / (r + 1) from it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ...errors import InputError
from ...models import Progress
from .._check import check
from .._prompt import Prompt
from ..documents import Document
from ._attended import attended
from ._passages import Passage, Reading, cut, whole
from ._search import ranked

__all__ = ["PASSAGES", "READING", "Choice", "choose"]

READING = 2560
"""Tokens of documents that are read at once: about 1,800 words of English, which small models still follow."""

_PASSAGE = 96
"""Tokens of a passage, some sentences; of them a quarter is also in the next."""

_CANDIDATES = 8
"""Passages that a model reads to choose among them."""

PASSAGES = 1
"""Passages that the answer comes from. What else is read beside the right one leads the default model astray: of twenty
questions about a sentence in 100,000 words it answered 9 from one passage, as many as from the sentence alone, and 5
from two.
"""

_LEAST = 64
"""Tokens without which reading makes no sense."""

_LONGEST = 64
"""Characters of a token, at most, as far as deciding without tokens that a text is too long goes."""


@dataclass(frozen=True)
class Choice:
    """What is read, and how many passages it was chosen from: 0 where it is everything."""

    reading: Reading
    searched: int


def choose(
    documents: Sequence[Document],
    question: str,
    network: Any,
    tokenizer: Any,
    *,
    limit: int | None,
    room: int,
    reading: int,
    passages: int,
    tell: Progress,
) -> Choice:
    """What to read of documents to answer a question in up to `room` tokens, with a context of `limit` tokens.

    Where not everything fits, as many `passages` as are asked for, or as fit in `reading` tokens.

    Raises InputError where the context has no room for any text, Unsupported where a package for searching is missing.
    """
    bare = Prompt("", question, tokenizer)
    frame, asked = len(bare.tokens), check(bare, "")
    # The model is asked about its answer too, in a few tokens more.
    longest = max(len(asked.inviting) + max(map(len, asked.refusals)), len(asked.asking), len(asked.stating) + room)
    answer, room = room, longest - frame
    space = reading if limit is None else min(reading, limit - frame - room)
    if sum(len(document.text) for document in documents) <= _LONGEST * space:
        everything = Reading.of(documents, whole(documents, tokenizer))
        tokens = len(Prompt(everything.text, question, tokenizer).tokens)
        if tokens - frame <= reading and (limit is None or tokens + room <= limit):
            return Choice(everything, 0)
    if limit is not None and space < min(reading, _LEAST):
        raise InputError(
            f"an answer of up to {answer:,} tokens was asked for; the model's context is {limit:,} tokens, of which "
            f"the question and what is around it take {frame:,}. Ask for a shorter answer, or use a model with a "
            "longer context."
        )
    tell("searching", 0, None)
    size = max(1, min(_PASSAGE, space // 4))
    found = cut(documents, tokenizer, size, size // 4)
    texts = [[documents[p.document].text[s.start : s.end] for s in p.sentences] for p in found]
    fit = max(1, space * 3 // (4 * size))  # a passage's last sentence may make it longer than its size
    kept = min(passages, fit)
    candidates = [found[i] for i in ranked(texts, question)[: min(max(_CANDIDATES, kept), fit)]]
    if len(candidates) > kept:
        candidates = _attended_first(documents, candidates, question, network, tokenizer, tell)
    return Choice(Reading.of(documents, candidates[:kept]), len(found))


def _attended_first(
    documents: Sequence[Document],
    candidates: Sequence[Passage],
    question: str,
    network: Any,
    tokenizer: Any,
    tell: Progress,
) -> list[Passage]:
    """Candidates, given in the order of the search, in the order of both."""
    together = Reading.of(documents, candidates)
    prompt = Prompt(together.text, question, tokenizer)
    total = len(prompt.tokens)
    tell("choosing", 0, total)
    scores = attended(network, prompt, together.sentences, lambda done: tell("choosing", done, total))
    of = dict(zip(map(together.origin, together.sentences), scores, strict=True))
    best = [max(of[p.document, span] for span in p.sentences) for p in candidates]
    by_attention = sorted(range(len(candidates)), key=lambda i: -best[i])
    fused = [1 / (at + 1) + 1 / (by_attention.index(at) + 1) for at in range(len(candidates))]
    return [candidates[i] for i in sorted(range(len(candidates)), key=lambda i: -fused[i])]
