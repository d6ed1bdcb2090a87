"""The console script: settles what must be settled before torch is loaded, then hands over to `sightline.cli`."""

import gc
import os


def main() -> int:
    """Run the command line and return its exit code."""
    # OpenMP's threads spin while they wait for one another, and where other programs use the machine they then spin
    # for threads that are not running: measured, 4 to 5 times slower. Spinning for some microseconds and then sleeping
    # is as fast as spinning on an idle machine, and a third of its time on a busy one. Read once, when torch is loaded.
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    os.environ.setdefault("GOMP_SPINCOUNT", "20000")
    # Loading torch and a model makes a million objects that stay; looking through them for cycles every 700 of them
    # is a tenth of the time to the first word.
    gc.set_threshold(100_000, 20, 20)
    from sightline.cli import main

    return main()
