"""How long a task took, and the most memory it held."""

from __future__ import annotations

import time
from types import TracebackType

import torch

from .. import _resident

__all__ = ["Meter"]


class Meter:
    """Measures a block: `seconds`, and `peak_bytes`, the most memory that the process held resident meanwhile.

    On Linux the system's own peak mark is set back at the start, so that earlier peaks do not count. Where that cannot
    be done it is the peak since the process began. Memory of CUDA devices, where one is in use, is added.
    """

    def __enter__(self) -> Meter:
        _resident.restart_peak()
        if torch.cuda.is_initialized():
            torch.cuda.reset_peak_memory_stats()
        self._start = time.perf_counter()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.seconds = time.perf_counter() - self._start
        self.peak_bytes = _resident.peak()
        if torch.cuda.is_initialized():
            self.peak_bytes += torch.cuda.max_memory_allocated()
