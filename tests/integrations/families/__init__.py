"""Tiny random Transformers models, and what eager says about them: the reference of every test in this folder."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor
from transformers import PreTrainedModel

from ._decoders import DECODER_FAMILIES
from ._encoder_decoders import ENCODER_DECODER_FAMILIES
from ._encoders import ENCODER_FAMILIES
from ._family import COMMON, VOCABULARY, Attention, Family, Inputs, batch

__all__ = [
    "COMMON",
    "DECODERS",
    "ENCODER_DECODERS",
    "FAMILIES",
    "VOCABULARY",
    "Attention",
    "Family",
    "Inputs",
    "admitted",
    "batch",
    "build",
    "weights",
]

FAMILIES: Mapping[str, Family] = {**DECODER_FAMILIES, **ENCODER_FAMILIES, **ENCODER_DECODER_FAMILIES}
DECODERS = list(DECODER_FAMILIES)
ENCODER_DECODERS = list(ENCODER_DECODER_FAMILIES)


def build(family: str, seed: int = 0) -> PreTrainedModel:
    """A tiny random model, in eval mode, on eager attention."""
    torch.manual_seed(seed)
    return FAMILIES[family].build().eval()


def admitted(attention: Attention, layer: int, keys: Tensor, rows: range, columns: range | None = None) -> Tensor:
    """From first principles, bool [b, 1, n, m]: who sees whom among these positions.

    `keys` [b, positions] is True for real tokens, `columns` are all of them if not given. In cross-attention, where
    queries have no place among the keys, all see all real ones.
    """
    columns = range(keys.shape[1]) if columns is None else columns
    i, j = torch.arange(rows.start, rows.stop)[:, None], torch.arange(columns.start, columns.stop)[None]
    seen = keys.bool()[:, None, columns.start : columns.stop].expand(-1, len(rows), -1)
    if attention.kind != "cross":
        seen = seen & attention.patterns[layer](i, j, keys.long().argmax(-1)[:, None, None])
    if attention.kind == "decoder":
        seen = seen & (j <= i)
    return seen[:, None]


def weights(attentions: Tensor, seen: Tensor) -> Tensor:
    """Eager's attention [b,h,n,m] with the rows that admit no key set to 0; eager spreads those over all keys."""
    return torch.where(seen, attentions, 0)
