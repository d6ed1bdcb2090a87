"""One length's work: queries, keys and values of a shape, and which keys a query sees."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

__all__ = ["Case", "Inputs"]


class Inputs(NamedTuple):
    """Queries, keys and values, each [1, h, n, d]."""

    q: Tensor
    k: Tensor
    v: Tensor


@dataclass(frozen=True)
class Case:
    """Self-attention over `tokens` tokens. dtype: a name, such as "float32". causal: no token sees those after it."""

    tokens: int
    heads: int = 1
    width: int = 64
    dtype: str = "float32"
    causal: bool = True

    @property
    def torch_dtype(self) -> torch.dtype:
        return getattr(torch, self.dtype)

    @property
    def input_bytes(self) -> int:
        return 3 * self.heads * self.tokens * self.width * self.torch_dtype.itemsize

    @property
    def weights(self) -> int:
        """How many entries the attention matrix has, over all heads."""
        return self.heads * self.tokens**2

    def inputs(self) -> Inputs:
        """Normal, and the same every time."""
        generator = torch.Generator().manual_seed(self.tokens)
        shape = (1, self.heads, self.tokens, self.width)
        return Inputs(*(torch.randn(shape, generator=generator).to(self.torch_dtype) for _ in range(3)))
