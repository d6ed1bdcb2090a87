"""Results and traces with known numbers, for the tests of this folder."""

from __future__ import annotations

from typing import Any

import torch

from sightline.evidence import Support
from sightline.recording import Trace
from sightline.tasks import Answer, Citation, Generation, Summary, Translation, record_text
from sightline.tasks.generation import Produced, Source
from sightline.tasks.summary import Excerpt, Sentence, Window
from sightline.tasks.translation import Sentence as Line
from sightline.tasks.translation import Source as Origin
from sightline.tasks.translation import Word
from tiny_model import DOCUMENT, tiny_model, tiny_tokenizer

EVIL = "<script>window.hurt = 1</script>"

FERRY = f"""# The ferry 🚢

{EVIL} The ferry leaves at six. It carries the post.

Fares are paid in eggs. Goats travel free.
"""

COST: dict[str, Any] = {"model": "a model", "seconds": 12.3456, "peak_bytes": 1_234_567_890}


def cite(text: str, drop: float, direct: float, relevance: float, document: str = FERRY) -> Citation:
    start = document.index(text)
    line = document.count("\n", 0, start) + 1
    return Citation(text, start, start + len(text), line, relevance, drop, direct)


def an_answer(**options: Any) -> Answer:
    citations = (
        cite("Fares are paid in eggs.", 5.43219, 4.1, 0.512345),
        cite("Goats travel free.", 0.98765, -0.0123456, 0.0434),
    )
    given = {
        "text": "In eggs. Goats pay nothing.",
        "citations": citations,
        "support": Support(6.5, -9.0, 4.0, 2.0, 1.5),
        **COST,
    }
    return Answer(**{**given, **options})


def a_translation() -> Translation:
    """Two sentences after a picture, which UTF-16 takes two units for."""
    source, target = "🚢 The cat sleeps. It dreams.", "🚢 O gato dorme. Sonha."

    def word(text: str, *looked: tuple[str, float]) -> Word:
        at = target.index(text)
        found = tuple(Origin(w, source.index(w), source.index(w) + len(w), weight) for w, weight in looked)
        return Word(text, at, at + len(text), found)

    def line(text: str, origin: str, *words: Word) -> Line:
        at, start = target.index(text), source.index(origin)
        return Line(text, at, at + len(text), (Origin(origin, start, start + len(origin), 1.0),), words, True)

    first = line(
        "O gato dorme.",
        "The cat sleeps.",
        word("O", ("The", 0.7123), ("cat", 0.2)),
        word("gato", ("cat", 0.9)),
        word("dorme", ("sleeps", 0.8)),
    )
    second = line("Sonha.", "It dreams.", word("Sonha", ("dreams", 0.61), ("It", 0.3)))
    return Translation(target, (first, second), **COST)


SOURCE = "🚢 The cat sleeps. It dreams."


def a_summary(excerpts: bool = False) -> Summary:
    if excerpts:
        found = tuple(
            Excerpt(c.text, c.start, c.end, c.line, score)
            for c, score in zip(an_answer().citations, (3.14159, 1.5), strict=True)
        )
        text = "\n".join(excerpt.text for excerpt in found)
        return Summary(text, (), found, (Window(0, len(FERRY), 1, 6, None),), False, **COST)
    citations = an_answer().citations
    sentences = (
        Sentence("Fares are eggs.", 0, 15, citations[:1], True, 6.5, 4, 0),
        Sentence("Goats are free.", 16, 31, citations[1:], False, 0.5, 4, 0),
    )
    return Summary("Fares are eggs. Goats are free.", sentences, (), (Window(0, len(FERRY), 1, 6, "…"),), False, **COST)


PROMPT = "Say hello to the goat"


def a_generation() -> Generation:
    units = (
        Produced(1, "Hel", 0, -0.1, (Source("prompt", 4, 9, "hello", 0.6),)),
        Produced(2, "lo", 3, -0.2, (Source("prompt", 4, 9, "hello", 0.3), Source("output", 0, 3, "Hel", 0.25))),
        Produced(3, " goat", 5, -0.3, (Source("prompt", 17, 21, "goat", 0.812),)),
    )
    return Generation("Hello goat", units, "stop", **COST)


def a_trace(keep: Any = "qk", observe: str = "entropy,peak,top5,received,map8", new_tokens: int = 0) -> Trace:
    tokenizer = tiny_tokenizer()
    torch.manual_seed(0)
    return record_text(
        DOCUMENT, model=(tiny_model(len(tokenizer)), tokenizer), observe=observe, keep=keep, new_tokens=new_tokens
    )
