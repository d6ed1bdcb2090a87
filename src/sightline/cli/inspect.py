"""`sightline inspect TRACE`"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import click
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from ._map import draw, maps
from ._output import check_target, write
from ._page import page

if TYPE_CHECKING:
    from ..recording import Kind, Tokens, Trace
    from ..recording.overview import Head

__all__ = ["command"]


@click.command("inspect")
@click.argument("trace")
@click.option("--count", type=click.IntRange(min=1), default=8, show_default=True, help="Rows of each table.")
@click.option(
    "--map",
    "which",
    is_flag=False,
    flag_value="all",
    metavar="[LAYER.HEAD]",
    help="Draw a small map too: of all heads, or of one, such as --map 3.1. Write it after TRACE.",
)
@click.option("--verify", is_flag=True, help="Read all of the file first, and compare every checksum.")
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON, with every head, and nothing else.")
@click.option("-o", "--output", metavar="FILE", help="Write the result to a file instead of printing it.")
@click.option("--debug", is_flag=True, help="Show a traceback when something goes wrong.")
def command(
    trace: str, count: int, which: str | None, verify: bool, as_json: bool, output: str | None, debug: bool
) -> None:
    """Show what stands out in TRACE, a file written by `sightline record`.

    Sinks and the tokens that receive most attention, the sharpest and the flattest heads, local heads and those that
    look at what is about to be copied, and the strongest single weights. Tables whose observations were not recorded
    are left out.
    """
    check_target(output)
    # These import torch: after the options are known to be good, and not for --help.
    from ..recording import Trace

    opened = Trace.load(trace)
    if verify:
        opened.verify()
    if as_json:
        data = _data(opened, count)
        if which is not None:
            data["maps"] = [found.to_dict() for found in maps(opened, which, _kinds(opened), _WIDEST)]
        write(json.dumps(data, ensure_ascii=False, indent=2), output)
    else:
        write(page(lambda console: _page(opened, count, which, console), output), output)


def _data(trace: Trace, count: int) -> dict[str, Any]:
    from ..recording import overview

    kinds = _kinds(trace)
    return {
        "model": trace.model,
        "reductions": trace.reductions,
        "tokens": None if trace.tokens is None else len(trace.tokens),
        "source": None if trace.source is None else len(trace.source),
        "modules": {name: len(calls) for name, calls in trace.items()},
        "sinks": {kind: overview.sinks(trace, kind) for kind in kinds},
        "most_received": {
            kind: [{"position": at, "token": text, "share": share} for at, text, share in _received(trace, kind, count)]
            for kind in kinds
        },
        "heads": [vars(head) for head in overview.heads(trace)],
        "pairs": [vars(pair) for pair in overview.pairs(trace, count)],
    }


def _page(trace: Trace, count: int, which: str | None, console: Console) -> None:
    from ..recording import overview

    # Before the tables, since what was asked for may not be there.
    drawn = [] if which is None else maps(trace, which, _kinds(trace), min(_WIDEST, console.width))

    calls = sum(map(len, trace.values()))
    read = "" if trace.source is None else f"{len(trace.source):,} source tokens, "
    tokens = "" if trace.tokens is None else f"{len(trace.tokens):,} tokens, "
    what = f"{trace.model or 'A model'}: {read}{tokens}{len(trace)} modules, {calls:,} calls"
    console.print(what, style="bold", markup=False)
    for kind in _kinds(trace):
        rows = _received(trace, kind, count)
        if rows:
            sinks = overview.sinks(trace, kind)
            table = _table(f"Tokens that receive most ({_WHOSE[kind]})", "position", "token", "of all attention", "")
            for at, text, share in rows:
                table.add_row(f"{at:,}", text, f"{share:.1%}", "sink" if at in sinks else "")
            console.print(table)
    heads = overview.heads(trace)
    for title, key, unit, largest in (
        ("Sharpest heads", "entropy", "mean entropy", False),
        ("Flattest heads", "entropy", "mean entropy", True),
        ("Local heads", "local", f"rows that look at the {overview.LOCAL} nearest most", True),
        ("Retrieval-like heads", "retrieval", "rows that look most at what comes next", True),
        ("Heads with the strongest sinks", "sink", "of its attention to one key", True),
    ):
        said = _ranked(heads, key, count, largest)
        if said:
            table = _table(title, "module", "head", unit)
            for head in said:
                value = getattr(head, key)
                table.add_row(head.module, str(head.head), f"{value:.2f} nats" if key == "entropy" else f"{value:.1%}")
            console.print(table)
    pairs = overview.pairs(trace, count)
    if pairs:
        table = _table("Strongest pairs, sinks and a token's own left out", "module", "head", "from", "to", "weight")
        for pair in pairs:
            rows, columns = _sides(trace, pair.kind)
            source = "" if pair.query is None else f"{pair.query:,} {_token(rows, pair.query)}"
            table.add_row(
                pair.module, str(pair.head), source, f"{pair.key:,} {_token(columns, pair.key)}", f"{pair.weight:.3f}"
            )
        console.print(table)
    for found in drawn:
        whose = f"Mean map of {found.heads:,} heads" if found.head is None else f"{found.module}, head {found.head}"
        draw(found, f"{whose} ({_WHOSE[found.kind]})", console)


_WIDEST = 64
"""Blocks across a map."""

_WHOSE = {"encoder": "encoder", "decoder": "self-attention", "cross": "cross-attention"}


def _kinds(trace: Trace) -> list[Kind]:
    order: tuple[Kind, ...] = ("encoder", "decoder", "cross")
    there = {call.kind for calls in trace.values() for call in calls}
    return [kind for kind in order if kind in there]


def _sides(trace: Trace, kind: Kind) -> tuple[Tokens | None, Tokens | None]:
    """The tokens of a matrix's rows and of its columns."""
    own = trace.tokens
    source = trace.source or own  # a model that has an encoder alone
    return {"encoder": (source, source), "decoder": (own, own), "cross": (own, source)}[kind]


def _token(tokens: Tokens | None, position: int) -> str:
    """A token as one can see it: quoted, so that spaces and line ends show."""
    if tokens is None or position >= len(tokens):
        return ""
    return json.dumps(tokens.strings[0][position], ensure_ascii=False)


def _received(trace: Trace, kind: Kind, count: int) -> list[tuple[int, str, float]]:
    from ..recording import overview

    share = overview.received(trace, kind)
    if share is None:
        return []
    top = share.topk(min(count, share.shape[0]))
    _, columns = _sides(trace, kind)
    return [(at, _token(columns, at), part) for part, at in zip(top.values.tolist(), top.indices.tolist(), strict=True)]


def _ranked(heads: Sequence[Head], key: str, count: int, largest: bool) -> list[Head]:
    there = [head for head in heads if getattr(head, key) is not None]
    order: Callable[[Head], float] = lambda head: -getattr(head, key) if largest else getattr(head, key)  # noqa: E731
    return sorted(there, key=order)[:count]


def _table(title: str, *columns: str) -> Table:
    table = Table(title=f"\n{title}", title_justify="left", title_style="bold cyan", box=SIMPLE_HEAD)
    table.pad_edge = table.show_edge = False
    for column in columns:
        table.add_column(column, no_wrap=column in ("head", "weight", "position"), overflow="fold")
    return table
