"""This side of a fresh process: it is started, asked, and always ended."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import tempfile
from collections.abc import Generator
from contextlib import contextmanager, suppress
from dataclasses import asdict
from threading import TIMEOUT_MAX, Timer, current_thread, main_thread
from types import FrameType, TracebackType
from typing import Any, NamedTuple

from .case import Case

__all__ = ["First", "Fresh", "Gone", "Sample", "interrupted_afterwards"]

#: It imports what this process would: the same packages from the same places.
_START = "import json, sys; sys.path[:] = json.loads(sys.argv[1]); from sightline.bench.worker import main; main()"


class Gone(Exception):
    """The process cannot answer; the message says why."""


class First(NamedTuple):
    """The first call at full length. bytes: None where the system does not tell. fault: "" where it is right."""

    wall: float
    cpu: float
    bytes: int | None
    fault: str


class Sample(NamedTuple):
    """Seconds of one call: on the clock, and of all processors together."""

    wall: float
    cpu: float


class Fresh:
    """One contender at one length, in a process that has computed nothing else.

    It takes its time to start, and does so while others are started: `ready` waits for it. patience: the seconds after
    which a call is given up.
    """

    def __init__(self, case: Case, contender: str, threads: int, patience: float) -> None:
        self._patience = min(patience, TIMEOUT_MAX)
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 (closed with the process)
        self._process = subprocess.Popen(
            [sys.executable, "-c", _START, json.dumps(sys.path)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
            start_new_session=True,  # Ctrl-C is for the process that the user started, which ends this one
        )
        self._send({"case": asdict(case), "contender": contender, "threads": threads})

    def ready(self) -> None:
        """Wait until it can be asked. Raises Gone, as all of these do."""
        self._answer()

    def first(self) -> First:
        self._send("first")
        return First(**self._answer())

    def sample(self, calls: int) -> Sample:
        """The mean of some calls."""
        self._send(calls)
        return Sample(**self._answer())

    def close(self) -> None:
        """End the process, whatever it does."""
        self._process.kill()
        self._process.communicate()
        self._errors.close()

    def __enter__(self) -> Fresh:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _send(self, request: Any) -> None:
        assert self._process.stdin is not None
        with suppress(BrokenPipeError):  # the answer then says why
            self._process.stdin.write(json.dumps(request) + "\n")
            self._process.stdin.flush()

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        timer = Timer(self._patience, self._process.kill)
        timer.daemon = True  # Ctrl-C may come before the timer can be cancelled; no exit is to wait for it
        try:
            timer.start()
            line = self._process.stdout.readline()
            late = not timer.is_alive()
        finally:
            timer.cancel()
        if not line:
            raise Gone(f"was stopped after {self._patience:,.0f} s" if late else self._end())
        answer = json.loads(line)
        if "error" in answer:
            raise Gone(f"failed: {answer['error']}")
        return answer

    def _end(self) -> str:
        """How the process ended, with its last words."""
        code = self._process.wait()
        self._errors.seek(0)
        words = self._errors.read().decode(errors="replace").strip().splitlines()
        how = "was killed, perhaps for want of memory" if code == -9 else f"ended its process (exit code {code})"
        return f"{how}: {words[-1]}" if words else how


@contextmanager
def interrupted_afterwards() -> Generator[None]:
    """Ctrl-C waits until the block is left.

    Else a process that is being started when it comes is nobody's, and nobody ends it. Only the main thread hears
    Ctrl-C; in another there is nothing to wait for.
    """
    before = signal.getsignal(signal.SIGINT)
    if current_thread() is not main_thread() or not callable(before):
        yield
        return
    heard: list[tuple[int, FrameType | None]] = []
    signal.signal(signal.SIGINT, lambda number, frame: heard.append((number, frame)))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
        if heard:
            before(*heard[0])
