"""Tokens with where each looked: a line for each, and on a terminal the text they make below, as it grows."""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Iterable
from typing import TYPE_CHECKING

from rich.cells import cell_len
from rich.console import Console
from rich.live import Live
from rich.text import Text

from ._page import harmless

if TYPE_CHECKING:
    from ..tasks.generation import Produced, Source

__all__ = ["listing"]

_SIGNS = {"\n": "⏎", "\r": "␍", "\t": "⇥"}
_TOKEN = 18
"""Columns for a token."""
_INDENT = _TOKEN + 6
_WORD = 24
"""Columns for a word at most; the rest of a longer one is left out."""
_BELOW = 4
"""Lines of the text so far that stay in sight below the list."""
_BIDI = frozenset("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
_LEFT_TO_RIGHT = "\u200e"


def listing(tokens: Iterable[Produced], console: Console) -> None:
    """A line for each token, as it comes: itself, its probability, where it looked. Then the whole text.

    The text is printed also where the tokens end in an exception, such as an interrupt.
    """
    console.print(Text(f"{'token':<{_TOKEN + 1}}{'p':>3}  words drawn on, ↑ written before", style="dim"))
    written: list[str] = []
    try:
        # Drawn on terminals alone, and wiped at its end; Live does not know the whole of a text higher than the screen.
        with Live(
            console=console, auto_refresh=False, transient=True, redirect_stdout=False, redirect_stderr=False
        ) as live:
            for token in tokens:
                written.append(token.text)
                console.print(_line(token, console), soft_wrap=True)
                console.file.flush()
                if console.is_terminal:
                    live.update(_end_of("".join(written), console), refresh=True)
    finally:
        if written:
            console.print()
            console.print(Text(harmless("".join(written))), soft_wrap=not console.is_terminal)


def _line(token: Produced, console: Console) -> Text:
    """A token's line; sources that do not fit go on below the first."""
    probability = math.exp(token.log_prob)
    sign = _shown(token.text) or "…"
    sign = "␣" * len(sign) if sign.isspace() else sign
    line = Text.assemble((sign, "bold"), " " * max(1, _TOKEN - cell_len(sign)))
    line.append(
        f"{probability:4.0%}  ", style="green" if probability >= 0.5 else "yellow" if probability >= 0.1 else "red"
    )
    column = _INDENT
    for at, source in enumerate(token.sources):
        name, share = _name(source), f" {source.share:.0%}"
        if at and column + cell_len(name + share) + 3 > console.width:
            line.append("\n" + " " * _INDENT)
            column = _INDENT
        elif at:
            line.append(" · ", style="dim")
            column += 3
        line.append(name, style="" if source.where == "output" else "cyan")
        line.append(share, style="dim")
        column += cell_len(name + share)
    line.rstrip()
    return line


def _end_of(text: str, console: Console) -> Text:
    """The last lines of the text so far."""
    lines = Text(harmless(text), style="dim").wrap(console, console.width)
    return Text("\n").join([Text(), *lines[-_BELOW:]])


def _shown(text: str) -> str:
    """A piece of text on one line among others, which it neither breaks nor turns around."""
    made = "".join(_SIGNS.get(c, "\ufffd" if c in _BIDI else c) for c in harmless(text))
    # A number after a word that is written from right to left would be shown before it.
    turned = any(unicodedata.bidirectional(c) in ("R", "AL", "AN") for c in made)
    return made + _LEFT_TO_RIGHT if turned else made


def _name(source: Source) -> str:
    name = _short(_shown(source.text))
    return f"↑{name}" if source.where == "output" else name


def _short(text: str) -> str:
    if cell_len(text) <= _WORD:
        return text
    cut = Text(text)
    cut.truncate(_WORD, overflow="ellipsis")
    return cut.plain
