"""`sightline answer DOCUMENT "QUESTION"`"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import click
from rich.console import Console
from rich.padding import Padding
from rich.text import Text

from ..models import DEFAULT
from ._output import check_target, write
from ._page import page
from ._progress import shown

if TYPE_CHECKING:
    from ..tasks import Answer, Citation

__all__ = ["command"]


@click.command("answer")
@click.argument("document")
@click.argument("question")
@click.option("--model", default=DEFAULT, show_default=True, help="A known name, a folder, or a hub id.")
@click.option(
    "--max-new-tokens", type=click.IntRange(min=1), default=64, show_default=True, help="Length of the answer."
)
@click.option("--citations", type=click.IntRange(min=0), default=3, show_default=True, help="Sentences to measure.")
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON, and nothing else.")
@click.option("-o", "--output", metavar="FILE", help="Write the result to a file instead of printing it.")
@click.option("--debug", is_flag=True, help="Show a traceback when something goes wrong.")
def command(
    document: str,
    question: str,
    model: str,
    max_new_tokens: int,
    citations: int,
    as_json: bool,
    output: str | None,
    debug: bool,
) -> None:
    """Answer QUESTION from DOCUMENT (a UTF-8 text file, or - for standard input) and show where the answer came from.

    Each cited sentence comes with its share of the relevance of the whole document and its measured drop: by how many
    nats the answer's log-probability falls when the sentence is taken out. An answer that loses little when the whole
    document is hidden from it is marked as not supported.
    """
    check_target(output)
    # These import torch: after the options are known to be good, and not for --help.
    from ..tasks.documents import check_question, read_document

    check_question(question)
    text = read_document(document)
    with shown() as progress:
        if progress is not None:
            progress("starting", 0, None)
        from ..tasks import answer

        result = answer(
            text, question, model=model, max_new_tokens=max_new_tokens, citations=citations, progress=progress
        )
    if as_json:
        write(json.dumps(result.to_dict(), ensure_ascii=False, indent=2), output)
    else:
        write(page(lambda console: _page(result, console), output), output)


def _page(result: Answer, console: Console) -> None:
    console.print(Text(result.text or "(the model gave no answer)", style="bold"))
    if result.text and not result.supported:
        console.print(Text(_unsupported(result), style="bold red"))
    for number, citation in enumerate(result.citations, 1):
        console.print()
        console.print(Text.assemble((f"[{number}]", "cyan"), f" {_where(citation)}"))
        console.print(Padding(Text(_one_line(citation.text), style="italic"), (0, 0, 0, 4)))
    console.print()
    peak = f"{result.peak_bytes / 1e9:.2f} GB"
    console.print(Text(f"{result.model} · {result.seconds:.1f} s · peak memory {peak}", style="dim"))


def _unsupported(result: Answer) -> str:
    from ..evidence import SUPPORT

    return (
        f"not supported by the document: hiding all of it costs the answer {result.document_drop:.2f} nats, "
        f"under {SUPPORT:g}"
    )


def _where(citation: Citation) -> str:
    return (
        f"drop {citation.drop:.2f} nats · relevance {citation.relevance:.1%} · line {citation.line}, "
        f"characters {citation.start}–{citation.end}"
    )


def _one_line(text: str) -> str:
    return " ".join(text.split())
