"""Induction heads: random tokens, twice, and the heads that look at what came next the first time."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import drawing
import torch
from torch import Tensor

from sightline import Entries, record


@dataclass(frozen=True)
class Found:
    """scores: [layers, heads]; best: (layer, head) of the largest; map: that head's weights [n, n] for one sequence."""

    scores: Tensor
    best: tuple[int, int]
    map: Tensor
    length: int


# --8<-- [start:measure]
def sequences(vocabulary: int, first: int, length: int, count: int, seed: int = 0) -> Tensor:
    """A first token, then `length` random tokens twice over: [count, 1 + 2 · length]."""
    drawn = torch.randint(100, vocabulary, (count, length), generator=torch.Generator().manual_seed(seed))
    return torch.cat([torch.full((count, 1), first), drawn, drawn], dim=1)


def keys_of_induction(length: int) -> Tensor:
    """For each query of the second copy the key that came after the same token in the first; −1 elsewhere."""
    i = torch.arange(1 + 2 * length)
    second = (i > length) & (i < 2 * length)
    return torch.where(second, i - length + 1, -1)[None, None, :, None]


def measure(model: Any, tokenizer: Any, length: int = 60, count: int = 4) -> Found:
    ids = sequences(len(tokenizer), tokenizer.bos_token_id, length, count)
    keys = keys_of_induction(length)
    with torch.inference_mode(), record(model, {"next": Entries(keys)}, keep="qk") as seen:
        model(ids)
    there = keys[0, 0, :, 0] >= 0
    scores = torch.stack([calls[0]["next"][:, :, there, 0].mean((0, 2)) for calls in seen.values()])
    layer, head = divmod(int(scores.argmax()), scores.shape[1])
    weights = list(seen.values())[layer][0].matrix(head).dense()[0, 0]
    return Found(scores, (layer, head), weights, length)


# --8<-- [end:measure]


def draw(found: Found, path: Path) -> None:
    figure = drawing.figure(9.2, 4.3)
    left, right = figure.subplots(1, 2, width_ratios=(1, 1.25))
    drawing.heads(figure, left, found.scores.numpy(), "mean weight on the token that came next", 1)
    drawing.title(left, "Every head")
    shown = right.imshow(found.map.sqrt().numpy(), cmap=drawing.MAP, vmin=0, vmax=1, interpolation="nearest")
    drawing.title(right, f"Layer {found.best[0]}, head {found.best[1]}")
    right.axhline(found.length + 0.5, color="white", linewidth=0.8, linestyle=":")
    right.axvline(found.length + 0.5, color="white", linewidth=0.8, linestyle=":")
    right.set_xlabel("key: position looked at")
    right.set_ylabel("query: position that looks")
    bar = figure.colorbar(shown, ax=right, label="weight (colour by its square root)")
    marks = [0, 0.05, 0.2, 0.5, 1]
    bar.set_ticks([mark**0.5 for mark in marks], labels=[f"{mark:g}" for mark in marks])
    drawing.save(figure, path)


def told(found: Found) -> str:
    ordered = found.scores.flatten().sort(descending=True)
    heads = [divmod(int(i), found.scores.shape[1]) for i in ordered.indices[:8]]
    listed = ", ".join(f"{la}.{h} {v:.2f}" for (la, h), v in zip(heads, ordered.values.tolist()))
    above = int((found.scores > 0.3).sum())
    return f"largest: {listed}; {above} of {found.scores.numel()} above 0.3; median {found.scores.median():.4f}"
