"""`sightline generate PROMPT`"""

from __future__ import annotations

import json
import shutil
import sys
import time
from collections.abc import Iterator
from itertools import chain
from typing import TYPE_CHECKING, Any

import click
from rich.console import Console
from rich.text import Text

from .. import _resident
from ..models import DEFAULT
from ._flow import Flow
from ._html import check, save
from ._output import check_target, write
from ._page import harmless, page
from ._progress import shown
from ._tokens import listing

if TYPE_CHECKING:
    from ..models import Progress
    from ..tasks.generation import Produced

__all__ = ["command"]

_SOURCES = 8
"""Words for each token of a page, where the command line does not say how many."""


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
@click.option("--html", metavar="FILE", help="Write a page too: each token beside its sources, 8 where --focus is 0.")
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
    html: str | None,
    debug: bool,
) -> None:
    """Write what follows PROMPT (a text, or - for standard input), token by token, as it is produced.

    With --focus N each token is listed with its probability and the N words it drew on most, with their shares of the
    token's relevance: words of the prompt, and, marked ↑, words written before it. The text comes after the list.

    Of a prompt from a file or standard input the line end at its end is left out.
    """
    if (prompt is None) == (file is None):
        raise click.UsageError("Give the prompt once: as PROMPT, as - for standard input, or with --file FILE.")
    check_target(output)
    check(html, output)
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
        "focus": focus or (_SOURCES if html is not None else 0),
    }
    count = _Count(model, max_new_tokens)
    if not as_json and output is None and html is None:
        _live(count.of(_started(text, asked)), bool(focus))
        count.say()
        return
    with shown() as progress:
        if progress is not None:
            progress("starting", 0, None)
        from ..tasks import generate

        result = generate(text, progress=progress, **asked)
    save(html, result, text)
    if as_json:
        write(json.dumps(result.to_dict(), ensure_ascii=False, indent=2), output)
    elif focus:
        write(page(lambda console: listing(result.units, console), output), output)
    else:
        write(result.text, output)


def _live(tokens: Iterator[Produced], focus: bool) -> None:
    """Print tokens as they come, each as soon as it is there; on a terminal word by word."""
    terminal = sys.stdout.isatty()
    # The first is waited for here: what tells of progress until then is off the terminal before anything is printed.
    first = next(tokens, None)
    found = tokens if first is None else chain([first], tokens)
    if focus:
        listing(found, Console(highlight=False) if terminal else Console(width=100_000, highlight=False))
        return
    flow = Flow(lambda text: click.echo(text, nl=False), lambda: shutil.get_terminal_size().columns)
    written = False
    try:
        for token in found:
            written = True
            if terminal:
                flow.add(harmless(token.text))
            else:
                click.echo(token.text, nl=False)
    except BaseException as error:
        flow.close()
        # What is printed next begins a line. Click sees to that itself after an interrupt, on standard error.
        if written and not (terminal and isinstance(error, KeyboardInterrupt)):
            click.echo()
        raise
    flow.close()
    click.echo()


class _Count:
    """What a run came to: tokens, how fast they came, and the most memory held."""

    def __init__(self, model: str, limit: int) -> None:
        self._model = model
        self._limit = limit
        self._times = [time.perf_counter()]
        _resident.restart_peak()

    def of(self, tokens: Iterator[Produced]) -> Iterator[Produced]:
        """The tokens, counted and timed."""
        for token in tokens:
            self._times.append(time.perf_counter())
            yield token

    def say(self) -> None:
        """One line on standard error, where all that is printed goes to a terminal."""
        if not (sys.stdout.isatty() and sys.stderr.isatty()):
            return
        start, *times = self._times
        parts = [self._model, "1 token" if len(times) == 1 else f"{len(times):,} tokens"]
        if len(times) == self._limit:
            parts[-1] += " (the limit)"
        if times:
            parts.append(f"first after {times[0] - start:.1f} s")
        if len(times) > 1:
            parts[-1] += f", then {(len(times) - 1) / (times[-1] - times[0]):.1f}/s"
        parts.append(f"peak {_resident.peak() / 1e9:.2f} GB")
        Console(stderr=True, highlight=False).print(Text(" · ".join(parts), style="dim"))


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
