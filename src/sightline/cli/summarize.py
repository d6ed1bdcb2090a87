"""`sightline summarize DOCUMENT`"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import click
from rich.console import Console
from rich.padding import Padding
from rich.text import Text

from ..models import DEFAULT
from ._html import check, save
from ._output import check_target, write
from ._page import one_line, page
from ._progress import shown

if TYPE_CHECKING:
    from ..tasks import Citation, Summary
    from ..tasks.summary import Excerpt, Sentence

__all__ = ["command"]


@click.command("summarize")
@click.argument("document")
@click.option(
    "--extractive",
    metavar="N",
    type=click.IntRange(min=1),
    help="Pick the N sentences that others attend to most, instead of having a summary written.",
)
@click.option("--model", default=DEFAULT, show_default=True, help="A known name, a folder, or a hub id.")
@click.option(
    "--max-new-tokens", type=click.IntRange(min=1), default=128, show_default=True, help="Length of the summary."
)
@click.option(
    "--citations", type=click.IntRange(min=0), default=2, show_default=True, help="Sentences to cite for each."
)
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON, and nothing else.")
@click.option("-o", "--output", metavar="FILE", help="Write the result to a file instead of printing it.")
@click.option("--html", metavar="FILE", help="Write a page too: the summary beside the document, its sources marked.")
@click.option("--debug", is_flag=True, help="Show a traceback when something goes wrong.")
def command(
    document: str,
    extractive: int | None,
    model: str,
    max_new_tokens: int,
    citations: int,
    as_json: bool,
    output: str | None,
    html: str | None,
    debug: bool,
) -> None:
    """Summarise DOCUMENT (a UTF-8 text file, or - for standard input), of any length.

    Each sentence of the summary comes with the sentences of the document that it rests on: by how many nats its
    log-probability falls when one is taken out. A sentence that loses little when the whole document is hidden from it
    is marked as not supported.
    """
    check_target(output)
    check(html, output)
    # These import torch: after the options are known to be good, and not for --help.
    from ..tasks.documents import read_document

    text = read_document(document)
    with shown() as progress:
        if progress is not None:
            progress("starting", 0, None)
        from ..tasks import summarize

        result = summarize(
            text,
            model=model,
            extractive=extractive,
            max_new_tokens=max_new_tokens,
            citations=citations,
            progress=progress,
        )
    save(html, result, text if document == "-" else {document: text})
    if as_json:
        write(json.dumps(result.to_dict(), ensure_ascii=False, indent=2), output)
    else:
        write(page(lambda console: _page(result, console), output), output)


def _page(result: Summary, console: Console) -> None:
    if result.excerpts:
        for excerpt in result.excerpts:
            console.print(Text(one_line(excerpt.text), style="bold"))
            console.print(Padding(Text(f"score {excerpt.score:.2f} · {_place(excerpt)}", style="dim"), (0, 0, 0, 4)))
    elif not result.text:
        console.print(Text("(the model gave no summary)", style="bold"))
    for sentence in result.sentences:
        console.print(Text(one_line(sentence.text), style="bold"))
        if not sentence.supported:
            console.print(Padding(Text(_unsupported(sentence), style="bold red"), (0, 0, 0, 4)))
        for citation in sentence.citations:
            console.print(Padding(Text(_where(citation), style="cyan"), (0, 0, 0, 4)))
            console.print(Padding(Text(one_line(citation.text), style="italic"), (0, 0, 0, 8)))
    console.print()
    if result.truncated:
        console.print(Text("stopped at its greatest length; --max-new-tokens allows more", style="dim"))
    if len(result.windows) > 1:
        lines = ", ".join(f"{window.line}–{window.last_line}" for window in result.windows)
        console.print(Text(f"read in {len(result.windows)} windows: lines {lines}", style="dim"))
    peak = f"{result.peak_bytes / 1e9:.2f} GB"
    console.print(Text(f"{result.model} · {result.seconds:.1f} s · peak memory {peak}", style="dim"))


def _unsupported(sentence: Sentence) -> str:
    from ..evidence import SENTENCE_SUPPORT

    return (
        f"not supported by the document: hiding all of it costs {sentence.document_drop / sentence.tokens:.2f} nats a "
        f"token, under {SENTENCE_SUPPORT:g}"
    )


def _where(citation: Citation) -> str:
    return f"drop {citation.drop:.2f} nats · relevance {citation.relevance:.1%} · {_place(citation)}"


def _place(quoted: Citation | Excerpt) -> str:
    return f"line {quoted.line}, characters {quoted.start}–{quoted.end}"
