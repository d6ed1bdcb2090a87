"""`python -m benchmarks.run`: Sightline and its peers, measured in turns, none before it is right."""

from __future__ import annotations

import signal
import sys
import warnings
from collections.abc import Callable, Generator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from . import base as another
from .cases import CASES, Case, select
from .measure import Here, Place, Row, entries, measure
from .peers import Contender, contenders
from .report import check_target, notes, table, to_json, write
from .worker import There


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--case", "patterns", multiple=True, metavar="PATTERN", help="Only cases of this name (* and ?); repeatable."
)
@click.option("--quick", is_flag=True, help="A few cases, without the slowest peers, in 5 rounds.")
@click.option("--rounds", type=click.IntRange(1), help="Rounds of time for each case.  [default: 11, or 5 if quick]")
@click.option("--threads", type=click.IntRange(1), default=1, show_default=True, help="Threads for every contender.")
@click.option(
    "--backend", "backends", multiple=True, metavar="NAME", help="Only these of Sightline's backends; repeatable."
)
@click.option("--base", metavar="REF", help="Measure another commit's Sightline beside this one.")
@click.option("--json", "target", type=click.Path(path_type=Path), metavar="FILE", help="Write every sample to a file.")
@click.option("--list", "listing", is_flag=True, help="List the cases and who can be measured here, and stop.")
def main(
    patterns: tuple[str, ...],
    quick: bool,
    rounds: int | None,
    threads: int,
    backends: tuple[str, ...],
    base: str | None,
    target: Path | None,
    listing: bool,
) -> None:
    """Measure Sightline beside its peers, in interleaved rounds.

    Each contender is first compared with the definition in float64. One that is wrong gets no figure, and the exit
    status is 1.
    """
    warnings.filterwarnings("ignore", module="torch|jax|onnx")
    cases = select(patterns, quick)
    if not cases:
        raise click.UsageError(f"no case matches {' or '.join(patterns)}. --list shows all of them.")
    offered = contenders()
    _check_backends(backends, offered)
    out = Console(width=None if sys.stdout.isatty() else 240)
    if listing:
        _list(out, cases, offered)
        return
    if target is not None:
        check_target(target)
    rounds = rounds or (5 if quick else 11)
    kept = {name: c for name, c in offered.items() if not (quick and c.slow)}
    measured: list[tuple[Case, Sequence[Row]]] = []
    old: tuple[Place, str] | None = None
    commit = None
    try:
        with ExitStack() as stack:
            stack.callback(signal.signal, signal.SIGTERM, signal.signal(signal.SIGTERM, _interrupt))
            tick = stack.enter_context(_progress(len(cases)))
            here = Here(threads, kept)
            if base is not None:
                tick(0, f"preparing {base}")
                commit = another.resolve(base)
                folder = stack.enter_context(another.sources(commit))
                old = stack.enter_context(There(threads, folder)), base
            for case in cases:
                taking_part = entries(case, here, old, backends)
                rows = measure(taking_part, rounds, lambda step, case=case: tick(0, f"{case.name} · {step}"))
                measured.append((case, rows))
                tick(1, case.name)
    except another.BaseError as error:
        raise click.UsageError(f"--base {base}: {error}") from error
    except KeyboardInterrupt:
        click.echo("Interrupted: nothing was written.", err=True)
        sys.exit(130)
    finally:
        if measured:
            _tell(out, measured, threads, rounds, quick)
    if target is not None:
        settings = {"rounds": rounds, "threads": threads, "quick": quick, "patterns": patterns, "backends": backends}
        settings |= {"base": base, "base_commit": commit}
        write(target, to_json(measured, settings))
    if any(row.verdict.state == "red" for _, rows in measured for row in rows):
        sys.exit(1)


def _interrupt(*_: Any) -> None:
    raise KeyboardInterrupt


def _check_backends(names: Sequence[str], offered: dict[str, Contender]) -> None:
    ours = [name for name, c in offered.items() if c.ours]
    for name in names:
        if name not in ours:
            raise click.UsageError(f"--backend {name} is none of Sightline's: {', '.join(ours)}.")
        if offered[name].absent:
            raise click.UsageError(f"--backend {name} cannot run here: {offered[name].absent}.")


@contextmanager
def _progress(total: int) -> Generator[Callable[[int, str], None]]:
    """A bar on a terminal, nothing elsewhere."""
    if not sys.stderr.isatty():
        yield lambda steps, said: None
        return
    columns = (
        SpinnerColumn(),
        BarColumn(24),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.description}"),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("", total=total)
        yield lambda steps, said: bar.update(task, advance=steps, description=said)


def _tell(out: Console, measured: Sequence[tuple[Case, Sequence[Row]]], threads: int, rounds: int, quick: bool) -> None:
    out.print(table(measured))
    once = " Memory: one call, in a fresh process." if any(case.memory for case, _ in measured) else ""
    said = f"\nMedians of {rounds} interleaved rounds, quartiles in parentheses; threads: {threads}.{once}"
    out.print(said, style="dim", highlight=False)
    for note in notes(measured):
        out.print(note, style="bold red" if note.startswith("WRONG") else "dim", highlight=False, markup=False)
    if quick:
        slow = ", ".join(name for name, c in contenders().items() if c.slow)
        out.print(f"--quick measures {len(select((), True))} of {len(CASES)} cases, without {slow}.", style="dim")


def _list(out: Console, cases: Sequence[Case], offered: dict[str, Contender]) -> None:
    for case in cases:
        heads = f"h {case.h}" if case.h == case.hk else f"h {case.h}, hk {case.hk}"
        asked = f"; observes {', '.join(name for name, _ in case.observed)}" if case.observed else ""
        shape = f"{heads}, {case.n:,} × {case.m:,}, d {case.d}{asked}"
        out.print(f"{case.name:32} {shape}", highlight=False, markup=False)
    out.print()
    for name, c in offered.items():
        state = f"not available: {c.absent}" if c.absent else "available"
        out.print(f"{name:12} {'Sightline' if c.ours else 'peer':10} {state}", highlight=False, markup=False)


if __name__ == "__main__":
    main()
