"""Where the rows of each call of a module stand among the queries."""

from __future__ import annotations

from collections.abc import Iterator

from .record import Record
from .trace import Trace

__all__ = ["placed"]


def placed(trace: Trace, module: str) -> Iterator[tuple[int, Record]]:
    """Each call with the position of its first query.

    Where the queries of a cross-attention stand is not told; its calls follow one another.
    """
    after = 0
    for call in trace[module]:
        start = after if call.query_positions is None else call.query_positions.start
        after = start + call.shape[2]
        yield start, call
