"""Question answering: `answer`."""

from __future__ import annotations

from .answer import Answer, answer

__all__ = ["Answer", "answer"]
