"""The command `sightline`: parse, call a task or a measurement, print. Nothing here computes."""

from __future__ import annotations

import signal
import sys

from ._run import run

__all__ = ["main"]


def main() -> int:
    """Run the command line and return its exit code.

    0 done · 1 a defect of Sightline · 2 bad input · 130 interrupted · 143 terminated.
    """
    # As after Ctrl-C, what has been begun is cleared away: a file that is half written, a process that was started.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    return run(sys.argv[1:])
