"""`sightline bench`"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import click
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from ..errors import InputError
from ._output import check_target, replace, write
from ._page import page
from ._progress import shown

if TYPE_CHECKING:
    from ..bench import Figures, Point

__all__ = ["command"]


@click.command("bench")
@click.option("--max-tokens", type=int, metavar="N", help="The longest; lengths double from 512.  [default: 65536]")
@click.option("--tokens", metavar="N,N,…", help="The lengths themselves instead.")
@click.option("--heads", type=int, default=1, show_default=True, help="Attention heads.")
@click.option("--dtype", default="float32", show_default=True, help="float32 or bfloat16.")
@click.option(
    "--causal/--full", default=True, show_default=True, help="No token sees those after it, or every token sees all."
)
@click.option("--threads", type=int, help="Threads of each contender.  [default: PyTorch's choice]")
@click.option("--repeats", type=int, default=3, show_default=True, help="Rounds of time at each length.")
@click.option(
    "--limit",
    type=float,
    default=15,
    show_default=True,
    metavar="SECONDS",
    help="Time for one contender at one length: fewer rounds, or none where one call would take longer.",
)
@click.option("--plot", metavar="FILE.png", help='Draw the picture too (needs "sightline[plot]").')
@click.option("--json", "as_json", is_flag=True, help="Print every sample as JSON, and nothing else.")
@click.option("-o", "--output", metavar="FILE", help="Write the result to a file instead of printing it.")
@click.option("--debug", is_flag=True, help="Show a traceback when something goes wrong.")
def command(
    max_tokens: int | None,
    tokens: str | None,
    heads: int,
    dtype: str,
    causal: bool,
    threads: int | None,
    repeats: int,
    limit: float,
    plot: str | None,
    as_json: bool,
    output: str | None,
    debug: bool,
) -> int:
    """Measure time and peak memory of attention against its length, on this machine.

    Four contenders take turns: eager attention, which stores the matrix; PyTorch's SDPA, which cannot say where it
    looked; Sightline; and Sightline observing the entropy, the peak, the eight strongest keys, the attention received
    and a block map. Results are checked against float64 before their figures count; one that is wrong has none, and
    the exit code is 1. Two to three minutes on two cores.
    """
    from ..bench import LONGEST, Settings, check_drawing, doubling, draw, measure

    lengths = _lengths(tokens) if tokens is not None else doubling(LONGEST if max_tokens is None else max_tokens)
    if tokens is not None and max_tokens is not None:
        raise InputError(
            "--tokens and --max-tokens were both given; the one lists the lengths and the other makes a list. Give one."
        )
    settings = Settings(lengths, heads, dtype=dtype, causal=causal, threads=threads, repeats=repeats, limit=limit)
    check_target(output)
    if plot is not None:
        _check_picture(plot, output)
        check_drawing()
    with shown("steps") as progress:
        figures = measure(settings, progress=progress)
    if plot is not None:
        replace(plot, draw(figures))
    if as_json:
        write(json.dumps(figures.to_dict(), ensure_ascii=False, indent=2), output)
    else:
        write(page(lambda console: _page(figures, console), output), output)
    return int(any(point.state == "wrong" for point in figures.points))


def _lengths(text: str) -> tuple[int, ...]:
    """Numbers of tokens, separated by commas. Raises InputError for anything else."""
    try:
        return tuple(int(number) for number in text.split(","))
    except ValueError:
        raise InputError(
            f"the lengths {text!r} were asked for; lengths are numbers of tokens, separated by commas. "
            "Write them as in --tokens 1024,4096,16384."
        ) from None


def _check_picture(plot: str, output: str | None) -> None:
    """Raise InputError where the picture could not be written."""
    check_target(plot)
    if not plot.lower().endswith(".png"):
        raise InputError(f"the picture was to be written to {plot!r}; it is a PNG. Name a file that ends in .png.")
    if plot == output:
        raise InputError(f"the picture and the result were both to be written to {plot!r}. Name two files.")


def _page(figures: Figures, console: Console) -> None:
    console.print(_table(figures))
    console.print()
    for point in figures.points:
        if point.state != "measured":
            style = "bold red" if point.state == "wrong" else "dim"
            console.print(f"{_label(point)} at {point.tokens:,} tokens {_outcome(point)}.", style=style, markup=False)
    console.print(f"{figures.subject}, PyTorch {figures.machine['torch']}", style="dim", markup=False)
    console.print("Medians. CPU: all cores together. Peak growth: beside the inputs, in a fresh process.", style="dim")


def _table(figures: Figures) -> Table:
    """Lengths as sections, contenders as rows."""
    table = Table(box=SIMPLE_HEAD, pad_edge=False, show_edge=False, header_style="bold")
    table.add_column("tokens", justify="right", no_wrap=True)
    table.add_column("contender", no_wrap=True)
    for title in ("time", "CPU", "× SDPA", "peak growth", "× SDPA"):
        table.add_column(title, justify="right", no_wrap=True)
    for tokens in figures.settings.tokens:
        points = [point for point in figures.points if point.tokens == tokens]
        for at, point in enumerate(points):
            table.add_row("" if at else f"{tokens:,}", _label(point), *_cells(figures, point))
        table.add_section()
    return table


def _cells(figures: Figures, point: Point) -> tuple[str | Text, ...]:
    """Time, CPU time, time over SDPA's, growth of memory, and that over SDPA's; or why there are none."""
    from ..bench import Spread, digits, seconds, size

    if point.state != "measured":
        time = f"would take {seconds(point.takes)}" if point.takes else "" if point.needs else point.state
        memory = f"would need {size(point.needs)}" if point.needs else ""
        return Text(time, "bold red" if point.state == "wrong" else "dim"), "", "", Text(memory, "dim")
    time, memory = figures.time_ratio(point), figures.memory_ratio(point)
    return (
        seconds(point.seconds),
        seconds(Spread.of(point.cpu).median),
        digits(time.median) if time else "",
        size(point.bytes) if point.bytes is not None else "",
        digits(memory) if memory is not None else "",
    )


def _outcome(point: Point) -> str:
    return {"left out": "is left out: it ", "failed": "", "wrong": "gave a wrong result: "}[point.state] + point.why


def _label(point: Point) -> str:
    from ..bench import CONTENDERS

    return CONTENDERS[point.contender].label
