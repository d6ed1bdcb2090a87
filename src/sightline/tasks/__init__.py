"""What people do with a model, a function and a type of result for each task.

The parts that results are made of have their types in the task's own package: `tasks.answering`, `tasks.generation`,
`tasks.summary`, `tasks.translation`.
"""

from __future__ import annotations

from .answering import Answer, answer
from .citation import Citation
from .generation import Generation, generate, stream
from .record import OBSERVED, observations, record_text
from .summary import Summary, summarize
from .translation import PAIRS, Translation, translate, translating

__all__ = [
    "OBSERVED",
    "PAIRS",
    "Answer",
    "Citation",
    "Generation",
    "Summary",
    "Translation",
    "answer",
    "generate",
    "observations",
    "record_text",
    "stream",
    "summarize",
    "translate",
    "translating",
]
