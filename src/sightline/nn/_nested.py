"""Nested tensors in and out: sequences of a batch without padding, as nn.TransformerEncoder makes them in inference."""

from __future__ import annotations

import torch
from torch import Tensor

from ..errors import Unsupported
from ..masks import Lengths


def unnest(query: Tensor, key: Tensor, value: Tensor) -> tuple[tuple[Tensor, Tensor, Tensor], Lengths]:
    """The three padded with 0, the same where they are the same, and how long each entry's queries and keys are.

    Raises Unsupported where not all are nested tensors of the strided layout.
    """
    for name, t in (("query", query), ("key", key), ("value", value)):
        if not t.is_nested or t.layout != torch.strided:
            raise Unsupported(
                f"{name} is {'a nested tensor of layout ' + str(t.layout) if t.is_nested else 'not nested'}; nested "
                "attention takes query, key and value that are all nested and strided. Pad them with "
                "torch.nested.to_padded_tensor and pass a key_padding_mask."
            )
    padded: dict[int, Tensor] = {}
    for t in (query, key, value):
        if id(t) not in padded:
            padded[id(t)] = torch.nested.to_padded_tensor(t, 0.0)
    lengths = Lengths(_lengths(query), _lengths(key))
    return (padded[id(query)], padded[id(key)], padded[id(value)]), lengths


def nest(output: Tensor, lengths: Lengths) -> Tensor:
    """[N, L, E] without its padding, nested again."""
    assert lengths.q is not None
    rows = [entry[:length] for entry, length in zip(output, lengths.q.tolist(), strict=True)]
    return torch.nested.as_nested_tensor(rows)


def _lengths(t: Tensor) -> Tensor:
    return torch.tensor([entry.shape[0] for entry in t.unbind()])
