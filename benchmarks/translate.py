"""`python -m benchmarks.translate`: sentences a second, by Sightline's task and by a plain greedy loop in PyTorch.

The loop reads one sentence, writes its tokens one by one with the model's own cache, and goes on to the next: the same
weights, the same tokenizer, nothing of the task's. Time is that of everything from text to text; the model is loaded
before. Who writes another translation than the loop's, for more than a few sentences where rounding decides, gets no
figure. With `--reference`, a translation by people, BLEU and chrF of the task's translation are told too.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import click
import torch
from rich.console import Console
from rich.table import Table

from sightline.bench.machine import fingerprint
from sightline.bench.spread import Spread

from .report import check_target, write

#: From sentences to their translations.
Way = Callable[[Sequence[str]], list[str]]

_ROOM = 200
"""Tokens after which the loop gives a sentence up."""


def ways(pair: tuple[Any, Any], batch: int) -> dict[str, Way]:
    """The loop, the task, and the task with every word aligned."""
    from sightline.tasks import translate

    def task(align: bool) -> Way:
        def run(sentences: Sequence[str]) -> list[str]:
            result = translate("\n\n".join(sentences), model=pair, align=align, batch_size=batch)
            return result.text.split("\n\n")

        return run

    return {
        "loop": lambda sentences: [alone(*pair, s) for s in sentences],
        "task": task(align=False),
        "task aligned": task(align=True),
    }


@torch.inference_mode()
def alone(model: Any, tokenizer: Any, sentence: str) -> str:
    """One sentence, greedily, token by token."""
    inputs = tokenizer(sentence, return_tensors="pt")
    states = model.get_encoder()(**inputs)
    ends, token, cache = model.generation_config.eos_token_id, model.config.decoder_start_token_id, None
    written: list[int] = []
    while token != ends and len(written) < _ROOM:
        out = model(
            encoder_outputs=states,
            attention_mask=inputs["attention_mask"],
            decoder_input_ids=torch.tensor([[token]]),
            past_key_values=cache,
            use_cache=True,
        )
        cache, token = out.past_key_values, int(out.logits[0, -1].argmax())
        written.append(token)
    return str(tokenizer.decode(written, skip_special_tokens=True))


def check(way: str, found: Sequence[str], wanted: Sequence[str]) -> None:
    """Raise ClickException where more than one sentence in fifty is translated otherwise than by the loop."""
    other = abs(len(found) - len(wanted)) + sum(a != b for a, b in zip(found, wanted))
    if other > len(wanted) // 50:
        raise click.ClickException(f"{way}: {other} of {len(wanted)} sentences are translated otherwise than alone")


def rounds_of(pair: tuple[Any, Any], sentences: Sequence[str], batch: int, rounds: int) -> dict[str, list[float]]:
    """Seconds, by way, taken in turns."""
    wanted = ways(pair, batch)["loop"](sentences)
    timed: dict[str, list[float]] = {way: [] for way in ways(pair, batch)}
    for _ in range(rounds):
        for way, run in ways(pair, batch).items():
            start = time.perf_counter()
            found = run(sentences)
            timed[way].append(time.perf_counter() - start)
            check(way, found, wanted)
    return timed


def quality(pair: tuple[Any, Any], lines: Sequence[str], reference: Sequence[str], batch: int) -> dict[str, float]:
    """BLEU and chrF of the task's translation, greedy, by sacrebleu's defaults; a line of the text is a segment."""
    try:
        import sacrebleu
    except ModuleNotFoundError as error:
        raise click.ClickException("--reference needs the package sacrebleu: pip install sacrebleu") from error
    if len(lines) != len(reference):
        raise click.ClickException(f"the text has {len(lines)} lines and the reference {len(reference)}")
    found = ways(pair, batch)["task"](lines)
    if len(found) != len(lines):
        raise click.ClickException(f"{len(lines)} lines became {len(found)}: a line of the text is no paragraph")
    against = [list(reference)]
    scores = {"BLEU": sacrebleu.corpus_bleu(found, against), "chrF": sacrebleu.corpus_chrf(found, against)}
    return {name: float(score.score) for name, score in scores.items()}


def lines_of(file: Path) -> list[str]:
    """The lines of a file, without those that are empty."""
    return [line for line in file.read_text().splitlines() if line.strip()]


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("file", type=click.Path(path_type=Path, exists=True, dir_okay=False))
@click.option("--model", "name", default="marian-en-pt", show_default=True, help="A name, folder or hub id.")
@click.option("--sentences", type=click.IntRange(1), default=64, show_default=True, help="How many, from the start.")
@click.option("--batch", type=click.IntRange(1), default=32, show_default=True)
@click.option("--reference", type=click.Path(path_type=Path, exists=True, dir_okay=False), help="Its translation.")
@click.option("--rounds", type=click.IntRange(1), default=5, show_default=True)
@click.option("--threads", type=click.IntRange(1), default=torch.get_num_threads(), show_default=True)
@click.option("--json", "target", type=click.Path(path_type=Path), metavar="FILE", help="Write every sample to a file.")
def main(
    file: Path,
    name: str,
    sentences: int,
    batch: int,
    reference: Path | None,
    rounds: int,
    threads: int,
    target: Path | None,
) -> None:
    """Time the translation of FILE, one sentence a line, in interleaved rounds: loop, task, task with alignment."""
    from sightline import models

    if target is not None:
        check_target(target)
    torch.set_num_threads(threads)
    lines = lines_of(file)[:sentences]
    pair = models.load(name)
    scores = {} if reference is None else quality(pair, lines, lines_of(reference)[:sentences], batch)
    timed = rounds_of(pair, lines, batch, rounds)
    out = Console(width=None if sys.stdout.isatty() else 120)
    table = Table("way", "seconds", "sentences a second", "times as fast as the loop", box=None)
    for way, seconds in timed.items():
        ratio = Spread.of([a / b for a, b in zip(timed["loop"], seconds)])
        median = Spread.of(seconds).median
        said = f"{ratio.median:.2f} ({ratio.low:.2f}–{ratio.high:.2f})"
        table.add_row(way, f"{median:.2f}", f"{len(lines) / median:.1f}", said)
    out.print(table)
    out.print(f"{len(lines)} sentences; medians of {rounds} interleaved rounds, quartiles in parentheses.", style="dim")
    if scores:
        out.print(", ".join(f"{score} {value:.1f}" for score, value in scores.items()))
    if target is not None:
        settings = {"model": name, "sentences": len(lines), "batch": batch, "rounds": rounds, "threads": threads}
        samples = [{"way": way, "wall": seconds} for way, seconds in timed.items()]
        write(target, {"machine": fingerprint(), "settings": settings, "quality": scores, "samples": samples})


if __name__ == "__main__":
    main()
