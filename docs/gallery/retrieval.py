"""Retrieval heads: which heads look at the sentence that answers, while the answer is written."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import drawing
import torch
from torch import Tensor

from sightline import SegmentMass, record

QUESTION = "What words did the broadcast always end with?"
NEEDLE = "The broadcast always ended with"
"""What the sentence that answers begins with."""


@dataclass(frozen=True)
class Found:
    """mass: [layers, heads], the mean weight that the answer's rows give to the needle; even: what a head that spreads
    its weight evenly would give. map: [answer tokens, needle tokens] of the first of the heads, with their texts.
    """

    mass: Tensor
    even: float
    heads: list[tuple[int, int]]
    map: Tensor
    answer: list[str]
    needle: list[str]


# --8<-- [start:measure]
def asked(tokenizer: Any, text: str, question: str) -> str:
    said = f"{text}\n\nUsing only the text above, answer in one short sentence. {question}"
    chat = [{"role": "user", "content": said}]
    return tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True)


def measure(model: Any, tokenizer: Any, text: str, question: str = QUESTION, needle: str = NEEDLE) -> Found:
    prompt = asked(tokenizer, text, question)
    encoded = tokenizer(prompt, add_special_tokens=False, return_offsets_mapping=True)
    start = prompt.index(needle)
    end = prompt.index(".", start)
    inside = [i for i, (a, b) in enumerate(encoded["offset_mapping"]) if b > start and a < end]
    ids = torch.tensor([encoded["input_ids"]])
    n = ids.shape[1]
    with torch.inference_mode():
        whole = model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=32, do_sample=False)
        whole = whole[:, :-1] if whole[0, -1] == model.generation_config.eos_token_id else whole
        segments = torch.full((1, whole.shape[1] - 1), -1)
        segments[0, inside] = 0
        with record(model, {"needle": SegmentMass(segments, 1)}, keep="qk") as seen:
            model(whole[:, :-1], use_cache=False, logits_to_keep=1)
    # Row i predicts token i + 1: the rows that write the answer are n − 1 and those after it.
    mass = torch.stack([calls[0]["needle"][0, :, n - 1 :, 0].mean(-1) for calls in seen.values()])
    order = mass.flatten().argsort(descending=True).tolist()
    best = [divmod(i, mass.shape[1]) for i in order[:8]]
    layer, head = best[0]
    weights = list(seen.values())[layer][0].matrix(head)[0, 0, n - 1 :, inside[0] : inside[-1] + 1]
    rows = torch.arange(n, whole.shape[1])
    return Found(
        mass,
        float((len(inside) / rows).mean()),
        best,
        weights,
        [tokenizer.decode([i]) for i in whole[0, n:].tolist()],
        [tokenizer.decode([encoded["input_ids"][i]]) for i in inside],
    )


# --8<-- [end:measure]


def draw(found: Found, path: Path) -> None:
    figure = drawing.figure(9.6, 5.0)
    left, right = figure.subplots(1, 2, width_ratios=(0.75, 1.5))
    drawing.heads(figure, left, found.mass.numpy(), "mean weight on the needle", None)
    drawing.title(left, "From the answer to the needle")
    shown = right.imshow(found.map.numpy(), cmap=drawing.MAP, vmin=0, aspect="auto", interpolation="nearest")
    right.set_xticks(range(len(found.needle)), [t.strip() for t in found.needle], rotation=90, fontsize=7.5)
    right.set_yticks(range(len(found.answer)), [t.strip() for t in found.answer], fontsize=7.5)
    right.set_xlabel("tokens of the needle")
    right.set_ylabel("token being written")
    layer, head = found.heads[0]
    drawing.title(right, f"Layer {layer}, head {head}")
    figure.colorbar(shown, ax=right, label="weight")
    drawing.save(figure, path)


def told(found: Found) -> str:
    listed = ", ".join(f"{la}.{h} {found.mass[la, h]:.2f}" for la, h in found.heads)
    return (
        f"answer {''.join(found.answer)!r}; needle {len(found.needle)} tokens; largest: {listed}; "
        f"median head {found.mass.median():.4f}; even {found.even:.4f}; "
        f"above 0.2: {int((found.mass > 0.2).sum())} of {found.mass.numel()}"
    )
