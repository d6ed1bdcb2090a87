"""Translation: which word of the source each word of the translation looked at."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import drawing
import torch
from torch import Tensor

from sightline import record

SENTENCE = "The old fisherman bought a red boat because his white house was far from the sea."


@dataclass(frozen=True)
class Found:
    """weights: [tokens written, tokens read] of the layer that was trained to align, the mean of its heads."""

    weights: Tensor
    read: list[str]
    written: list[str]


# --8<-- [start:measure]
def measure(model: Any, tokenizer: Any, sentence: str = SENTENCE) -> Found:
    source = tokenizer(sentence, return_tensors="pt")
    with torch.inference_mode():
        out = model.generate(**source, do_sample=False)
        with record(model, {}, keep="qk") as seen:
            model(**source, decoder_input_ids=out[:, :-1], use_cache=False)
    cross = [calls[0] for calls in seen.values() if calls[0].kind == "cross"]
    weights = cross[model.config.alignment_layer].matrix().dense().mean(1)[0]
    return Found(weights, _pieces(tokenizer, source.input_ids[0]), _pieces(tokenizer, out[0, 1:]))


def _pieces(tokenizer: Any, ids: Tensor) -> list[str]:
    return [str(piece).replace("▁", "") for piece in tokenizer.convert_ids_to_tokens(ids.tolist())]


# --8<-- [end:measure]


def draw(found: Found, path: Path) -> None:
    figure = drawing.figure(8.2, 6.4)
    axes = figure.subplots()
    shown = axes.imshow(found.weights.numpy(), cmap=drawing.MAP, vmin=0, vmax=1, interpolation="nearest")
    axes.set_xticks(range(len(found.read)), found.read, rotation=55, ha="right", rotation_mode="anchor", fontsize=9)
    axes.set_yticks(range(len(found.written)), found.written, fontsize=9)
    axes.set_xlabel("English, read")
    axes.set_ylabel("Portuguese, written")
    drawing.title(axes, "What each token of the translation looked at")
    figure.colorbar(shown, ax=axes, label="weight, mean over the heads of the alignment layer", shrink=0.85)
    drawing.save(figure, path)


def told(found: Found) -> str:
    pairs = [f"{w}←{found.read[int(row.argmax())]} {row.max():.2f}" for w, row in zip(found.written, found.weights)]
    return "; ".join(pairs)
