"""`python -m benchmarks.recording`: what it costs to record every head of a language model while it reads.

Each way of reading is a process of its own, so that its peak memory is its own: PyTorch's attention with nothing
recorded, and Sightline's recording Entropy, TopK(8), Received and a map of 64 × 64 of every head, without and with
queries and keys kept.
"""

from __future__ import annotations

import multiprocessing
import sys
import time
from collections.abc import Iterator
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

#: Each way of reading, with what it gives to `sightline.record`; None records nothing, by PyTorch's attention.
WAYS: dict[str, dict[str, Any] | None] = {
    "sdpa, nothing recorded": None,
    "recorded": {},
    "recorded, q and k kept": {"keep": "qk"},
}


def tensors(result: Any) -> Iterator[Tensor]:
    """The tensors of a reduction's result."""
    yield from (result,) if isinstance(result, Tensor) else result


def read(name: str, n: int, way: str, threads: int) -> dict[str, float]:
    """One process: bytes resident before, at the peak and of the results; seconds on the wall and of the process."""
    import sightline
    from sightline import _resident, models

    torch.set_num_threads(threads)
    model, _ = models.load(name)
    model.set_attn_implementation("sdpa")
    prompt = torch.randint(model.config.vocab_size, (1, n), generator=torch.Generator().manual_seed(n))
    side = -(-n // 64)
    asked = {
        "entropy": sightline.Entropy(),
        "top": sightline.TopK(8),
        "received": sightline.Received(),
        "map": sightline.BlockMass(side, side),
    }
    options, results = WAYS[way], 0
    with torch.inference_mode():
        model(prompt[:, :8], logits_to_keep=1)  # what is set up once is not the reading's
        _resident.give_back()
        before = _resident.held()
        _resident.restart_peak()
        wall, cpu = time.perf_counter(), time.process_time()
        if options is None:
            model(prompt, logits_to_keep=1)
        else:
            with sightline.record(model, asked, **options) as rec:
                model(prompt, logits_to_keep=1)
            results = sum(
                t.nbytes for calls in rec.values() for call in calls for r in call.values() for t in tensors(r)
            )
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    return {"before": before, "peak": _resident.peak(), "results": results, "wall": wall, "cpu": cpu}


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--model", "name", default="smollm2-135m", show_default=True, help="A name, folder or hub id.")
@click.option("--tokens", type=click.IntRange(2), default=8192, show_default=True)
@click.option("--rounds", type=click.IntRange(1), default=3, show_default=True)
@click.option("--threads", type=click.IntRange(1), default=torch.get_num_threads(), show_default=True)
@click.option("--json", "target", type=click.Path(path_type=Path), metavar="FILE", help="Write every sample to a file.")
def main(name: str, tokens: int, rounds: int, threads: int, target: Path | None) -> None:
    """Peak memory and time of a prompt that is read, with nothing recorded and with every head recorded."""
    if target is not None:
        check_target(target)
    samples: dict[str, list[dict[str, float]]] = {way: [] for way in WAYS}
    fresh = multiprocessing.get_context("spawn")
    for _ in range(rounds):
        for way, runs in samples.items():
            with fresh.Pool(1) as pool:
                runs.append(pool.apply(read, (name, tokens, way, threads)))
    table = Table("", "peak MB", "over sdpa's, less the results", "results MB", "seconds", "over sdpa's", box=None)
    plain = next(iter(samples.values()))
    for way, runs in samples.items():
        less = Spread.of([(a["peak"] - a["results"]) / b["peak"] for a, b in zip(runs, plain)])
        slower = Spread.of([a["wall"] / b["wall"] for a, b in zip(runs, plain)])
        peak, results, wall = (Spread.of([run[key] for run in runs]).median for key in ("peak", "results", "wall"))
        table.add_row(
            way, f"{peak / 1e6:,.0f}", f"{less.median:.3f}", f"{results / 1e6:,.0f}", f"{wall:.1f}",
            f"{slower.median:.2f} ({slower.low:.2f}–{slower.high:.2f})",
        )  # fmt: skip
    out = Console(width=None if sys.stdout.isatty() else 120)
    out.print(table)
    said = f"{name}, {tokens:,} tokens; medians of {rounds} interleaved rounds of fresh processes; threads: {threads}."
    out.print(said, style="dim")
    if target is not None:
        settings = {"model": name, "tokens": tokens, "rounds": rounds, "threads": threads}
        write(target, {"machine": fingerprint(), "settings": settings, "samples": samples})


if __name__ == "__main__":
    main()
