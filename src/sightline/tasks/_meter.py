"""How long a task took, and the most memory it held."""

from __future__ import annotations

import sys
import time
from contextlib import suppress
from pathlib import Path
from types import TracebackType

import torch

__all__ = ["Meter"]

_STATUS = Path("/proc/self/status")
_CLEAR = Path("/proc/self/clear_refs")


class Meter:
    """Measures a block: `seconds`, and `peak_bytes`, the most memory that the process held resident meanwhile.

    On Linux the system's own peak mark is set back at the start, so that earlier peaks do not count. Where that cannot
    be done it is the peak since the process began. Memory of CUDA devices, where one is in use, is added.
    """

    def __enter__(self) -> Meter:
        # Not Linux, or not permitted: the figure is then the older peak, as the docstring says.
        with suppress(OSError):
            _CLEAR.write_text("5")  # proc(5): the peak mark becomes what is resident now
        if torch.cuda.is_initialized():
            torch.cuda.reset_peak_memory_stats()
        self._start = time.perf_counter()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.seconds = time.perf_counter() - self._start
        self.peak_bytes = _peak_resident()
        if torch.cuda.is_initialized():
            self.peak_bytes += torch.cuda.max_memory_allocated()


def _peak_resident() -> int:
    """The peak mark of this process in bytes, 0 where the system keeps none."""
    with suppress(OSError):  # not Linux
        for line in _STATUS.read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    try:
        import resource
    except ModuleNotFoundError:  # Windows
        return 0
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
