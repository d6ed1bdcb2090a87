"""The run: who takes part, what becomes of who fails, and that every process ends."""

from __future__ import annotations

import os
import signal
import threading
from dataclasses import dataclass, field
from functools import partial

import pytest

from sightline.bench import Figures, Settings, doubling, measure
from sightline.bench.case import Case
from sightline.bench.contenders import CONTENDERS
from sightline.bench.process import First, Fresh, Gone, Sample
from sightline.errors import SpecError


@dataclass
class Imagined(Fresh):
    """A process that takes the time it is told, and says what it is told."""

    case: Case
    contender: str
    threads: int
    patience: float
    seconds: float = 0.5
    fault: str = ""
    gone: str = ""
    open: list[Imagined] = field(default_factory=list)

    def ready(self) -> None:
        self.open.append(self)

    def first(self) -> First:
        if self.gone:
            raise Gone(self.gone)
        return First(self.seconds, self.seconds, 1000, self.fault)

    def sample(self, calls: int) -> Sample:
        return Sample(self.seconds, self.seconds)

    def close(self) -> None:
        self.open.remove(self)


def test_every_contender_is_measured_at_every_length_and_told_of() -> None:
    told: list[tuple[str, int, int | None]] = []
    figures = measure(
        Settings(tokens=(64, 32), repeats=2, threads=1), progress=lambda *what: told.append(what), start=Fresh
    )
    assert [(p.tokens, p.contender) for p in figures.points] == [(n, c) for n in (32, 64) for c in CONTENDERS]
    for point in figures.points:
        assert (point.state, point.why) == ("measured", "")
        assert len(point.wall) == len(point.cpu) == 2
        assert point.seconds > 0
    assert told[0] == ("32 tokens", 0, 16)
    assert told[-1] == ("64 tokens", 15, 16)


def test_who_is_wrong_or_gone_has_no_figures_and_the_others_do() -> None:
    still: list[Imagined] = []

    def start(case: Case, name: str, threads: int, patience: float) -> Imagined:
        fault = "the output is off" if name == "sightline" else ""
        return Imagined(case, name, threads, patience, 0.5, fault, "was killed" if name == "eager" else "", still)

    figures = measure(Settings(tokens=(64,)), start=start)
    states = {p.contender: (p.state, p.why, len(p.wall)) for p in figures.points}
    assert states == {
        "eager": ("failed", "was killed", 0),
        "sdpa": ("measured", "", 3),
        "sightline": ("wrong", "the output is off", 0),
        "observing": ("measured", "", 3),
    }
    wrong = next(p for p in figures.points if p.state == "wrong")
    assert (figures.time_ratio(wrong), figures.memory_ratio(wrong)) == (None, None)
    assert still == []


def test_a_contender_takes_no_longer_than_the_limit() -> None:
    def start(case: Case, name: str, threads: int, patience: float) -> Imagined:
        return Imagined(case, name, threads, patience, 8 if name == "eager" else 2.5)

    figures = measure(Settings(tokens=(64, 128), limit=10, repeats=5), start=start)
    rounds = {(p.tokens, p.contender): len(p.wall) for p in figures.points}
    assert rounds[64, "eager"] == 1
    assert rounds[64, "sdpa"] == 4
    assert rounds[128, "eager"] == 0
    assert rounds[128, "sdpa"] == 4
    few = measure(Settings(tokens=(64,), limit=10, repeats=2), start=start)
    assert [len(p.wall) for p in few.points] == [1, 2, 2, 2]


def test_an_interrupt_ends_every_process() -> None:
    started: list[Fresh] = []

    def start(case: Case, name: str, threads: int, patience: float) -> Fresh:
        if len(started) == 2:
            raise KeyboardInterrupt
        started.append(Fresh(case, name, threads, patience))
        return started[-1]

    with pytest.raises(KeyboardInterrupt):
        measure(Settings(tokens=(64,)), start=start)
    assert [process._process.returncode for process in started] == [-9, -9]


def test_an_interrupt_while_an_answer_is_awaited_leaves_no_thread_to_wait_for(monkeypatch: pytest.MonkeyPatch) -> None:
    timers: list[threading.Timer] = []

    class Interrupted(threading.Timer):
        def start(self) -> None:
            super().start()
            timers.append(self)
            raise KeyboardInterrupt

    monkeypatch.setattr("sightline.bench.process.Timer", Interrupted)
    with Fresh(Case(64), "eager", 1, patience=600) as process, pytest.raises(KeyboardInterrupt):
        process.ready()
    timers[0].join(10)
    assert not timers[0].is_alive()
    assert timers[0].daemon


def test_a_process_says_why_it_is_gone() -> None:
    with Fresh(Case(64), "eager", 1, patience=60) as process:
        process.ready()
        process._process.kill()
        with pytest.raises(Gone, match="was killed, perhaps for want of memory"):
            process.first()
    with Fresh(Case(64, dtype="float31"), "eager", 1, patience=60) as process, pytest.raises(Gone, match="float31"):
        process.ready()
    with Fresh(Case(64), "eager", 1, patience=0.01) as process, pytest.raises(Gone, match="was stopped after"):
        process.ready()


def test_lengths_double_up_to_the_longest() -> None:
    assert doubling(5000) == (512, 1024, 2048, 4096)
    assert doubling()[-1] == 65_536
    with pytest.raises(SpecError, match="they double from 512"):
        doubling(511)


@pytest.mark.parametrize(
    ("wrong", "why"),
    [
        ({"tokens": ()}, "of no length"),
        ({"tokens": (512, 3)}, "a length of 3 tokens"),
        ({"dtype": "float16"}, "dtype is 'float16'"),
        ({"heads": 0}, "heads is 0"),
        ({"repeats": -1}, "repeats is -1"),
        ({"threads": 0}, "threads is 0"),
        ({"limit": float("nan")}, "limit is nan"),
        ({"limit": float("inf")}, "limit is inf"),
    ],
)
def test_settings_that_make_no_sense_are_refused(wrong: dict[str, object], why: str) -> None:
    with pytest.raises(SpecError, match=why):
        Settings(**wrong)  # type: ignore[arg-type]


def test_an_interrupt_while_a_process_starts_ends_that_process_too() -> None:
    still: list[Imagined] = []

    def interrupted(case: Case, contender: str, threads: int, patience: float) -> Imagined:
        process = Imagined(case, contender, threads, patience, open=still)
        still.append(process)
        os.kill(os.getpid(), signal.SIGINT)
        return process

    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        measure(Settings(tokens=(64,), repeats=1), start=interrupted)
    assert still == []
    assert signal.getsignal(signal.SIGINT) is before


def test_a_run_in_another_thread_leaves_interrupts_alone() -> None:
    figures: list[Figures] = []
    start = partial(Imagined, open=[])
    thread = threading.Thread(
        target=lambda: figures.append(measure(Settings(tokens=(64,), repeats=1, threads=1), start=start))
    )
    thread.start()
    thread.join()
    assert {point.state for point in figures[0].points} == {"measured"}
