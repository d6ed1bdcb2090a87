"""Question answering: `answer`."""

from __future__ import annotations

from .answer import answer
from .result import Answer, Window

__all__ = ["Answer", "Window", "answer"]
