"""`sightline translate FILE --from en --to pt`"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import click

from .._files import replacing
from ._html import check, save
from ._output import check_target, replace, write
from ._page import one_line
from ._progress import shown

if TYPE_CHECKING:
    from ..tasks import Translation
    from ..tasks.translation import Passage, Sentence

__all__ = ["command"]


@click.command("translate")
@click.argument("file")
@click.option("--from", "source", metavar="LANGUAGE", default="en", show_default=True, help="The text's language.")
@click.option("--to", "target", metavar="LANGUAGE", default="pt", show_default=True, help="The translation's language.")
@click.option("--model", help="A known name, a folder, or a hub id, in place of the known model of the two languages.")
@click.option("--align", is_flag=True, help="Print each sentence with the words that its words looked at.")
@click.option("--json", "as_json", is_flag=True, help="Print text, sentences, words and where they came from as JSON.")
@click.option("-o", "--output", metavar="FILE", help="Write the result to a file, whole or not at all.")
@click.option("--html", metavar="FILE", help="Write a page too: the translation beside the text, word by word.")
@click.option("--beams", type=click.IntRange(min=1), default=1, show_default=True, help="Hypotheses; 1 is greedy.")
@click.option("--batch", type=click.IntRange(min=1), default=32, show_default=True, help="Sentences at once.")
@click.option("--debug", is_flag=True, help="Show a traceback when something goes wrong.")
def command(
    file: str,
    source: str,
    target: str,
    model: str | None,
    align: bool,
    as_json: bool,
    output: str | None,
    html: str | None,
    beams: int,
    batch: int,
    debug: bool,
) -> None:
    """Translate FILE (a UTF-8 text file, or - for standard input).

    Paragraphs are printed as they are finished; line breaks, Markdown's marks and code stay as they are. With --align
    each word comes with the words of the text that it looked at, and the weights.

    With --model a model of many languages is told them by --from and --to. A model that was made for chats is asked in
    one, sentence by sentence; small ones translate badly.
    """
    check_target(output)
    check(html, output)
    # These import torch: after the options are known to be good, and not for --help.
    from ..tasks.documents import read_document

    # A file is read whole, so that nothing is printed of one that is no text; standard input as it arrives.
    chunks = _standard_input() if file == "-" else iter([read_document(file)])
    options: dict[str, Any] = {"source": source, "target": target, "model": model}
    options |= {"batch_size": batch, "num_beams": beams}
    printer = _Printer(align)
    if as_json or html is not None:
        text = "".join(chunks)
        result = _whole(text, options)
        save(html, result, text if file == "-" else {file: text})
        if as_json:
            write(json.dumps(result.to_dict(), ensure_ascii=False, indent=2), output)
        else:
            printed = printer.whole(result)
            click.echo(printed, nl=False) if output is None else replace(output, printed.encode())
            printer.close()
        return
    with ExitStack() as around:
        sink = None if output is None else around.enter_context(replacing(output))
        showing = around.enter_context(ExitStack())
        progress = showing.enter_context(shown("sentences"))
        if progress is not None:
            progress("starting", 0, None)
        from ..tasks import translating

        for passage in translating(chunks, align=align, progress=progress, **options):
            if sink is not None:
                sink.write(printer.text(passage).encode())
                continue
            if sys.stdout.isatty():
                # On a terminal the translation is its own progress; nothing else may be drawn over it.
                showing.close()
            click.echo(printer.text(passage), nl=False)
    printer.close()


def _standard_input() -> Iterator[str]:
    from ..tasks.translation.arriving import arriving

    return arriving(sys.stdin.buffer)


def _whole(text: str, options: dict[str, Any]) -> Translation:
    with shown("sentences") as progress:
        if progress is not None:
            progress("starting", 0, None)
        from ..tasks import translate

        return translate(text, progress=progress, **options)


class _Printer:
    """Passages as text, with or without their alignment, and how many of their sentences came to no end."""

    def __init__(self, align: bool) -> None:
        self._align = align
        self._stopped = 0

    def text(self, passage: Passage) -> str:
        """What is printed for a passage."""
        self._stopped += sum(not sentence.complete for sentence in passage.sentences)
        if not self._align:
            return passage.text
        return "".join(map(_aligned, passage.sentences))

    def whole(self, result: Translation) -> str:
        """What is printed for a translation that is finished."""
        from ..tasks.translation import Passage

        return self.text(Passage(result.text, result.sentences))

    def close(self) -> None:
        """Say on standard error what is not to be trusted."""
        if self._stopped:
            what = "1 sentence" if self._stopped == 1 else f"{self._stopped:,} sentences"
            click.echo(
                f"sightline: the model came to no end in {what}, and was stopped; --json tells which.",
                err=True,
            )


def _aligned(sentence: Sentence) -> str:
    """A sentence, its translation, and a line for each word."""
    (source,) = sentence.sources
    width = max((len(word.text) for word in sentence.words), default=0)
    lines = [one_line(source.text), one_line(sentence.text)]
    for word in sentence.words:
        seen = ", ".join(f"{s.text} {s.weight:.2f}" for s in word.sources)
        lines.append(f"    {word.text:<{width}} ← {seen}")
    return "\n".join([*lines, "", ""])
