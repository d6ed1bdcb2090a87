"""What `answer` returns."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from ...evidence import Support
from .. import _shown
from ..citation import Citation

__all__ = ["Answer", "Verdict", "Window"]

Verdict = Literal["in the document", "not in the document", "no answer"]


@dataclass(frozen=True)
class Window:
    """A stretch of a document that was read: document[start:end], from line `line` to line `last_line` (from 1).

    `source` is the document's name, None where it has none.
    """

    source: str | None
    start: int
    end: int
    line: int
    last_line: int


@dataclass(frozen=True)
class Answer:
    """What the model answered, and from where: citations in the order of their measured drop, largest first.

    `support` tells whether the answer rests on what was read of the documents; 0 throughout for an empty answer.
    `seconds` is the time taken, loading included; `peak_bytes` the most memory the process held meanwhile. `windows`
    are the stretches that were read, in the order of the documents; `searched` is how many passages they were chosen
    from, 0 where everything was read.
    """

    text: str
    citations: tuple[Citation, ...]
    model: str
    seconds: float
    peak_bytes: int
    support: Support
    windows: tuple[Window, ...] = ()
    searched: int = 0

    @property
    def supported(self) -> bool:
        """Whether the answer rests on what was read, and that tells it: `support.holds`.

        A supported answer may still be wrong: it may rest on the wrong sentence, or on a wrong document.
        """
        return self.support.holds

    @property
    def verdict(self) -> Verdict:
        """What `supported` says, in words; "no answer" where the model gave none."""
        if not self.text:
            return "no answer"
        return "in the document" if self.supported else "not in the document"

    def _repr_html_(self) -> str:
        return _shown.answer(self)

    def to_dict(self) -> dict[str, Any]:
        """As plain data for JSON, with the answer's text under "answer".

        "units" holds the answer once more, as one unit with its citations and whether it is supported.
        """
        citations = [dict(vars(citation)) for citation in self.citations]
        unit = {"text": self.text, "citations": citations, "supported": self.supported}
        return {
            "answer": self.text,
            "verdict": self.verdict,
            "citations": citations,
            "model": self.model,
            "seconds": self.seconds,
            "peak_bytes": self.peak_bytes,
            "supported": self.supported,
            **vars(self.support),
            "strength": self.support.strength,
            "units": [unit] if self.text else [],
            "windows": [dict(vars(window)) for window in self.windows],
            "searched": self.searched,
        }
