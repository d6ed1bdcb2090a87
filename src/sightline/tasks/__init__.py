"""What people do with a model, each task with one function and one type of result: `answer`, `record_text`."""

from __future__ import annotations

from .answer import Answer, Citation, answer
from .record import OBSERVED, observations, record_text

__all__ = ["OBSERVED", "Answer", "Citation", "answer", "observations", "record_text"]
