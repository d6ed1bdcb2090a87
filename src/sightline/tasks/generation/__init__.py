"""Generation, with where the model looked for each token: `generate`, `stream`."""

from __future__ import annotations

from ._focus import Source
from .generate import Generation, Produced, generate, stream

__all__ = ["Generation", "Produced", "Source", "generate", "stream"]
