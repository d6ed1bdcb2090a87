"""Who is told of work as it goes."""

from __future__ import annotations

from collections.abc import Callable

__all__ = ["Progress", "unheard"]

Progress = Callable[[str, int, "int | None"], None]
"""Told of work as it goes: progress(phase, done, total), total None where it is not known."""


def unheard(phase: str, done: int, total: int | None) -> None:
    """Progress that nobody listens to."""
