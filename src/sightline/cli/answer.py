"""`sightline answer DOCUMENT... "QUESTION"`"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich.console import Console
from rich.padding import Padding
from rich.text import Text

from ..models import DEFAULT
from ._html import check, save
from ._output import check_target, write
from ._page import harmless, one_line, page
from ._progress import shown

if TYPE_CHECKING:
    from ..models import Progress
    from ..tasks import Answer, Citation
    from ..tasks.answering import Window
    from ..tasks.documents import Document, Skipped

__all__ = ["command"]

_LISTED = 5
"""Skipped files, and windows, that are named; of more, how many more there are."""

_AROUND = 120
"""Characters of a document that are shown on each side of a citation, on a terminal."""


@click.command("answer", options_metavar="[OPTIONS]")
@click.argument("documents", metavar="DOCUMENT...", nargs=-1, required=True)
@click.argument("question")
@click.option("--model", default=DEFAULT, show_default=True, help="A known name, a folder, or a hub id.")
@click.option(
    "--max-new-tokens", type=click.IntRange(min=1), default=64, show_default=True, help="Length of the answer."
)
@click.option("--citations", type=click.IntRange(min=0), default=3, show_default=True, help="Sentences to cite.")
@click.option(
    "--reading",
    metavar="TOKENS",
    type=click.IntRange(min=1),
    help="Read at most this much at once, and search what is longer.  [default: 2560]",
)
@click.option(
    "--passages",
    metavar="N",
    type=click.IntRange(min=1),
    help="Passages to answer from where a text is searched: more suit a larger model.  [default: 1]",
)
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON, and nothing else.")
@click.option("-o", "--output", metavar="FILE", help="Write the result to a file instead of printing it.")
@click.option("--html", metavar="FILE", help="Write a page too: the answer beside the document, its sources marked.")
@click.option("--debug", is_flag=True, help="Show a traceback when something goes wrong.")
def command(
    documents: tuple[str, ...],
    question: str,
    model: str,
    max_new_tokens: int,
    citations: int,
    reading: int | None,
    passages: int | None,
    as_json: bool,
    output: str | None,
    html: str | None,
    debug: bool,
) -> None:
    """Answer QUESTION from one DOCUMENT or several, of any length, and show where the answer came from.

    A DOCUMENT is a UTF-8 text file, - for standard input, or a folder, of which every text file is read, also in the
    folders in it. QUESTION comes last.

    Each cited sentence comes with its share of what hiding sentences from the answer cost, and its measured drop: by
    how many nats the answer's log-probability falls when the sentence is taken out. An answer is marked as not in the
    document by what it loses when everything is hidden from it together with what the model says when it is asked
    whether the document tells.

    More text than is read at once is searched, first by the words of the question, then by what the question attends
    to; which lines were read is said under the answer.
    """
    check_target(output)
    check(html, output)
    if Path(question).is_file():
        raise click.UsageError(f"The question comes last, and {question!r} is a file. Ask something of it.")
    # These import torch: after the options are known to be good, and not for --help.
    from ..tasks.documents import check_question, read_documents

    check_question(question)
    texts, skipped = read_documents(documents)
    if skipped:
        click.echo(_skipped(skipped), err=True)
    asked: dict[str, Any] = {"model": model, "max_new_tokens": max_new_tokens, "citations": citations}
    asked |= {name: given for name, given in (("reading", reading), ("passages", passages)) if given is not None}
    live = not as_json and output is None and sys.stdout.isatty()
    result = _answered(texts, question, asked, live)
    save(html, result, _cited(texts, result), question)
    if as_json:
        write(json.dumps(result.to_dict(), ensure_ascii=False, indent=2), output)
    else:
        write(page(lambda console: _page(result, texts, console, live), output), output)


def _answered(texts: Sequence[Document], question: str, asked: dict[str, Any], live: bool) -> Answer:
    """The answer. With `live` its text is printed as it is written, while no progress is on the terminal."""
    written = False
    with ExitStack() as stack:
        progress = stack.enter_context(shown())
        if progress is not None:
            progress("starting", 0, None)
        console = Console(highlight=False) if live else None

        def tell(phase: str, done: int, total: int | None) -> None:
            nonlocal written, progress
            if written and phase != "answering":  # the answer is complete
                click.echo()
                written = False
                progress = stack.enter_context(shown())
            if progress is not None and not written:
                progress(phase, done, total)

        def wrote(piece: str) -> None:
            nonlocal written
            if not written:
                stack.close()
                written = True
            if console is not None:
                console.print(Text(harmless(piece), style="bold"), end="", soft_wrap=True)
                console.file.flush()

        from ..tasks import answer

        heard: Progress | None = None if progress is None and not live else tell
        try:
            return answer(texts, question, progress=heard, wrote=wrote if live else None, **asked)
        finally:
            if written:  # what is printed next begins a line
                click.echo()


def _cited(texts: Sequence[Document], result: Answer) -> dict[str, str]:
    """The documents that were read, by name: of many that were searched, those that the page is about."""
    read = {window.source for window in result.windows}
    return {text.name or "": text.text for text in texts if text.name in read}


def _page(result: Answer, texts: Sequence[Document], console: Console, live: bool) -> None:
    """The result; after a `live` answer what comes under it."""
    whole = {text.name: text.text for text in texts}
    most = max((citation.drop for citation in result.citations), default=0.0)
    if result.verdict == "not in the document":
        console.print(Text(_unsupported(result), style="bold red"))
        if not live:
            console.print(Text.assemble(("the model said: ", "dim"), result.text))
    elif not live or not result.text:
        console.print(Text(result.text or "(the model gave no answer)", style="bold"))
    for number, citation in enumerate(result.citations, 1):
        console.print()
        console.print(Text.assemble((f"[{number}]", "cyan"), f" {_where(citation)}"))
        said = Text(one_line(citation.text), style="italic")
        if console.is_terminal:
            said = _in_context(citation, whole[citation.source], most)
        console.print(Padding(said, (0, 0, 0, 4)))
    console.print()
    if result.searched:
        console.print(Text(_read(result), style="dim"))
    peak = f"{result.peak_bytes / 1e9:.2f} GB"
    console.print(Text(f"{result.model} · {result.seconds:.1f} s · peak memory {peak}", style="dim"))


def _in_context(citation: Citation, text: str, most: float) -> Text:
    """The sentence, coloured by its share of the largest drop, between the words around it in its paragraph."""
    share = citation.drop / most if most > 0 else 0.0
    style = "bold black on yellow" if share > 2 / 3 else "bold yellow" if share > 1 / 3 else "yellow"
    before = text[max(0, citation.start - _AROUND) : citation.start].rpartition("\n\n")[2]
    after = text[citation.end : citation.end + _AROUND].partition("\n\n")[0]
    before = before.partition(" ")[2] if len(before) == _AROUND else before  # no word that is cut
    after = after.rpartition(" ")[0] if len(after) == _AROUND else after
    return Text.assemble(
        (f"{one_line(before)} " if before.strip() else "", "dim"),
        (one_line(citation.text), style),
        (f" {one_line(after)}" if after.strip() else "", "dim"),
    )


def _unsupported(result: Answer) -> str:
    from ..evidence import SUPPORT

    support = result.support
    why = f"support {support.strength:.1f} nats, under {SUPPORT:g}: " if support.strength < SUPPORT else ""
    return (
        f"not in the document: {why}hiding all that was read costs the answer {support.document_drop:.1f} nats; asked "
        f"whether it tells, the model says yes by {support.answerable:.1f}, and whether it states this, by "
        f"{support.stated:.1f}; without the sentence it rests on most the document tells by {support.contrast:.1f} less"
    )


def _where(citation: Citation) -> str:
    return (
        f"drop {citation.drop:.2f} nats · relevance {citation.relevance:.1%} · {_named(citation.source)}"
        f"line {citation.line}, characters {citation.start}–{citation.end}"
    )


def _read(result: Answer) -> str:
    windows = result.windows
    places = [f"{_named(window.source)}{_lines(window)}" for window in windows]
    return f"read, of {result.searched:,} passages: {_some(places)}"


def _lines(window: Window) -> str:
    return f"line {window.line}" if window.line == window.last_line else f"lines {window.line}–{window.last_line}"


def _skipped(skipped: Sequence[Skipped]) -> str:
    return f"sightline: skipped {_some([f'{skip.place} ({skip.why})' for skip in skipped])}"


def _some(found: Sequence[str]) -> str:
    """A list that stays short."""
    more = len(found) - _LISTED
    return ", ".join(found[:_LISTED]) + (f", and {more:,} more" if more > 0 else "")


def _named(source: str | None) -> str:
    return "" if source is None else f"{harmless(source)}, "
