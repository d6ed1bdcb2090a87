"""Recordings of tiny random models, for the tests of this folder."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from integrations.families import batch, build
from sightline.integrations import record
from sightline.recording import Recorder, Tokens, Trace
from sightline.reductions import BlockMass, Entropy, Peak, Received, Reduction, TopK

ASKED: dict[str, Reduction] = {
    "entropy": Entropy(),
    "peak": Peak(),
    "top": TopK(3),
    "received": Received(),
    "map": BlockMass(4, 4),
}


def recorded(family: str = "llama", new: int = 3, padding: str = "left", **options: Any) -> Recorder:
    """A tiny model's prefill of 9 tokens and `new` steps."""
    model, (ids, real) = build(family), batch(9, padding)
    options = {"keep": "qk", **options}
    with record(model, ASKED, **options) as rec:
        model.generate(
            ids, attention_mask=real, max_new_tokens=new + 1, min_new_tokens=new + 1, do_sample=False,
            disable_compile=True,
        )  # fmt: skip
    return rec


def tokens(b: int = 2, t: int = 12) -> Tokens:
    """As many as `recorded` reads and writes, with text and characters."""
    strings = tuple(tuple(f"<{row},{i}>" for i in range(t)) for row in range(b))
    ends = torch.tensor([[len("".join(row[: i + 1])) for i in range(t)] for row in strings])
    starts = torch.cat([torch.zeros(b, 1, dtype=torch.int64), ends[:, :-1]], 1)
    ids = torch.arange(b * t).reshape(b, t)
    return Tokens(ids, strings, tuple("".join(row) for row in strings), torch.stack([starts, ends], -1))


def small_trace() -> Trace:
    return recorded().trace(tokens(), model="a tiny Llama")


def parts(result: Any) -> tuple[Tensor, ...]:
    return (result,) if isinstance(result, Tensor) else tuple(result)
