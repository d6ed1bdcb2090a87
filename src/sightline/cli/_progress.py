"""Progress on standard error, on a terminal only."""

from __future__ import annotations

import sys
from collections.abc import Generator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn

from ..models import Progress as Told

__all__ = ["shown"]

_PHASES = {
    "starting": "Starting",
    "pulling": "Fetching the model",
    "converting": "Converting the model (first time only)",
    "loading": "Loading the model",
    "searching": "Searching the documents",
    "choosing": "Choosing what to read",
    "reading": "Reading",
    "recording": "Recording",
    "saving": "Writing the trace",
    "answering": "Writing the answer",
    "summarising": "Reading and summarising",
    "writing": "Writing",
    "evidence": "Finding the evidence",
    "measuring": "Measuring the evidence",
    "checking": "Asking whether the text supports it",
    "citing": "Measuring what each sentence rests on",
    "translating": "Translating",
}

_UNITS = {"citing": "sentences"}
"""What a phase is counted in, where it is not what the others are."""


@contextmanager
def shown(unit: str = "tokens") -> Generator[Told | None]:
    """What a task reports its progress to: one line for each phase. None where standard error is no terminal.

    unit: what a phase is counted in.
    """
    if not sys.stderr.isatty():
        yield None
        return
    # Bound to today's stream: the loader of GGUF files has it replaced while it runs, to keep its own bar off it.
    console = Console(file=sys.stderr)
    columns = (
        SpinnerColumn(finished_text="[green]✓"),
        TextColumn("{task.description}"),
        BarColumn(bar_width=24),
        TextColumn("{task.fields[count]}", style="dim"),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=console, transient=True, redirect_stdout=False, redirect_stderr=False) as display:
        lines: dict[str, TaskID] = {}

        def tell(phase: str, done: int, total: int | None) -> None:
            if phase not in lines:
                for earlier in lines.values():
                    _finish(display, earlier)
                lines[phase] = display.add_task(_PHASES.get(phase, phase), total=total, count="")
            count = f"{done:,} of {total:,} {_UNITS.get(phase, unit)}" if total is not None else ""
            display.update(lines[phase], completed=done, total=total, count=count)

        yield tell


def _finish(display: Progress, line: TaskID) -> None:
    """A phase ends when the next one begins, whether or not it used all that it might have."""
    done = max(1, int(display.tasks[line].completed))
    display.update(line, completed=done, total=done)
