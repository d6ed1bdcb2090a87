"""Who is told of work as it goes."""

from __future__ import annotations

from collections.abc import Callable

__all__ = ["Progress"]

Progress = Callable[[str, int, "int | None"], None]
"""Told of work as it goes: progress(phase, done, total), total None where it is not known."""
