"""`sightline generate PROMPT`"""

from __future__ import annotations

import json
import math
import sys
import unicodedata
from collections.abc import Iterable, Iterator
from io import StringIO
from typing import TYPE_CHECKING, Any

import click
from rich.cells import cell_len
from rich.console import Console
from rich.text import Text

from ..models import DEFAULT
from ._output import check_target, write
from ._page import page
from ._progress import shown

if TYPE_CHECKING:
    from ..models import Progress
    from ..tasks.generation import Produced, Source

__all__ = ["command"]

_SIGNS = {"\n": "⏎", "\r": "␍", "\t": "⇥"}
_WIDTH = 18
"""Columns for a token in the list of tokens with their sources."""


@click.command("generate")
@click.argument("prompt", required=False)
@click.option("--file", "file", metavar="FILE", help="Read the prompt from a UTF-8 text file.")
@click.option("--model", default=DEFAULT, show_default=True, help="A known name, a folder, or a hub id.")
@click.option("--max-new-tokens", type=click.IntRange(min=1), default=256, show_default=True, help="Tokens to write.")
@click.option(
    "--temperature", type=float, default=0.0, show_default=True, help="0: the likeliest token; above 0: tokens drawn."
)
@click.option("--top-p", type=float, help="Draw from the likeliest tokens that together have this probability.")
@click.option("--top-k", type=int, help="Draw from this many of the likeliest tokens.")
@click.option("--seed", type=int, help="Draw the same tokens every time.")
@click.option("--raw", is_flag=True, help="Continue the prompt as it is, without the chat template.")
@click.option("--focus", type=click.IntRange(min=0), default=0, show_default=True, help="Sources to show per token.")
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON, and nothing else.")
@click.option("-o", "--output", metavar="FILE", help="Write the result to a file instead of printing it.")
@click.option("--debug", is_flag=True, help="Show a traceback when something goes wrong.")
def command(
    prompt: str | None,
    file: str | None,
    model: str,
    max_new_tokens: int,
    temperature: float,
    top_p: float | None,
    top_k: int | None,
    seed: int | None,
    raw: bool,
    focus: int,
    as_json: bool,
    output: str | None,
    debug: bool,
) -> None:
    """Write what follows PROMPT (a text, or - for standard input), token by token, as it is produced.

    With --focus N each token is listed with its probability and the N words it drew on most, with their shares of the
    token's relevance: words of the prompt, and, marked ↑, words written before it.

    Of a prompt from a file or standard input the line end at its end is left out.
    """
    if (prompt is None) == (file is None):
        raise click.UsageError("Give the prompt once: as PROMPT, as - for standard input, or with --file FILE.")
    check_target(output)
    # These import torch: after the options are known to be good, and not for --help.
    from ..tasks.documents import read_text

    if file is not None or prompt == "-":
        text = read_text("-" if file is None else file, "the prompt")
        text = text.removesuffix("\n").removesuffix("\r")
    else:
        text = prompt or ""
    asked: dict[str, Any] = {
        "model": model,
        "max_new_tokens": max_new_tokens,
        "temperature": temperature,
        "top_p": top_p,
        "top_k": top_k,
        "seed": seed,
        "chat": not raw,
        "focus": focus,
    }
    if not as_json and output is None:
        _live(text, asked)
        return
    with shown() as progress:
        if progress is not None:
            progress("starting", 0, None)
        from ..tasks import generate

        result = generate(text, progress=progress, **asked)
    if as_json:
        write(json.dumps(result.to_dict(), ensure_ascii=False, indent=2), output)
    elif focus:
        write(page(lambda console: _listing(result.units, console), output), output)
    else:
        write(result.text, output)


def _live(prompt: str, asked: dict[str, Any]) -> None:
    """Print tokens as they come, each as soon as it is there."""
    tokens = _started(prompt, asked)
    terminal = sys.stdout.isatty()
    if asked["focus"]:
        console = Console(highlight=False) if terminal else Console(width=100_000, highlight=False)
        _listing(tokens, console)
        return
    written = False
    try:
        for token in tokens:
            written = True
            click.echo(_harmless(token.text) if terminal else token.text, nl=False)
    except BaseException:
        if written:  # what is printed next begins a line
            click.echo()
        raise
    click.echo()


def _started(prompt: str, asked: dict[str, Any]) -> Iterator[Produced]:
    """The tokens. Progress is shown until the first is there, and is off the terminal before it is printed."""
    with shown() as progress:
        telling = progress

        def tell(phase: str, done: int, total: int | None) -> None:
            if telling is not None:
                telling(phase, done, total)

        heard: Progress | None = None if progress is None else tell
        if heard is not None:
            heard("starting", 0, None)
        from ..tasks import stream

        tokens = stream(prompt, progress=heard, **asked)
        first = next(tokens, None)
        telling = None
    if first is not None:
        yield first
        yield from tokens


def _listing(tokens: Iterable[Produced], console: Console) -> None:
    """A line for each token, as it comes: itself, its probability, where it looked. Then the whole text."""
    written: list[str] = []
    wide = not console.is_terminal
    for token in tokens:
        written.append(token.text)
        sign = "".join(_SIGNS.get(c, c) for c in _harmless(token.text)) or "…"
        line = Text.assemble((sign, "bold"), " " * max(1, _WIDTH - cell_len(sign)))
        line.append(f"{math.exp(token.log_prob):4.0%}  ", style="cyan")
        line.append(" · ".join(_source(source) for source in token.sources), style="dim")
        console.print(line, soft_wrap=wide, overflow="fold")
        console.file.flush()
    console.print()
    console.print(Text(_harmless("".join(written))), soft_wrap=wide)


def _source(source: Source) -> str:
    return f"{'↑' if source.where == 'output' else ''}{_harmless(source.text)} {source.share:.0%}"


def _harmless(text: str) -> str:
    """The text without what would command a terminal: control characters other than line ends and tabs."""
    if text.isprintable():
        return text
    made = StringIO()
    for c in text:
        made.write(c if c in _SIGNS or unicodedata.category(c) != "Cc" else "\ufffd")
    return made.getvalue()
