"""From arguments to an exit code: which command, and what becomes of its errors."""

from __future__ import annotations

import traceback
from collections.abc import Sequence
from importlib import import_module
from typing import Any

import click

from ..errors import SightlineError

__all__ = ["run"]

_COMMANDS = {
    "answer": "Answer a question from a document and show which sentences the answer came from.",
    "bench": "Measure time and memory of attention against its length, on this machine.",
    "doctor": "Show what this installation can do, and why not more.",
    "focus-bench": "Measure whether the sentences shown as evidence are those that answers rest on, on this machine.",
    "generate": "Write what follows a prompt, as it is produced, and show where the model looked for each token.",
    "inspect": "Show what stands out in a trace: sinks, tokens that receive most, kinds of heads, strongest pairs.",
    "models": "List the models known by name, fetch one, or say where it is.",
    "record": "Record the attention of a model that reads a text, every head of it, in a trace.",
    "report": "Write a trace as one page for a browser: every token's sources, a map of every head.",
    "summarize": "Summarise a document of any length and show what each sentence of the summary rests on.",
    "translate": "Translate a text, and tell which words each word of the translation looked at.",
    "view": "Show traces in the browser: any head's map at any zoom, down to single weights.",
}
"""Each command, in the module of its name, with the line that describes it in the list of commands."""


class _Commands(click.Group):
    """Commands that are imported when they are called."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _COMMANDS:
            return None
        return import_module(f".{cmd_name.replace('-', '_')}", __package__).command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(_COMMANDS.items()))


def _version(ctx: click.Context, param: click.Parameter, value: bool) -> None:
    if value and not ctx.resilient_parsing:
        from ._versions import version

        click.echo(f"sightline {version('sightline')}")
        ctx.exit()


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--version", is_flag=True, is_eager=True, expose_value=False, callback=_version, help="Show the version.")
def _app() -> None:
    """Exact attention at any length, and where it looked."""


def run(arguments: Sequence[str]) -> int:
    """Run a command line; the exit code. Errors go to standard error, as one message without a traceback.

    With --debug among a command's options the traceback comes too. Click ends the process itself, silently and with
    code 1, where whoever reads the output has gone.
    """
    debug = "--debug" in arguments
    try:
        result: Any = _app.main(list(arguments), prog_name="sightline", standalone_mode=False)
        return result if isinstance(result, int) else 0
    except click.UsageError as error:
        error.show()
        return 2
    except (click.Abort, KeyboardInterrupt):
        _say("interrupted")
        return 130
    except SightlineError as error:
        if debug:
            traceback.print_exc()
        _say(str(error))
        return 2
    except Exception as error:  # a defect: said in one line too, with how to see more
        if debug:
            traceback.print_exc()
        _say(f"unexpected {type(error).__name__}: {error}" + ("" if debug else ". Run again with --debug for details."))
        return 1


def _say(message: str) -> None:
    click.echo(f"sightline: {message}", err=True)
