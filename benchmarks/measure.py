"""Rounds of time, interleaved, and the growth of memory.

Contenders take turns (A B C A B C …), so that what else the machine does falls on all of them.
"""

from __future__ import annotations

import gc
import os
import resource
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from math import ceil
from typing import Any, Protocol

import torch

from .cases import BASELINES, Case, Inputs
from .gate import Verdict, judge, judge_rows
from .peers import Call, Contender, contenders

#: Calls shorter than this many seconds are repeated within one sample.
SAMPLE = 0.02


@dataclass(frozen=True)
class Growth:
    """One call in a fresh process: bytes of peak memory over what was held before it, and its seconds."""

    bytes: int
    wall: float
    cpu: float
    verdict: Verdict


class Place(Protocol):
    """Where contenders run: in this process (`Here`), or in another with another sightline (`worker.There`)."""

    def contenders(self) -> dict[str, bool]:
        """The names of all, and whether each is a backend of Sightline's."""
        ...

    def judge(self, case: Case, name: str) -> Verdict:
        """The gate, at a reduced size."""
        ...

    def open(self, case: Case, name: str) -> Verdict:
        """Prepare and warm up at full size; the gate on some rows."""
        ...

    def time(self, case: Case, name: str) -> tuple[float, float]:
        """Wall and process-CPU seconds of one call of what was opened."""
        ...

    def close(self) -> None:
        """Let go of everything that was opened."""
        ...

    def grow(self, case: Case, name: str) -> Growth:
        """Peak memory, in a process of its own."""
        ...


class Here:
    """Contenders in this process."""

    def __init__(self, threads: int, offered: dict[str, Contender] | None = None) -> None:
        torch.set_num_threads(threads)
        self.threads = threads
        self.offered = contenders() if offered is None else offered
        self.opened: dict[tuple[Case, str], tuple[Call, int]] = {}

    def contenders(self) -> dict[str, bool]:
        return {name: c.ours for name, c in self.offered.items()}

    def judge(self, case: Case, name: str) -> Verdict:
        return judge(case, self.offered[name])

    def open(self, case: Case, name: str) -> Verdict:
        x = Inputs.of(case)
        call = self.offered[name].prepare(case, x)
        start = time.perf_counter()
        results = call()  # sets up, compiles, touches its memory
        seconds = time.perf_counter() - start
        verdict = judge_rows(case, x, results)
        del results
        if seconds < 20 * SAMPLE:
            seconds = min(timed(call)[0] for _ in range(2))
        self.opened[case, name] = call, max(1, ceil(SAMPLE / max(seconds, 1e-6)))
        return verdict

    def time(self, case: Case, name: str) -> tuple[float, float]:
        return timed(*self.opened[case, name])

    def close(self) -> None:
        self.opened.clear()
        gc.collect()

    def grow(self, case: Case, name: str) -> Growth:
        from .worker import There

        with There(self.threads) as fresh:
            return fresh.grow(case, name)


def timed(call: Callable[[], Any], calls: int = 1) -> tuple[float, float]:
    """Wall and process-CPU seconds of a call, as the mean of some."""
    wall, cpu = time.perf_counter(), time.process_time()
    for _ in range(calls):
        call()
    return (time.perf_counter() - wall) / calls, (time.process_time() - cpu) / calls


# -- rounds ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Entry:
    """One row: a contender at a place, and what it computes. ref: the commit it is from, "" for this one."""

    place: Place
    contender: str
    case: Case
    ours: bool
    ref: str = ""

    @property
    def observing(self) -> bool:
        return bool(self.case.observed)


@dataclass
class Row:
    """What came of an entry: the gate's verdict, and samples in seconds, one a round, only if that is "ok"."""

    entry: Entry
    verdict: Verdict
    wall: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)
    bytes: int | None = None


def entries(
    case: Case, here: Place, base: tuple[Place, str] | None = None, backends: Sequence[str] = ()
) -> list[Entry]:
    """Who takes part in a case: the baselines, Sightline's backends (all, or those named), and the other peers.

    What is observed is measured beside the same work unobserved; peers that cannot observe take part only as baselines.
    With a base, its backends stand beside this commit's, and only the baselines of the peers.
    """
    made: list[Entry] = []
    offered = here.contenders()
    for name in sorted(offered, key=lambda name: name not in case.baselines):  # baselines first
        ours = offered[name]
        if name in BASELINES - {*case.baselines}:
            continue
        if ours and backends and name not in backends:
            continue
        if name in case.baselines:
            made.append(Entry(here, name, case.plain(), ours))
        elif ours:
            for variant in dict.fromkeys((case, case.plain())):
                made.append(Entry(here, name, variant, ours))
                if base is not None and base[0].contenders().get(name):
                    made.append(Entry(base[0], name, variant, ours, base[1]))
        elif base is None and (not case.observed or name == "eager"):
            made.append(Entry(here, name, case, ours))
    return made


def measure(taking_part: Sequence[Entry], rounds: int, tick: Callable[[str], None]) -> list[Row]:
    """Gate every entry, then time those that pass, in turns; or take their memory once. tick: told of each step."""
    rows: list[Row] = []
    for entry in taking_part:
        tick(f"{entry.contender}: checking")
        rows.append(Row(entry, entry.place.judge(entry.case, entry.contender)))
    for row in _right(rows):
        entry = row.entry
        tick(f"{entry.contender}: warming up")
        if entry.case.memory:
            growth = entry.place.grow(entry.case, entry.contender)
            row.verdict = _both(row.verdict, growth.verdict)
            if row.verdict.state == "ok":
                row.wall, row.cpu, row.bytes = [growth.wall], [growth.cpu], growth.bytes
        else:
            row.verdict = _both(row.verdict, entry.place.open(entry.case, entry.contender))
    timed_rows = [row for row in _right(rows) if not row.entry.case.memory]
    for at in range(rounds if timed_rows else 0):
        tick(f"round {at + 1} of {rounds}")
        for row in timed_rows:
            wall, cpu = row.entry.place.time(row.entry.case, row.entry.contender)
            row.wall.append(wall)
            row.cpu.append(cpu)
    for place in {id(e.place): e.place for e in taking_part}.values():
        place.close()
    return rows


def _right(rows: Sequence[Row]) -> list[Row]:
    return [row for row in rows if row.verdict.state == "ok"]


def _both(first: Verdict, second: Verdict) -> Verdict:
    return first if second.state == "ok" else Verdict("red", f"at full size, {second.why}", first.errors)


# -- memory ------------------------------------------------------------------------------------------------------------
# Not sightline's own (`sightline._resident`): what is imported in this process may be another commit's, without it.


def grown(case: Case, contender: Contender) -> Growth:
    """The growth of this process's peak memory in one call, after a small one that sets everything up."""
    contender.prepare(case.reduced(), Inputs.of(case.reduced()))()
    x = Inputs.of(case)
    call = contender.prepare(case, x)
    gc.collect()
    held = _start_peak()
    wall, cpu = time.perf_counter(), time.process_time()
    results = call()
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    peak = _peak()
    return Growth(max(0, peak - held), wall, cpu, judge_rows(case, x, results))


def _start_peak() -> int:
    """Bytes held now; the peak starts from there, where the system lets it."""
    if not sys.platform.startswith("linux"):
        return _peak()
    try:
        with open("/proc/self/clear_refs", "w") as file:
            file.write("5")
    except OSError:
        pass  # the peak since the process began, which is more, is then what counts
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def _peak() -> int:
    if not sys.platform.startswith("linux"):
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) * 1024 for line in file if line.startswith("VmHWM"))
