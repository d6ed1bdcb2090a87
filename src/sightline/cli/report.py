"""`sightline report TRACE -o PAGE`"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from ._output import check_target
from ._progress import shown

if TYPE_CHECKING:
    from ..recording import Kind

__all__ = ["command"]


@click.command("report")
@click.argument("trace")
@click.option(
    "-o", "--output", "--html", "output", metavar="FILE", required=True, help="The page to write, such as report.html."
)
@click.option("--title", default="", help="What heads the page.")
@click.option(
    "--kind",
    type=click.Choice(["encoder", "decoder", "cross"]),
    help="Which attention to show, where the model has several. Without it: cross, else the decoder's.",
)
@click.option("--debug", is_flag=True, help="Show a traceback when something goes wrong.")
def command(trace: str, output: str, title: str, kind: Kind | None, debug: bool) -> None:
    """Write TRACE, a file written by `sightline record`, as one page for a browser.

    The text beside itself, each token's sources coloured by their weight; a map of every head. The page is one file and
    needs no network. Weights are shown where queries and keys were kept (`sightline record --keep qk`).
    """
    check_target(output)
    # These import torch: after the options are known to be good, and not for --help.
    with shown() as progress:
        if progress is not None:
            progress("starting", 0, None)
        from ..recording import Trace
        from ..report import report

        opened = Trace.load(trace)
        if progress is not None:
            progress("writing", 0, None)
        report(opened, title=title, kind=kind).save(output)
    size = Path(output).expanduser().stat().st_size
    click.echo(f"{output}: {size / 1e6:.1f} MB. Open it in a browser.")
