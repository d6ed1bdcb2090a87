"""A process that is killed while it records leaves the trace that was there, or none; never half of one."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

TESTS = Path(__file__).parents[1]
KILLS = 100

# Workers are forked from a process that has everything imported, so that a kill meets a recording and not an import.
PROGRAM = """
import json, os, random, signal, sys, time
sys.path.insert(0, TESTS)
import torch
torch.set_num_threads(1)
from pathlib import Path
from integrations.families import batch, build
from sightline.errors import TraceError
from sightline.integrations import record
from sightline.recording import Trace
from sightline.reductions import Entropy, Received, Rows

folder = Path(FOLDER)
path = folder / "trace.safetensors"
model, (ids, real) = build("llama"), batch(60)

def once(run):
    with torch.no_grad(), record(model, {"rows": Rows(torch.arange(60)), "received": Received()}, keep="qk") as rec:
        model(ids, attention_mask=real)
    trace = rec.trace(model=f"run {run}")
    for _ in range(5):
        trace.save(path)

def work():
    run = 0
    while True:
        run += 1
        once(run)

once(0)  # what is set up once takes no part in the time below
start = time.perf_counter()
once(0)
took = time.perf_counter() - start
path.unlink()

random.seed(0)
found = {"none": 0, "whole": 0, "left beside": 0, "runs": []}
for kill in range(KILLS):
    if kill % 4 == 0:
        path.unlink(missing_ok=True)
    for beside in folder.glob(".trace*"):
        beside.unlink()
    worker = os.fork()
    if worker == 0:
        work()
    time.sleep(random.uniform(0, 1.5 * took))
    os.kill(worker, signal.SIGKILL)
    os.waitpid(worker, 0)
    found["left beside"] += any(folder.glob(".trace*"))
    if path.exists():
        trace = Trace.load(path)
        trace.verify()
        found["runs"].append(trace.model)
        found["whole"] += 1
    else:
        found["none"] += 1
print(json.dumps(found))
"""


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="processes cannot be forked here")
def test_kills_at_random_moments(tmp_path: Path) -> None:
    program = PROGRAM.replace("TESTS", repr(str(TESTS))).replace("FOLDER", repr(str(tmp_path)))
    program = program.replace("KILLS", str(KILLS))
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", program],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    print(
        found["none"],
        "kills left none,",
        found["whole"],
        "a whole trace,",
        found["left beside"],
        "a partial one beside",
    )
    assert found["none"] + found["whole"] == KILLS
    # The kills met every moment: before a trace was there, after, and in the middle of writing one.
    assert found["none"]
    assert found["whole"]
    assert found["left beside"]
