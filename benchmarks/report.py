"""What is said of the measurements: a table for people, JSON for programs, and the machine they were taken on."""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click
from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

from sightline.bench.machine import fingerprint
from sightline.bench.spread import Spread, ratio

from .cases import Case
from .measure import Row

ROOT = Path(__file__).resolve().parent.parent


# -- ratios ------------------------------------------------------------------------------------------------------------


def _row(rows: Sequence[Row], name: str, observing: bool, ref: str = "") -> Row | None:
    wanted = (name, observing, ref)
    return next((r for r in rows if (r.entry.contender, r.entry.observing, r.entry.ref) == wanted), None)


def ratios(case: Case, rows: Sequence[Row], row: Row) -> dict[str, Spread]:
    """What a row is measured against, where both were timed: the median and quartiles of the ratios within each round.

    "speedup over X": X's time ÷ its own. "observing": its time ÷ its own with nothing observed. "new/base": its time ÷
    that of the same contender from the base's commit.
    """
    e = row.entry
    against: dict[str, tuple[Row | None, Row | None]] = {
        f"speedup over {name}": (_row(rows, name, False), row) for name in case.baselines if name != e.contender
    }
    if e.observing:
        against["observing"] = (row, _row(rows, e.contender, False, e.ref))
    if not e.ref:
        others = (r for r in rows if r.entry.ref and (r.entry.contender, r.entry.case) == (e.contender, e.case))
        against["new/base"] = row, next(others, None)
    found = {name: ratio(a.wall, b.wall) for name, (a, b) in against.items() if a is not None and b is not None}
    return {name: spread for name, spread in found.items() if spread is not None}


# -- the table ---------------------------------------------------------------------------------------------------------


def table(measured: Sequence[tuple[Case, Sequence[Row]]]) -> Table:
    """Cases as sections, contenders as rows. Medians, with the quartiles after them."""
    made = Table(box=SIMPLE_HEAD, pad_edge=False, show_edge=False, header_style="bold")
    made.add_column("case", no_wrap=True)
    made.add_column("contender", no_wrap=True)
    columns = {"ms": "wall, ms", "cpu": "CPU, ms", "rate": "rate", "speedup": "times as fast as"}
    present = {key for case, rows in measured for row in rows for key in ratios(case, rows, row)}
    columns |= {"observing": "observing / plain"} if "observing" in present else {}
    columns |= {"new/base": "new / base"} if "new/base" in present else {}
    columns |= {"memory": "peak growth"} if any(case.memory for case, _ in measured) else {}
    for title in columns.values():
        made.add_column(title, justify="right", overflow="fold")
    for case, rows in measured:
        told = [row for row in rows if row.verdict.state != "refused"]
        for at, row in enumerate(told):
            name = case.name if at == 0 else ""
            if row.verdict.state == "red":
                made.add_row(name, Text(label(case, row), "bold red"), Text("wrong: no figure", "bold red"))
            else:
                cells = _cells(case, rows, row)
                made.add_row(name, label(case, row), *(cells.get(key, "") for key in columns))
        made.add_section()
    return made


def label(case: Case, row: Row) -> str:
    """A contender's name, and what sets it apart from others of that name."""
    e = row.entry
    return e.contender + (", plain" if case.observed and not e.observing else "") + (f" @ {e.ref}" if e.ref else "")


def _cells(case: Case, rows: Sequence[Row], row: Row) -> dict[str, str]:
    wall, cpu, found = Spread.of(row.wall), Spread.of(row.cpu), ratios(case, rows, row)
    rate = f"{case.read / wall.median / 1e9:.3g} GB/s" if case.decodes else f"{case.flops / wall.median / 1e9:.3g} GF/s"
    speedups = {name.removeprefix("speedup over "): s for name, s in found.items() if name.startswith("speedup")}
    return {
        "ms": _spread(wall, 1e3),
        "cpu": f"{_digits(cpu.median * 1e3)}",
        "rate": rate,
        "speedup": "\n".join(f"{name} {_spread(s)}" for name, s in speedups.items()),
        "memory": "" if row.bytes is None else f"{row.bytes / 1e6:,.0f} MB",
        **{name: _spread(found[name]) for name in ("observing", "new/base") if name in found},
    }


def _spread(s: Spread, unit: float = 1) -> str:
    middle, low, high = (_digits(x * unit) for x in (s.median, s.low, s.high))
    return middle if low == high else f"{middle} ({low}–{high})"


def _digits(x: float) -> str:
    """Three digits, or all before the point."""
    return f"{x:,.0f}" if x >= 100 else f"{x:.1f}" if x >= 10 else f"{x:.2f}"


def notes(measured: Sequence[tuple[Case, Sequence[Row]]]) -> list[str]:
    """Who is wrong and how; then who was left out, why, and of how many cases."""
    red, left_out = [], {}
    for case, rows in measured:
        for row in rows:
            if row.verdict.state == "red":
                red.append(f"WRONG {label(case, row)} in {case.name}: {row.verdict.why}")
            elif row.verdict.state == "refused":
                left_out.setdefault((row.entry.contender, row.verdict.why), set()).add(case.name)
    out = [f"left out: {name}, in {len(cases)} of {len(measured)}: {why}" for (name, why), cases in left_out.items()]
    return red + out


# -- JSON --------------------------------------------------------------------------------------------------------------


def to_json(measured: Sequence[tuple[Case, Sequence[Row]]], settings: dict[str, Any]) -> dict[str, Any]:
    """All of it: the machine, the settings, and every sample of every round. Times in seconds."""
    results = [
        {
            "case": case.name,
            "contender": row.entry.contender,
            "observing": row.entry.observing,
            "ref": row.entry.ref or None,
            "verdict": row.verdict.to_json(),
            "wall": {"samples": row.wall, **Spread.of(row.wall).to_json()} if row.wall else None,
            "cpu": {"samples": row.cpu, **Spread.of(row.cpu).to_json()} if row.cpu else None,
            "peak_growth_bytes": row.bytes,
            "ratios": {name: spread.to_json() for name, spread in ratios(case, rows, row).items()},
        }
        for case, rows in measured
        for row in rows
    ]
    cases = {case.name: {**case.to_json(), "flops": case.flops, "read_bytes": case.read} for case, _ in measured}
    return {
        "schema": 1,
        "fingerprint": {**fingerprint(), "commit": _commit()},
        "settings": settings,
        "cases": cases,
        "results": results,
    }


def _commit() -> str | None:
    """The commit measured, with "+" where files differ from it; None outside a repository."""

    def git(*arguments: str) -> str:
        return subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=True).stdout.strip()

    try:
        return git("rev-parse", "--short=12", "HEAD") + ("+" if git("status", "--porcelain", "--", "src") else "")
    except (OSError, subprocess.CalledProcessError):
        return None


def check_target(path: Path) -> None:
    """Raise click.UsageError where a file could not be written, before anything is measured for it."""
    if path.is_dir() or not os.access(path.absolute().parent, os.W_OK):
        raise click.UsageError(f"--json {path} cannot be written. Name a file in a folder that can.")


def write(path: Path, content: dict[str, Any]) -> None:
    """A JSON file that is there whole or not at all."""
    path = Path(os.path.realpath(path))
    handle, beside = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            json.dump(content, file, indent=1)
            file.write("\n")
        os.chmod(beside, 0o644)
        os.replace(beside, path)
    except BaseException:
        Path(beside).unlink(missing_ok=True)
        raise
