"""Translation, with its alignment to the source: `translate`, `translating`."""

from __future__ import annotations

from .result import Passage, Sentence, Source, Translation, Word
from .translate import PAIRS, translate, translating

__all__ = ["PAIRS", "Passage", "Sentence", "Source", "Translation", "Word", "translate", "translating"]
