"""What people do with a model, each task with one function and one type of result. See `answer`."""

from __future__ import annotations

from .answer import Answer, Citation, answer

__all__ = ["Answer", "Citation", "answer"]
