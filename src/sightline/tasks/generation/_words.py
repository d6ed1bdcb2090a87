"""The words of a text that grows, and which word each token belongs to."""

from __future__ import annotations

from ...evidence import owners
from ...sentences import Span, words

__all__ = ["Words"]


class Words:
    """The words of a text that grows at its end, and the word of each token that it was written with.

    Only what follows the last token that begins with white space can still change; adding costs the length of that.
    """

    def __init__(self) -> None:
        self.text = ""
        self.spans: list[Span] = []
        self.of_token: list[int | None] = []
        self._open = 0  # characters from here on, and words from `_kept` on, are not settled yet
        self._kept = 0
        self._places: list[Span] = []
        self._settled = 0  # tokens whose word is final
        self._waiting = 0  # tokens at the end that have written a part of a character so far

    def add(self, text: str) -> None:
        """One more token wrote `text`; "" where it only began a character, which is then counted to that character."""
        start = len(self.text)
        self.text += text
        self._waiting += 1
        self._places.append(Span(start, start))
        self.of_token.append(None)
        if not text:
            return
        begun = self._waiting - 1
        for at in range(len(self._places) - 1 - begun, len(self._places) - 1):
            self._places[at] = Span(start, start + 1)
        self._places[-1] = Span(start, len(self.text))
        self._waiting = 0
        if text[0].isspace():  # no word reaches across it
            self._open, self._kept, self._settled = start, len(self.spans), len(self._places) - 1 - begun
        tail = [Span(self._open + s.start, self._open + s.end) for s in words(self.text[self._open :], signs=True)]
        self.spans[self._kept :] = tail
        for at, found in enumerate(owners(self._places[self._settled :], tail), self._settled):
            self.of_token[at] = None if found is None else self._kept + found
