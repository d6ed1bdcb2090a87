"""Fresh Python processes, for promises about what a process imports, allocates or repeats."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import Any


def fresh(program: str, **environment: str) -> Any:
    """Run a program in a new Python with one thread; what it prints last is JSON, and is returned."""
    env = {**os.environ, "OMP_NUM_THREADS": "1", **environment}
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, env=env, timeout=600, check=False
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])
