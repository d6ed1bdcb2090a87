"""Attention by its formula in plain PyTorch, the matrix stored: what "eager" runs, and in float64 the reference."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["weights"]


def weights(q: Tensor, k: Tensor, at: Tensor | None = None) -> Tensor:
    """softmax(q kᵀ / √d), [b, h, n, m]. at: the position of each query, which sees no key after it; None sees all.

    Half-precision scores are normalised in float32.
    """
    scores = (q * q.shape[-1] ** -0.5) @ k.mT
    if at is not None:
        scores.masked_fill_(torch.arange(k.shape[-2]) > at[:, None], -torch.inf)
    return scores.softmax(-1, dtype=torch.float32 if scores.dtype.itemsize < 4 else None)
