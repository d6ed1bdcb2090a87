"""Versions of this package and of those it works with."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as installed

__all__ = ["version"]


def version(distribution: str) -> str:
    """The installed version, or "not installed". Imports nothing."""
    try:
        return installed(distribution)
    except PackageNotFoundError:
        return "not installed"
