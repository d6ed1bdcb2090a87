"""Sinks: how much of its attention each head leaves on the first token of a text."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import drawing
import torch
from torch import Tensor

from sightline import Received, record


@dataclass(frozen=True)
class Found:
    """first: [layers, heads], the share of all attention that the first token gets; received: [layers, n], the share
    that each token gets, the mean over heads.
    """

    first: Tensor
    received: Tensor


# --8<-- [start:measure]
def measure(model: Any, tokenizer: Any, text: str) -> Found:
    ids = tokenizer(text, return_tensors="pt").input_ids
    with torch.inference_mode(), record(model, {"received": Received()}) as seen:
        model(ids, use_cache=False, logits_to_keep=1)
    # Each row sums to 1, so that what all keys receive sums to the number of queries.
    shares = torch.stack([calls[0]["received"][0] for calls in seen.values()]) / ids.shape[1]
    return Found(shares[:, :, 0], shares.mean(1))


# --8<-- [end:measure]


def draw(found: Found, path: Path) -> None:
    figure = drawing.figure(9.2, 4.2)
    left, right = figure.subplots(1, 2, width_ratios=(1, 1.25))
    drawing.heads(figure, left, found.first.numpy(), "share of the head's attention", 1)
    drawing.title(left, "What the first token gets")
    layers = range(found.received.shape[0])
    most = found.received[:, 1:].max(1).values
    right.plot(
        layers, found.received[:, 0].numpy(), color=drawing.BLUE, marker="o", markersize=3.5, label="the first token"
    )
    right.plot(
        layers, most.numpy(), color=drawing.ORANGE, marker="s", markersize=3.5, label="the next most attended token"
    )
    even = 1 / found.received.shape[1]
    right.axhline(even, color=drawing.GREY, linewidth=1, linestyle=":", label=f"if all {1 / even:,.0f} got the same")
    right.set_yscale("log")
    right.set_xlabel("layer")
    right.set_ylabel("share of all attention, mean over heads")
    right.grid(alpha=0.25)
    right.legend(fontsize=8, loc="center right")
    drawing.title(right, "From layer to layer")
    drawing.save(figure, path)


def told(found: Found) -> str:
    mean = found.received[:, 0]
    return (
        f"{found.received.shape[1]} tokens; the first token's share: layers 0–1 {mean[0]:.3f}, {mean[1]:.3f}; "
        f"layers 2–29 {mean[2:].min():.3f}–{mean[2:].max():.3f}; all {mean.mean():.3f}; "
        f"heads above one half: {int((found.first > 0.5).sum())} of {found.first.numel()}; "
        f"by layer {[round(v, 3) for v in mean.tolist()]}"
    )
