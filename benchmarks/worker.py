"""Contenders in another process: a fresh one, or one that has another commit's sightline.

Run as `python -m benchmarks.worker THREADS [SOURCES]`, it answers one JSON request a line with one JSON answer a line.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from importlib.machinery import BuiltinImporter, FrozenImporter, PathFinder
from pathlib import Path
from typing import Any

from .cases import Case
from .gate import Verdict
from .measure import Growth, Here, grown

ROOT = Path(__file__).resolve().parent.parent


class There:
    """A place in another process. sources: the folder its sightline is imported from; this one's if None."""

    def __init__(self, threads: int, sources: Path | None = None) -> None:
        self.threads, self.sources = threads, sources
        command = [sys.executable, "-m", "benchmarks.worker", str(threads), *([str(sources)] if sources else [])]
        path = [str(sources)] if sources else []
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join([*path, *filter(None, [os.getenv("PYTHONPATH")])])}
        self.process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=ROOT,
            env=environment,
            start_new_session=True,  # Ctrl-C is for the process that the user started, which ends this one
        )
        self.offered: dict[str, bool] | None = None

    def __enter__(self) -> There:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.communicate()

    def ask(self, what: str, *arguments: Any) -> Any:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.write(json.dumps([what, *arguments]) + "\n")
            self.process.stdin.flush()
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError(f"a measuring process ended in the middle of {what!r}; its last words are above.")
        answer = json.loads(line)
        if "error" in answer:
            raise RuntimeError(f"a measuring process failed in {what!r}: {answer['error']}")
        return answer["answer"]

    def contenders(self) -> dict[str, bool]:
        if self.offered is None:
            self.offered = self.ask("contenders")
        return self.offered or {}

    def judge(self, case: Case, name: str) -> Verdict:
        return Verdict(**self.ask("judge", case.to_json(), name))

    def open(self, case: Case, name: str) -> Verdict:
        return Verdict(**self.ask("open", case.to_json(), name))

    def time(self, case: Case, name: str) -> tuple[float, float]:
        wall, cpu = self.ask("time", case.to_json(), name)
        return wall, cpu

    def close(self) -> None:
        self.ask("close")

    def grow(self, case: Case, name: str) -> Growth:
        """In this process if it is fresh, that is, if it has computed nothing yet; else in another like it."""
        if self.sources is not None:
            with There(self.threads, self.sources) as fresh:
                return fresh._grow(case, name)
        return self._grow(case, name)

    def _grow(self, case: Case, name: str) -> Growth:
        answer = self.ask("grow", case.to_json(), name)
        return Growth(answer["bytes"], answer["wall"], answer["cpu"], Verdict(**answer["verdict"]))


def answer(here: Here, what: str, *arguments: Any) -> Any:
    """What a request is answered with."""
    match what, arguments:
        case "contenders", ():
            return here.contenders()
        case (("judge" | "open" | "time" | "grow"), (given, name)):
            case_ = Case.from_json(given)
            if what == "grow":
                growth = grown(case_, here.offered[name])
                return {**vars(growth), "verdict": growth.verdict.to_json()}
            if what == "time":
                return here.time(case_, name)
            return (here.judge if what == "judge" else here.open)(case_, name).to_json()
        case "close", ():
            return here.close()
        case _:
            raise ValueError(f"there is no request {what!r}")


def import_from(sources: Path) -> None:
    """Import sightline from a folder, whatever an editable installation would have instead."""
    ordinary: list[Any] = [BuiltinImporter, FrozenImporter, PathFinder]
    sys.meta_path[:] = [finder for finder in sys.meta_path if finder in ordinary]
    sys.path.insert(0, str(sources))
    import sightline

    found = Path(sightline.__file__).resolve()
    if not found.is_relative_to(sources.resolve()):
        raise ImportError(f"sightline was to be imported from {sources}; it came from {found}.")


def main() -> None:
    replies = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what a peer prints is no answer
    threads, sources = int(sys.argv[1]), sys.argv[2:]
    if sources:
        import_from(Path(sources[0]))
    here = Here(threads)
    for line in sys.stdin:
        try:
            reply = {"answer": answer(here, *json.loads(line))}
        except Exception as error:
            reply = {"error": f"{type(error).__name__}: {error}"}
        replies.write(json.dumps(reply) + "\n")
        replies.flush()


if __name__ == "__main__":
    main()
