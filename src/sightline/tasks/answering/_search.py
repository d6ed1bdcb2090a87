"""Passages that share words with a question: BM25, before any model reads.

    score(q, d) = Σ_{w in q} idf(w) · f / (f + k1 · (1 − b + b · |d| / mean |d|))        f: how often w is in d

with k1 = 1.5 and b = 0.75, and idf(w) = ln(1 + (n − n_w + ½) / (n_w + ½)) over n texts of which n_w hold w. A passage
has its own score and the best of its sentences': a name and a fact that stand together count for more than apart.

Words are those of `sightline.sentences.words` in compatibility form (NFKC) and without case, cut at apostrophes and
hyphens ("the admiral's" holds "admiral"); ideographs are words of one character. No stems and no lists of common words:
nothing here knows a language.

Source: Robertson & Zaragoza (2009), "The Probabilistic Relevance Framework"; idf as in Lucene. Computed by bm25s.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence

from ...errors import Unsupported
from ...sentences import words

__all__ = ["bm25", "ranked", "terms"]

_JOINTS = re.compile("['’\u2010\u2011-]")


def terms(text: str) -> list[str]:
    """The words of a text as BM25 compares them, in order."""
    plain = unicodedata.normalize("NFKC", text).casefold()
    return [part for span in words(plain) for part in _JOINTS.split(plain[span.start : span.end])]


def ranked(passages: Sequence[Sequence[str]], question: str) -> list[int]:
    """The numbers of passages, each given by its sentences, best first; those that share no word come last, in order.

    O(characters). Raises Unsupported where the package bm25s is not installed.
    """
    held: dict[str, list[str]] = {}  # a sentence of two windows is cut into words once
    for passage in passages:
        for sentence in passage:
            if sentence not in held:
                held[sentence] = terms(sentence)
    asked = list(dict.fromkeys(terms(question)))
    distinct = list(held)
    alone = dict(zip(distinct, bm25([held[sentence] for sentence in distinct], asked), strict=True))
    together = bm25([[term for sentence in passage for term in held[sentence]] for passage in passages], asked)
    scores = [
        score + max((alone[sentence] for sentence in passage), default=0.0)
        for score, passage in zip(together, passages, strict=True)
    ]
    return sorted(range(len(passages)), key=lambda i: -scores[i])


def bm25(texts: Sequence[Sequence[str]], asked: Sequence[str]) -> list[float]:
    """BM25 of each text for the words asked for, all given by `terms`. Raises Unsupported as `ranked`."""
    # Imported late: it is optional.
    try:
        from bm25s import BM25
    except ModuleNotFoundError as error:
        raise Unsupported(
            "an answer was asked for from more text than the model reads at once, so that it has to be searched; that "
            'needs the package bm25s, which is not installed. Install it with: pip install "sightline[models]"'
        ) from error

    if not any(texts):
        return [0.0] * len(texts)
    index = BM25()
    index.index([list(text) for text in texts], show_progress=False)
    known = [term for term in asked if term in index.vocab_dict]
    return [float(score) for score in index.get_scores(known)] if known else [0.0] * len(texts)
