"""The memory that this process holds resident, and the most it held, in bytes."""

from __future__ import annotations

import ctypes
import os
import sys
from contextlib import suppress
from pathlib import Path

__all__ = ["give_back", "held", "peak", "restart_peak"]

_SELF = Path("/proc/self")


def held() -> int:
    """What is resident now; where the system does not tell, the peak."""
    with suppress(OSError):  # not Linux
        return int((_SELF / "statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    return peak()


def peak() -> int:
    """The most that was resident since `restart_peak`, or since the process began where that cannot be done.

    0 where the system keeps no such mark.
    """
    with suppress(OSError):  # not Linux
        for line in (_SELF / "status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    try:
        import resource
    except ModuleNotFoundError:  # Windows
        return 0
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most if sys.platform == "darwin" else most * 1024


def restart_peak() -> None:
    """Set the system's own peak mark back to what is resident now, so that earlier peaks do not count. Linux alone."""
    with suppress(OSError):  # not Linux, or not permitted
        (_SELF / "clear_refs").write_text("5")  # proc(5)


def give_back() -> None:
    """Have the C library return memory that was freed, so that it does not count as held. GNU's alone."""
    if sys.platform.startswith("linux"):
        with suppress(OSError, AttributeError):
            ctypes.CDLL(None).malloc_trim(0)
