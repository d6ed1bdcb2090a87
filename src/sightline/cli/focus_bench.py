"""`sightline focus-bench`"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import click
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from ._output import check_target, write
from ._page import page
from ._progress import shown

if TYPE_CHECKING:
    from ..bench.focus import Mean, Report

__all__ = ["command"]


@click.command("focus-bench")
@click.option("--tiers", default="ABCF", show_default=True, metavar="LETTERS", help="Which kinds of texts, see below.")
@click.option("--items", type=int, default=20, show_default=True, help="Questions of each tier.")
@click.option("--thorough", type=int, default=0, show_default=True, help="As many of each also by the dear methods.")
@click.option("--smoke", is_flag=True, help="Twelve short questions of tiers A and C, and nothing else.")
@click.option("--squad", metavar="FILE", help="SQuAD's passages, for tiers E and L: JSON lines, gzipped or not.")
@click.option("--seed", type=int, default=0, show_default=True, help="Other questions for another seed.")
@click.option("--model", metavar="NAME", help="The model that answers.  [default: the embedded one]")
@click.option("--dtype", metavar="DTYPE", help="float32 or bfloat16.  [default: the model's own]")
@click.option("--rows", metavar="FILE", help="Keep each question's result, a line of JSON; go on from there next time.")
@click.option("--json", "as_json", is_flag=True, help="Print the reports as JSON, and nothing else.")
@click.option("-o", "--output", metavar="FILE", help="Write the result to a file instead of printing it.")
@click.option("--debug", is_flag=True, help="Show a traceback when something goes wrong.")
def command(
    tiers: str,
    items: int,
    thorough: int,
    smoke: bool,
    squad: str | None,
    seed: int,
    model: str | None,
    dtype: str | None,
    rows: str | None,
    as_json: bool,
    output: str | None,
    debug: bool,
) -> int:
    """Measure whether the sentences shown as evidence are those that an answer rests on.

    The model answers questions about short texts; each sentence is taken out in turn, and the fall of the answer's
    log-probability is the truth that Sightline's ranking and others are held against. The exit code is 1 where what is
    shown first is no better than chance.

    \b
    A  12 sentences, one asked about       E  SQuAD, 4 to 10 sentences
    B  the answer takes two sentences      L  SQuAD, 30 to 60 sentences
    C  decoys and contradictions           F  no sentence answers
    D  one sentence in long filler
    """
    from .. import models
    from ..bench.focus import Settings, run

    settings = Settings(tiers, items, thorough, seed, model or models.DEFAULT, dtype, squad, smoke)
    check_target(output)
    if rows is not None:
        check_target(rows)
    with shown("questions") as progress:
        reports = run(settings, rows=rows, progress=progress)
    if as_json:
        write(json.dumps([report.to_dict() for report in reports], ensure_ascii=False, indent=2), output)
    else:
        write(page(lambda console: _page(reports, console), output), output)
    return int(any(report.passed is False for report in reports if report.tier != "F"))


def _page(reports: list[Report], console: Console) -> None:
    from ..bench.focus import GATE, TIERS

    for report in reports:
        console.print(Text(f"{report.tier}: {TIERS[report.tier]}", "bold"))
        console.print(
            f"In {report.counted} of {report.tried} questions the answer rests on some sentence: without it, its "
            f"log-probability falls by {GATE:g} nat or more.",
            style="dim",
        )
        if report.counted:
            console.print(_methods(report))
        if report.tried:
            console.print(_costs(report))
        if report.passed is False:
            console.print("What is shown first is no better than chance.", style="bold red")
        console.print()
    console.print("Means, with 95 % bootstrap intervals of hit@1; costs in prefills of the same prompt.", style="dim")


def _methods(report: Report) -> Table:
    from ..bench.focus import METRICS

    table = Table(box=SIMPLE_HEAD, pad_edge=False, show_edge=False, header_style="bold")
    table.add_column("method", no_wrap=True)
    there = [metric for metric in METRICS if any(metric in found for found in report.methods.values())]
    for metric in there:
        table.add_column(metric, justify="right", no_wrap=True)
    by_drop = sorted(report.methods, key=lambda m: report.methods[m]["drop"].mean)
    for method in by_drop:
        table.add_row(method, *(_cell(metric, report.methods[method].get(metric)) for metric in there))
    return table


def _cell(metric: str, value: Mean | None) -> str:
    if value is None:
        return ""
    return f"{value.mean:.2f}" + (f" ({value.low:.2f}–{value.high:.2f})" if metric == "hit@1" else "")


def _costs(report: Report) -> Table:
    table = Table(box=SIMPLE_HEAD, pad_edge=False, show_edge=False, header_style="bold")
    table.add_column("cost in prefills", no_wrap=True)
    table.add_column("token steps", justify="right")
    table.add_column("CPU time", justify="right")
    for stage, (steps, seconds) in report.costs.items():
        if stage != "prefill":
            table.add_row(stage, f"{steps.mean:.2f}", f"{seconds.mean:.2f}")
    return table
