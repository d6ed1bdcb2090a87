"""`python -m benchmarks.prefill`: a language model reads a long prompt, by PyTorch's attention and by Sightline's.

The whole model is timed, as its users run it: through Transformers, every layer, cache included. The prompt is random
tokens. Who ends in other logits gets no figure.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import click
import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor

from sightline.bench.machine import fingerprint
from sightline.bench.spread import Spread

from .report import check_target, write

#: Around a run of the model.
Way = Callable[[Any], AbstractContextManager[Any]]


def ways() -> dict[str, Way]:
    """PyTorch's attention, Sightline's, and Sightline's while every head is observed."""
    from sightline import Entropy, Received, TopK, record
    from sightline.integrations.transformers import attached

    asked = {"entropy": Entropy(), "top": TopK(8), "received": Received()}
    return {
        "sdpa": lambda model: nullcontext(),
        "sightline": attached,
        "sightline observing": lambda model: record(model, asked),
    }


def read(model: Any, prompt: Tensor, way: Way) -> tuple[Tensor, float, float]:
    """The logits after the prompt, and the seconds that took: on the wall, and of the process."""
    with torch.inference_mode(), way(model):
        wall, cpu = time.perf_counter(), time.process_time()
        logits = model(prompt, logits_to_keep=1).logits
        return logits.float(), time.perf_counter() - wall, time.process_time() - cpu


def check(way: str, logits: Tensor, baseline: Tensor, exact: Tensor) -> None:
    """Raise ClickException for logits further from float32's than twice the baseline's are, and a bit."""
    error, theirs = (float((t - exact).abs().amax() / exact.abs().amax()) for t in (logits, baseline))
    if error > 2 * theirs + 1e-4:
        raise click.ClickException(f"{way}: logits are off by {error:.1e} of the largest, and sdpa's by {theirs:.1e}")


def rounds_of(model: Any, prompt: Tensor, exact: Tensor, rounds: int) -> dict[str, list[tuple[float, float]]]:
    """Seconds on the wall and of the process, by way, taken in turns."""
    baseline = read(model, prompt, ways()["sdpa"])[0]
    timed: dict[str, list[tuple[float, float]]] = {way: [] for way in ways()}
    for _ in range(rounds):
        for way, around in ways().items():
            logits, wall, cpu = read(model, prompt, around)
            check(f"{way}, {prompt.shape[1]} tokens, {model.dtype}", logits, baseline, exact)
            timed[way].append((wall, cpu))
    return timed


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--model", "name", default="smollm2-135m", show_default=True, help="A name, folder or hub id.")
@click.option("--tokens", type=click.IntRange(2), multiple=True, default=(4096, 8192), show_default=True)
@click.option("--dtype", "dtypes", type=click.Choice(["float32", "bfloat16"]), multiple=True)
@click.option("--rounds", type=click.IntRange(1), default=3, show_default=True)
@click.option("--threads", type=click.IntRange(1), default=torch.get_num_threads(), show_default=True)
@click.option("--json", "target", type=click.Path(path_type=Path), metavar="FILE", help="Write every sample to a file.")
def main(
    name: str, tokens: tuple[int, ...], dtypes: tuple[str, ...], rounds: int, threads: int, target: Path | None
) -> None:
    """Time a model's prefill in interleaved rounds: sdpa, Sightline, and Sightline observing every head."""
    from sightline import models

    if target is not None:
        check_target(target)
    torch.set_num_threads(threads)
    model, _ = models.load(name)
    model.set_attn_implementation("sdpa")
    out, samples = Console(width=None if sys.stdout.isatty() else 120), []
    table = Table("tokens", "dtype", "attention", "seconds", "CPU seconds", "speedup over sdpa", box=None)
    for n in tokens:
        prompt = torch.randint(model.config.vocab_size, (1, n), generator=torch.Generator().manual_seed(n))
        exact = read(model.float(), prompt, ways()["sdpa"])[0]
        for dtype in dtypes or ("float32", "bfloat16"):
            timed = rounds_of(model.to(getattr(torch, dtype)), prompt, exact, rounds)
            for way, runs in timed.items():
                wall, cpu = zip(*runs)
                ratio = Spread.of([a[0] / b[0] for a, b in zip(timed["sdpa"], runs)])
                said = f"{ratio.median:.2f} ({ratio.low:.2f}–{ratio.high:.2f})"
                table.add_row(f"{n:,}", dtype, way, *(f"{Spread.of(t).median:.2f}" for t in (wall, cpu)), said)
                samples.append({"tokens": n, "dtype": dtype, "attention": way, "wall": wall, "cpu": cpu})
    out.print(table)
    out.print(f"Medians of {rounds} interleaved rounds, quartiles in parentheses; threads: {threads}.", style="dim")
    if target is not None:
        settings = {"model": name, "rounds": rounds, "threads": threads}
        write(target, {"machine": fingerprint(), "settings": settings, "samples": samples})


if __name__ == "__main__":
    main()
