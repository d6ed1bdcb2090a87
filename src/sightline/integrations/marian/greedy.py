"""The likeliest next token, again and again, for many sentences at once; and where each token looked as it was written.

One step reads one token of each sentence, at the cost of the output layer above all. Sentences that have ended are
taken out of the batch, so that short ones do not wait, at full cost, for the longest.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from .module import MarianDecoderLayer, MarianSsruForTranslation, positions

__all__ = ["greedy"]

_GONE = 8
"""Ended sentences are taken out once they are one in so many: doing it copies the keys and values of the others."""


@torch.inference_mode()
def greedy(
    model: MarianSsruForTranslation, states: Tensor, mask: Tensor, limits: Sequence[int], layer: int = -1
) -> tuple[list[list[int]], list[Tensor]]:
    """The tokens of each sentence, and the weights [tokens, m] that each gave to the source in a decoder layer.

    `states` [b,m,d] are the encoder's, `mask` [b,m] is 1 for tokens and 0 for padding. A sentence ends with the token
    that ends sentences, which is among its tokens, or after as many as its limit. Weights are the mean over the heads.
    Tokens are those that `generate` writes with num_beams=1, whatever the batch, up to rounding.
    """
    width, end = model.config.d_model, model.config.eos_token_id
    ends = torch.tensor(end if isinstance(end, list) else [-1 if end is None else end], device=states.device)
    layers: list[Any] = list(model.decoder.layers)
    source = [one.encoder_attn.keys_and_values(states) for one in layers]
    hidden = torch.zeros_like(mask, dtype=states.dtype).masked_fill(mask == 0, -math.inf)[:, None, None]
    cells = [states.new_zeros(len(states), width)] * len(layers)
    places = positions(0, max(limits), width).to(states)
    room = torch.tensor(list(limits), device=states.device)
    alive = torch.arange(len(states), device=states.device)  # the sentence of each row of the batch
    written = torch.zeros(len(states), dtype=torch.bool, device=states.device)  # those that have ended
    token = torch.full((len(states),), model.config.decoder_start_token_id, device=states.device)
    steps: list[tuple[Tensor, Tensor, Tensor]] = []
    for step in range(max(limits)):
        x = model.shared(token)[:, None] * math.sqrt(width) + places[step]
        looks: list[Tensor] = []
        for i, one in enumerate(layers):
            x, cells[i], weights = _step(one, x, cells[i], source[i], hidden)
            looks.append(weights)
        token = F.linear(x[:, 0], model.shared.weight, model.output_bias).argmax(-1)
        steps.append((alive, token, looks[layer].mean(1)[:, 0]))
        written = written | torch.isin(token, ends) | (room <= step + 1)
        gone = int(written.sum())
        if gone == len(written):
            break
        if gone * _GONE >= len(written):
            kept = (~written).nonzero()[:, 0]
            alive, token, room, written = alive[kept], token[kept], room[kept], written[kept]
            cells = [cell[kept] for cell in cells]
            source = [(k[kept], v[kept]) for k, v in source]
            hidden = hidden[kept]
    return _by_sentence(steps, len(states), set(ends.tolist()), limits)


def _step(
    layer: MarianDecoderLayer, x: Tensor, cell: Tensor, source: tuple[Tensor, Tensor], hidden: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """A decoder layer's output [b,1,d], its cell after it, and its weights [b,h,1,m]: by the definition."""
    remembered, cell = layer.rnn(x, cell)
    x = layer.rnn_layer_norm(x + remembered)
    attended, weights = layer.encoder_attn.weighed(x, *source, hidden)
    x = layer.encoder_attn_layer_norm(x + attended)
    return layer.final_layer_norm(x + layer.ffn(x)), cell, weights


def _by_sentence(
    steps: Sequence[tuple[Tensor, Tensor, Tensor]], count: int, ends: set[int], limits: Sequence[int]
) -> tuple[list[list[int]], list[Tensor]]:
    """Steps of (sentences [b], their tokens [b], weights [b,m]) → each sentence's, up to its end."""
    tokens: list[list[int]] = [[] for _ in range(count)]
    weights: list[list[Tensor]] = [[] for _ in range(count)]
    for alive, token, looked in steps:
        for i, new, row in zip(alive.tolist(), token.tolist(), looked.unbind(), strict=True):
            if len(tokens[i]) < limits[i] and not (tokens[i] and tokens[i][-1] in ends):
                tokens[i].append(new)
                weights[i].append(row)
    return tokens, [torch.stack(rows).cpu() for rows in weights]
