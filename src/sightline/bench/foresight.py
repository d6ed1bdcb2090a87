"""Who is not tried at a length: the memory it would need, or the time it would take, can be told beforehand."""

from __future__ import annotations

from .case import Case
from .contenders import CONTENDERS
from .figures import Point
from .units import seconds, size

__all__ = ["left_out"]

#: The part of the available memory that a contender may need.
_ROOM = 0.9


def left_out(case: Case, contender: str, available: int | None, before: Point | None, limit: float) -> Point | None:
    """The point of a contender that is not tried, with the reason; None if it is.

    available: bytes of memory, if known. before: the longest length at which it was measured. limit: seconds.
    """
    needs = case.input_bytes + CONTENDERS[contender].stores(case)
    if available is not None and needs > _ROOM * available:
        why = f"would need {size(needs)}, and {size(available)} are available"
        return Point(case.tokens, contender, "left out", why, needs=needs)
    if before is not None:
        takes = before.seconds * (case.tokens / before.tokens) ** 2
        if takes > limit:
            why = f"would take about {seconds(takes)} a call, and the limit is {seconds(limit)}"
            return Point(case.tokens, contender, "left out", why, takes=takes)
    return None
