"""Text for people: coloured and fitted to the terminal, plain lines elsewhere, and never a command to the terminal."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable
from io import StringIO

from rich.console import Console

__all__ = ["harmless", "one_line", "page"]


def page(draw: Callable[[Console], None], target: str | None) -> str:
    """What `draw` prints, as text for standard output, or for the file `target`."""
    screen = None if target else Console()
    terminal = screen is not None and screen.is_terminal
    text = StringIO()
    console = Console(
        file=text,
        force_terminal=terminal,
        color_system="auto" if terminal else None,
        width=min(100, screen.width) if screen is not None and terminal else 100_000,
        highlight=False,
    )
    draw(console)
    return "\n".join(line.rstrip() for line in text.getvalue().splitlines())


def harmless(text: str) -> str:
    """The text without what would command a terminal: control characters other than line ends and tabs."""
    if text.isprintable():
        return text
    return "".join("\ufffd" if unicodedata.category(c) == "Cc" and c not in "\n\r\t" else c for c in text)


def one_line(text: str) -> str:
    """The text with every run of white space as one blank, harmless to a terminal."""
    return harmless(" ".join(text.split()))
