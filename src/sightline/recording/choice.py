"""Choosing modules and heads of a model."""

from __future__ import annotations

import re
from collections.abc import Iterable
from fnmatch import fnmatchcase
from typing import Any

from ..errors import SpecError

__all__ = ["chosen", "matches"]


def chosen(choice: Iterable[Any], what: str, kinds: tuple[type, ...]) -> tuple[Any, ...]:
    """The choice as a tuple. Raises SpecError where it is no iterable of `kinds`, or empty."""
    wanted = " or ".join(kind.__name__ for kind in kinds)
    if isinstance(choice, str | int):
        raise SpecError(f"{what} should be a list of {wanted}; it is {choice!r}. Write [{choice!r}].")
    items = tuple(choice)
    if not items:
        raise SpecError(f"{what} is empty, so nothing would be recorded. Leave it out to record all.")
    for item in items:
        if isinstance(item, bool) or not isinstance(item, kinds):
            raise SpecError(f"{what} should hold {wanted}; it holds {item!r}.")
    return items


def matches(choice: int | str, name: str) -> bool:
    """Whether an int is the first number of a module's name, or a string its name or a pattern of it."""
    if isinstance(choice, str):
        return fnmatchcase(name, choice)
    first = re.search(r"(?:^|\.)(\d+)(?:\.|$)", name)
    return first is not None and int(first[1]) == choice
