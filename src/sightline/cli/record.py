"""`sightline record MODEL TEXT -o TRACE`"""

from __future__ import annotations

import json
import time
from pathlib import Path

import click

from ..errors import InputError
from ._output import check_target
from ._progress import shown

__all__ = ["command"]


@click.command("record")
@click.argument("model")
@click.argument("text")
@click.option("-o", "--output", metavar="FILE", required=True, help="The trace to write, such as run.safetensors.")
@click.option(
    "--observe",
    metavar="LIST",
    default="entropy,peak,top8,received,map",
    show_default=True,
    help="What to observe of every head: these, lse, max, view; any number after top and map (map64: 64 × 64 blocks).",
)
@click.option(
    "--layers", metavar="LIST", help='Layers to record: numbers, or patterns of names such as "*.3.self_attn".'
)
@click.option("--heads", metavar="LIST", help="Heads to record, by number.")
@click.option(
    "--keep",
    type=click.Choice(["reductions", "qk"]),
    default="reductions",
    show_default=True,
    help="qk: keep queries and keys too, so that any weight can be computed later (a few KB for each token and layer).",
)
@click.option(
    "--view", is_flag=True, help="All that `sightline view` shows: as --keep qk, and view among the observed."
)
@click.option(
    "--new-tokens", type=click.IntRange(min=0), default=0, show_default=True, help="Tokens to write after it."
)
@click.option("--json", "as_json", is_flag=True, help="Print what was written as JSON.")
@click.option("--debug", is_flag=True, help="Show a traceback when something goes wrong.")
def command(
    model: str,
    text: str,
    output: str,
    observe: str,
    layers: str | None,
    heads: str | None,
    keep: str,
    view: bool,
    new_tokens: int,
    as_json: bool,
    debug: bool,
) -> None:
    """Have MODEL (a known name, a folder, or a hub id) read TEXT (a UTF-8 text file, or - for standard input).

    What was observed of every layer and head goes to one file, which is there whole or not at all. Look at it with
    `sightline inspect`, or load it: sightline.Trace.load(FILE).
    """
    check_target(output)
    if view:
        keep, observe = "qk", observe if "view" in _listed(observe) else f"{observe},view"
    # These import torch: after the options are known to be good, and not for --help.
    from ..tasks.documents import read_document

    document = read_document(text)
    start = time.perf_counter()
    with shown("attention calls") as progress:
        if progress is not None:
            progress("starting", 0, None)
        from ..recording import Keep
        from ..tasks import record_text

        kept: Keep = "qk" if keep == "qk" else "reductions"
        trace = record_text(
            document,
            model=model,
            observe=observe,
            keep=kept,
            layers=None if layers is None else [int(x) if x.isdecimal() else x for x in _listed(layers)],
            heads=None if heads is None else _numbers(heads),
            new_tokens=new_tokens,
            progress=progress,
        )
        if progress is not None:
            progress("saving", 0, None)
        trace.save(output)
    tokens = 0 if trace.tokens is None else len(trace.tokens)
    calls = sum(map(len, trace.values()))
    size, seconds = Path(output).expanduser().stat().st_size, time.perf_counter() - start
    if as_json:
        made = {"trace": output, "model": model, "tokens": tokens, "modules": len(trace), "calls": calls}
        made |= {"observed": list(trace.reductions), "keep": keep, "bytes": size, "seconds": seconds}
        click.echo(json.dumps(made, ensure_ascii=False, indent=2))
    else:
        size_and_time = f"{size / 1e6:.1f} MB, {seconds:.1f} s"
        click.echo(f"{output}: {tokens:,} tokens, {len(trace)} modules, {calls:,} calls, {size_and_time}")
        click.echo(
            f"Look at it with: sightline inspect {output}{f', or sightline view {output}' if keep == 'qk' else ''}"
        )


def _listed(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]


def _numbers(text: str) -> list[int]:
    """Raises InputError for what are no numbers."""
    try:
        return [int(part) for part in _listed(text)]
    except ValueError:
        raise InputError(
            f"the heads {text!r} were asked for; heads are numbers. Write them as in --heads 0,3,7."
        ) from None
