"""Attention by its formula, the matrix stored: the reference in float64, and the peer "eager" in the case's dtype."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from .cases import Case, blocks

#: By name: the output, each observation, and dq, dk, dv for a backward case.
Results = dict[str, Any]


def weights(case: Case, q: Tensor, k: Tensor, rows: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Logits and weights [b, h, n, m]. rows: which queries q holds, if not all of them.

    Half-precision scores are normalised in float32; where they are observed they are float32 from the start.
    """
    if case.observed and q.dtype.itemsize < 4:
        q, k = q.float(), k.float()
    k = k.repeat_interleave(case.h // case.hk, 1) if case.h != case.hk else k
    s = (q * (1 / math.sqrt(case.d))) @ k.mT
    if case.causal:
        rows = torch.arange(case.n) if rows is None else rows
        s = s.masked_fill(torch.arange(case.m) > rows[:, None] + (case.m - case.n), -math.inf)
    return s, s.softmax(-1, dtype=torch.float32 if s.dtype.itemsize < 4 else None)


def output(case: Case, p: Tensor, v: Tensor) -> Tensor:
    """P v, in v's dtype."""
    v = v.repeat_interleave(case.h // case.hk, 1) if case.h != case.hk else v
    return p.to(v.dtype) @ v


def attend(case: Case, q: Tensor, k: Tensor, v: Tensor) -> Results:
    """The output and everything observed."""
    s, p = weights(case, q, k)
    seen = {name: OBSERVERS[name](s, p, *arguments) for name, arguments in case.observed}
    return {"output": output(case, p, v), **seen}


def _entropy(_: Tensor, p: Tensor) -> Tensor:
    return -torch.xlogy(p, p).sum(-1)


def _peak(_: Tensor, p: Tensor) -> tuple[Tensor, Tensor]:
    value, key = p.max(-1)
    return value, key


def _top(s: Tensor, _: Tensor, k: int) -> Tensor:
    chosen = s.topk(k)
    return chosen.indices.masked_fill(chosen.values == -math.inf, -1)


def _received(_: Tensor, p: Tensor) -> Tensor:
    return p.sum(-2)


def _block_mass(_: Tensor, p: Tensor, rows: int, cols: int) -> Tensor:
    *lead, n, m = p.shape
    down, across = blocks(n, rows), blocks(m, cols)
    padded = F.pad(p, (0, across * cols - m, 0, down * rows - n))
    return padded.reshape(*lead, down, rows, across, cols).sum((-3, -1))


OBSERVERS: dict[str, Callable[..., Any]] = {
    "Entropy": _entropy,
    "Peak": _peak,
    "TopK": _top,
    "Received": _received,
    "BlockMass": _block_mass,
}
