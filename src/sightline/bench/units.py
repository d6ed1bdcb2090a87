"""Seconds and bytes in units that fit them."""

from __future__ import annotations

__all__ = ["digits", "seconds", "size"]


def seconds(value: float) -> str:
    """Such as "7.19 ms"."""
    return f"{digits(value)} s" if value >= 1 else f"{digits(value * 1e3)} ms"


def size(value: float) -> str:
    """Such as "540 MB"."""
    return f"{digits(value / 1e9)} GB" if value >= 1e9 else f"{digits(value / 1e6)} MB"


def digits(value: float) -> str:
    """Three digits, or all before the point."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"
