"""What a family of models is, for a test: how to build a tiny one, what to give it, and where it attends."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from sightline.recording import Kind

VOCABULARY = 97
WINDOW = 4
CHUNK = 6
"""No chunk of eleven tokens, of which three at an end are padding, is padding alone: its rows would admit no key."""

# A spread-out initialisation: at the default one, attention is nearly uniform and every comparison would pass.
COMMON: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "initializer_range": 0.3,
    "bos_token_id": 1,
    "eos_token_id": None,
    "pad_token_id": 0,
}

Pattern = Callable[[Tensor, Tensor, Tensor], Tensor]
"""Query positions [n,1], key positions [1,m] and each sequence's first real token [b,1,1] → who sees whom, [·,n,m]."""


def full(i: Tensor, j: Tensor, first: Tensor) -> Tensor:
    return torch.ones(len(i), j.shape[1], dtype=torch.bool)


def sliding(i: Tensor, j: Tensor, first: Tensor) -> Tensor:
    return j > i - WINDOW


def sliding_both_ways(i: Tensor, j: Tensor, first: Tensor) -> Tensor:
    return (i - j).abs() <= WINDOW


def chunked(i: Tensor, j: Tensor, first: Tensor) -> Tensor:
    def chunk(at: Tensor) -> Tensor:
        return (at - first).div(CHUNK, rounding_mode="floor")

    return chunk(i) == chunk(j)


@dataclass(frozen=True)
class Attention:
    """One stack's attention of one kind: its modules' names, layer by layer, what each admits beside causality and
    padding, and the name of eager's matrices in the model's output."""

    kind: Kind
    names: tuple[str, ...]
    output: str = "attentions"
    patterns: tuple[Pattern, ...] = (full, full)


@dataclass(frozen=True)
class Inputs:
    """What a model is called with, and which tokens of each kind of attention's keys are real, bool [b, m]."""

    given: dict[str, Any]
    keys: dict[Kind, Tensor]
    """Real keys; "cross" are the encoder's."""
    written: Tensor
    """Real positions of the output [b, n]."""


@dataclass(frozen=True)
class Family:
    """A tiny model of the family, and all that it attends with."""

    build: Callable[[], PreTrainedModel]
    attentions: tuple[Attention, ...]
    inputs: Callable[[str], Inputs]
    """By padding: none, left, right."""

    def __iter__(self) -> Any:
        """Every module that attends: (attention, layer, name)."""
        return ((a, layer, name) for a in self.attentions for layer, name in enumerate(a.names))


def layers(pattern: str, which: tuple[int, ...] = (0, 1)) -> tuple[str, ...]:
    return tuple(pattern.format(i) for i in which)


def batch(length: int = 11, padding: str = "none", seed: int = 1) -> tuple[Tensor, Tensor]:
    """Two random sequences [2, length] and their 2-D mask; the first has three padding tokens on the side named."""
    ids = torch.randint(3, VOCABULARY, (2, length), generator=torch.Generator().manual_seed(seed))
    real = torch.ones_like(ids)
    if padding == "left":
        real[0, :3] = 0
    elif padding == "right":
        real[0, -3:] = 0
    return ids * real, real


def text(kind: Kind) -> Callable[[str], Inputs]:
    """Tokens for a model of one stack."""

    def inputs(padding: str) -> Inputs:
        ids, real = batch(padding=padding)
        return Inputs({"input_ids": ids, "attention_mask": real}, {kind: real.bool()}, real.bool())

    return inputs
