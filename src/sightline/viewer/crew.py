"""Work on all cores, cut where it is coarse: each thread computes a share of its own, by itself.

PyTorch cuts every operation instead, and a tile is some hundred small ones, after each of which the threads wait for
one another: on two cores that others use as well, that took seven times as long.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import TypeVar

import torch

__all__ = ["each", "shares"]

S = TypeVar("S")
T = TypeVar("T")


@cache
def _crew() -> tuple[ThreadPoolExecutor, int]:
    """The threads, as many as PyTorch would use; it uses one in each, and in threads of the process that come after."""
    threads = torch.get_num_threads()
    return ThreadPoolExecutor(threads, "sightline-viewer", lambda: torch.set_num_threads(1)), threads


def each(work: Callable[[S], T], parts: Iterable[S]) -> list[T]:
    """What `work` makes of each part, in order."""
    return list(_crew()[0].map(work, parts))


def shares(rows: range, block: int, of: int = 1) -> list[range]:
    """The rows in as many shares as there are threads, or `of` times as many, cut between blocks."""
    blocks = -(-len(rows) // block)
    step = max(1, -(-blocks // (of * _crew()[1]))) * block
    return [range(start, min(rows.stop, start + step)) for start in range(rows.start, rows.stop, step)]
