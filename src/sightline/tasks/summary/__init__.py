"""Summarisation: `summarize`."""

from __future__ import annotations

from .summarize import Excerpt, Sentence, Summary, Window, summarize

__all__ = ["Excerpt", "Sentence", "Summary", "Window", "summarize"]
