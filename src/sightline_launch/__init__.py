"""The console script: settles what must be settled before torch is loaded, then hands over to `sightline.cli`."""

import os


def main() -> int:
    """Run the command line and return its exit code."""
    # OpenMP's threads spin while they wait for one another, and where other programs use the machine they then spin for
    # threads that are not running: measured, 4 to 5 times slower. The setting is read once, when torch is loaded, and
    # importing any part of `sightline` loads it.
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    from sightline.cli import main

    return main()
