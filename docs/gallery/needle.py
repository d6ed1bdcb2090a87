"""A needle in 100,000 tokens: what a question looks at in each window of a book, by the heads that retrieve."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import drawing
import torch
from torch import Tensor

from sightline import record

NEEDLE = " The password of the lighthouse keepers was marzipan."
QUESTION = "What was the password of the lighthouse keepers?"
TOKENS, WINDOW, BLOCK = 100_000, 4_000, 20
PLACE = 0.618
"""How far into the book the needle is put."""


@dataclass(frozen=True)
class Found:
    """mass: [blocks], the share of its attention that the question gives to each block of its window; place: the token
    at which the needle lies; answer: what the model says when it reads the window with the best block.
    """

    mass: Tensor
    place: int
    answer: str
    even: float


# --8<-- [start:measure]
def with_needle(tokenizer: Any, text: str) -> tuple[list[int], int]:
    """The first 100,000 tokens of a text with the needle put in after a sentence; and the needle's place."""
    ids = tokenizer(text[: 6 * TOKENS], add_special_tokens=False, verbose=False)["input_ids"][:TOKENS]
    stop = tokenizer(".", add_special_tokens=False)["input_ids"][0]
    at = ids.index(stop, int(PLACE * len(ids))) + 1
    return [*ids[:at], *tokenizer(NEEDLE, add_special_tokens=False)["input_ids"], *ids[at:]][:TOKENS], at


def measure(model: Any, tokenizer: Any, text: str, heads: Sequence[tuple[int, int]]) -> Found:
    ids, place = with_needle(tokenizer, text)
    before, after = _frame(tokenizer)
    asked = tokenizer(QUESTION, add_special_tokens=False)["input_ids"]
    mass = []
    for start in range(0, len(ids), WINDOW):
        window = ids[start : start + WINDOW]
        read = torch.tensor([[*before, *window, *after[0], *asked, *after[1]]])
        with torch.inference_mode(), record(model, {}, layers=sorted({la for la, _ in heads}), keep="qk") as seen:
            model(read, use_cache=False, logits_to_keep=1)
        # The rows of the question and of what follows it, the columns of the window, of the chosen heads alone.
        rows = slice(len(before) + len(window) + len(after[0]), None)
        columns = slice(len(before), len(before) + len(window))
        calls = {la: seen[f"model.layers.{la}.self_attn"][0] for la, _ in heads}
        weights = torch.stack([calls[la].matrix(h)[0, 0, rows, columns].mean(0) for la, h in heads]).mean(0)
        mass += [part.sum() for part in weights.split(BLOCK)]
    found = torch.stack(mass)
    best = int(found.argmax()) * BLOCK // WINDOW * WINDOW
    prompt = torch.tensor([[*before, *ids[best : best + WINDOW], *after[0], *asked, *after[1]]])
    with torch.inference_mode():
        said = model.generate(prompt, attention_mask=torch.ones_like(prompt), max_new_tokens=24, do_sample=False)
    answer = tokenizer.decode(said[0, prompt.shape[1] :], skip_special_tokens=True)
    return Found(found, place, answer, BLOCK / WINDOW)


def _frame(tokenizer: Any) -> tuple[list[int], tuple[list[int], list[int]]]:
    """The tokens before a window, and those after it, before and after the question."""
    said = [{"role": "user", "content": "<<<\n\nUsing only the text above, answer in one short sentence. >>>"}]
    rendered = tokenizer.apply_chat_template(said, tokenize=False, add_generation_prompt=True)
    before, rest = rendered.split("<<<")
    middle, end = rest.split(">>>")
    parts = [tokenizer(part, add_special_tokens=False)["input_ids"] for part in (before, middle, end)]
    return parts[0], (parts[1], parts[2])


# --8<-- [end:measure]


def draw(found: Found, path: Path) -> None:
    figure = drawing.figure(9.2, 3.4)
    axes = figure.subplots()
    place = [BLOCK * (i + 0.5) for i in range(found.mass.shape[0])]
    axes.vlines(place, 0, found.mass.numpy() * 100, color=drawing.BLUE, linewidth=0.7)
    for edge in range(0, len(place) * BLOCK + 1, WINDOW):
        axes.axvline(edge, color=drawing.GREY, linewidth=0.4, alpha=0.35)
    height = float(found.mass.max()) * 100
    at = int(found.mass.argmax())
    hit = abs(place[at] - found.place) < 2 * BLOCK
    axes.annotate(
        "the needle" if hit else "largest, not the needle",
        (place[at], height),
        xytext=(10, -4),
        textcoords="offset points",
        color=drawing.ORANGE,
        fontweight="bold",
        va="top",
    )
    axes.plot([found.place], [0], marker="^", color=drawing.ORANGE, markersize=8, clip_on=False)
    axes.axhline(found.even * 100, color=drawing.GREY, linewidth=0.9, linestyle=":")
    axes.set_xlim(0, len(place) * BLOCK)
    axes.set_ylim(0, height * 1.08)
    axes.set_xlabel(f"token of the book (windows of {WINDOW:,} tokens between the grey lines, each read by itself)")
    axes.set_ylabel("share of attention, %")
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
    drawing.title(axes, f"What the question gives to each {BLOCK} tokens of its window, mean of eight retrieval heads")
    drawing.save(figure, path)


def told(found: Found) -> str:
    ordered = found.mass.sort(descending=True)
    first = ", ".join(
        f"{int(i) * BLOCK:,}: {v:.4f}" for i, v in zip(ordered.indices[:6].tolist(), ordered.values[:6].tolist())
    )
    return (
        f"needle at {found.place:,}; largest blocks {first}; median {found.mass.median():.5f}; even {found.even:.4f}; "
        f"answer {found.answer!r}"
    )
