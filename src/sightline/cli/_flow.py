"""Text as it is written, on a terminal: its lines end between words, not where the screen does."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable

from rich.cells import cell_len

__all__ = ["Flow"]

_TAB = 8


class Flow:
    """Prints a text that comes in pieces. A word is printed when it is whole, on a new line where it does not fit.

    White space at such a line's end is left out. A word that no line can hold is cut by the terminal itself, and a line
    may also end before an ideograph or a kana. Nothing printed is ever taken back.

    width: the terminal's columns, asked again for each word, since a window may change its size.
    """

    def __init__(self, write: Callable[[str], None], width: Callable[[], int]) -> None:
        self._write = write
        self._width = width
        self._column = 0
        self._gap = ""  # white space since the last word
        self._word = ""  # what has come of the next one
        self._returned = False

    def add(self, text: str) -> None:
        """More of the text. A carriage return, alone or before a line feed, ends a line."""
        for c in text:
            if c == "\n" and self._returned:
                pass
            elif c in "\r\n":
                self.close()
                self._write("\n")
                self._column = 0
            elif c.isspace() and c != "\u00a0":
                if self._word:
                    self._flush()
                self._gap += c
            else:
                if self._word and unicodedata.category(c) == "Lo" and cell_len(c) == 2:
                    self._flush()
                self._word += c
            self._returned = c == "\r"

    def close(self) -> None:
        """Print what was held back."""
        if self._word or self._gap:
            self._flush()

    @property
    def column(self) -> int:
        """Columns of the line that are printed on."""
        return self._column

    def _flush(self) -> None:
        width = max(1, self._width())
        gap, word = self._gap.replace("\t", " " * _TAB), self._word
        self._gap = self._word = ""
        if self._column and self._column + cell_len(gap) + cell_len(word) > width:
            self._write("\n")
            self._column, gap = 0, ""
        self._write(gap + word)
        self._column += cell_len(gap) + cell_len(word)
        if self._column > width:
            self._column %= width
