"""The run: length by length, each contender's memory alone, then rounds of time in turns.

Every contender and length has a process of its own, which is fresh when its memory is measured and is kept for the
rounds: contenders take turns (A B C A B C …), so that what else the machine does falls on all of them.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from math import ceil

import torch

from .case import Case
from .contenders import CONTENDERS
from .figures import Figures, Point
from .foresight import left_out
from .machine import available_memory, fingerprint
from .process import Fresh, Gone, Sample, interrupted_afterwards
from .settings import Settings

__all__ = ["Progress", "measure"]

#: Told of work as it goes: progress(phase, done, total).
Progress = Callable[[str, int, int | None], None]
#: Starts the process of a contender at a length, with a number of threads and the seconds after which it is given up.
Start = Callable[[Case, str, int, float], Fresh]

#: Calls shorter than this many seconds are repeated within one sample.
_SAMPLE = 0.05
#: Where a call takes this many seconds, what the first one sets up does not count, and it is the first sample too.
_LONG = 1.0


def measure(settings: Settings, *, progress: Progress | None = None, start: Start = Fresh) -> Figures:
    """Measure every contender at every length.

    Who would not fit in the available memory, or would take longer than the limit for one call, is left out with the
    reason, and results are checked before their figures count: see `Point`. `progress` is told of each length.
    """
    threads, available = settings.threads or torch.get_num_threads(), available_memory()
    points: list[Point] = []
    for tokens in settings.tokens:
        case = settings.case(tokens)
        tell = _counting(progress, f"{tokens:,} tokens")
        with ExitStack() as processes:
            racers: list[_Racer] = []
            for name in CONTENDERS:
                if absent := left_out(case, name, available, _latest(points, name), settings.limit):
                    points.append(absent)
                else:
                    with interrupted_afterwards():
                        process = processes.enter_context(start(case, name, threads, 60 + 4 * settings.limit))
                    racers.append(_Racer(case, name, process, settings))
            steps = (_Racer.ready, _Racer.first, *[_Racer.sample] * settings.repeats)
            for step in steps:
                for racer in racers:
                    tell(len(steps) * len(racers))
                    racer.take(step)
        points += [racer.point() for racer in racers]
    order = list(CONTENDERS)
    points.sort(key=lambda point: (point.tokens, order.index(point.contender)))
    return Figures(settings, fingerprint(), threads, available, points)


class _Wrong(Exception):
    """A result is not right; the message says how."""


class _Racer:
    """A contender at one length, and what is known of it so far. The first step that fails is its last."""

    def __init__(self, case: Case, name: str, process: Fresh, settings: Settings) -> None:
        self._case, self._name, self._process, self._settings = case, name, process, settings
        self._out: Point | None = None
        self._bytes: int | None = None
        self._calls = self._rounds = 0
        self._samples: list[Sample] = []

    def take(self, step: Callable[[_Racer], None]) -> None:
        """Take a step, unless an earlier one failed."""
        if self._out is not None:
            return
        try:
            step(self)
        except Gone as gone:
            self._out = Point(self._case.tokens, self._name, "failed", str(gone))
        except _Wrong as wrong:
            self._out = Point(self._case.tokens, self._name, "wrong", str(wrong))

    def ready(self) -> None:
        self._process.ready()

    def first(self) -> None:
        """The call that tells the memory and whether it is right, and how many more there is time for."""
        first = self._process.first()
        if first.fault:
            raise _Wrong(first.fault)
        self._bytes = first.bytes
        seconds = first.wall
        if seconds >= _LONG:
            self._samples.append(Sample(first.wall, first.cpu))
        if seconds < 8 * _SAMPLE:  # much of which may have been the setting up
            seconds = min(seconds, self._process.sample(1).wall)
        self._calls = max(1, ceil(_SAMPLE / max(seconds, 1e-6)))
        time_for = int(self._settings.limit / (seconds * self._calls))
        self._rounds = min(max(1, time_for), self._settings.repeats)

    def sample(self) -> None:
        """A round of time, if there is time for one more."""
        if len(self._samples) < self._rounds:
            self._samples.append(self._process.sample(self._calls))

    def point(self) -> Point:
        """What came of it."""
        if self._out is not None:
            return self._out
        wall, cpu = zip(*self._samples)
        return Point(self._case.tokens, self._name, "measured", "", wall, cpu, self._calls, self._bytes)


def _latest(points: list[Point], name: str) -> Point | None:
    """The last point of a contender that was measured."""
    return next((p for p in reversed(points) if p.contender == name and p.state == "measured"), None)


def _counting(progress: Progress | None, phase: str) -> Callable[[int], None]:
    """Tells the progress of one more step of a phase, of so many."""
    done = 0

    def tell(total: int) -> None:
        nonlocal done
        if progress is not None:
            progress(phase, done, total)
        done += 1

    return tell
