"""A result for people: coloured and fitted to the terminal, plain lines elsewhere."""

from __future__ import annotations

from collections.abc import Callable
from io import StringIO

from rich.console import Console

__all__ = ["page"]


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
