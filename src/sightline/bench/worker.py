"""The fresh process's side: one contender at one length, its memory and then its time, one JSON answer a line.

The first line it is given says what to measure; it answers when it is ready. "first" makes the first call at full
length, and answers with the growth of memory and whether the results are right; a number answers with the seconds of
that many calls, on average. It ends when its input does.
"""

from __future__ import annotations

import gc
import json
import os
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch

from .. import _resident
from .case import Case
from .check import fault
from .contenders import CONTENDERS

__all__ = ["main"]

#: Tokens of the call that sets everything up: threads, libraries, caches.
_SMALL = 64


def main() -> None:
    """Answer requests from standard input, on standard output."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what a library prints is no answer

    def say(answer: Any) -> None:
        answers.write(json.dumps(answer) + "\n")
        answers.flush()

    asked = json.loads(sys.stdin.readline())
    torch.set_num_threads(asked["threads"])
    try:
        with torch.no_grad():
            measured = _Measured(Case(**asked["case"]), asked["contender"])
            say("ready")
            for line in sys.stdin:
                request = json.loads(line)
                say(measured.first() if request == "first" else measured.sample(request))
    except (RuntimeError, MemoryError) as error:  # such as memory that the system does not give
        say({"error": (str(error).splitlines() or [type(error).__name__])[0]})


class _Measured:
    """A contender with its inputs."""

    def __init__(self, case: Case, name: str) -> None:
        self.case, self.attend = case, CONTENDERS[name].attend
        small = replace(case, tokens=min(_SMALL, case.tokens))
        self.attend(small, small.inputs())
        self.inputs = case.inputs()

    def first(self) -> dict[str, Any]:
        """The growth of peak memory over the inputs in one call; its seconds; what is wrong with its results."""
        gc.collect()
        _resident.give_back()
        _resident.restart_peak()
        before = _resident.held()
        results: Any = None

        def call() -> None:
            nonlocal results
            results = self.attend(self.case, self.inputs)

        wall, cpu = _timed(call, 1)
        peak = _resident.peak()
        grown = max(0, peak - before) if peak else None
        return {"wall": wall, "cpu": cpu, "bytes": grown, "fault": fault(self.case, self.inputs, results)}

    def sample(self, calls: int) -> dict[str, float]:
        """Seconds of one call, as the mean of some."""
        wall, cpu = _timed(lambda: self.attend(self.case, self.inputs), calls)
        return {"wall": wall, "cpu": cpu}


def _timed(call: Callable[[], Any], calls: int) -> tuple[float, float]:
    """Wall and process-CPU seconds of a call, as the mean of some."""
    wall, cpu = time.perf_counter(), time.process_time()
    for _ in range(calls):
        call()
    return (time.perf_counter() - wall) / calls, (time.process_time() - cpu) / calls
