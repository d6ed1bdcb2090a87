"""The command `sightline`: parse, call a task, print. Nothing here computes, and `--help` imports no torch."""

from __future__ import annotations

import os
import sys

__all__ = ["main"]


def main() -> int:
    """Run the command line and return its exit code.

    0 done · 1 a defect of Sightline · 2 bad input · 130 interrupted.
    """
    # OpenMP's threads spin while they wait for one another. Where other programs use the machine too, they then wait
    # for threads that are not running: measured, 4 to 5 times slower. It is read once, when torch is loaded.
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    from ._run import run

    return run(sys.argv[1:])
