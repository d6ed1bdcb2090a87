"""Scores fitted to ablations, and how well scores foretell other ablations."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

__all__ = ["lasso", "ranks", "spearman"]


def lasso(x: Tensor, y: Tensor, alpha: float, *, rounds: int = 500, tolerance: float = 1e-7) -> Tensor:
    """argmin_w ½/n ‖y − x w‖² + α ‖w‖₁ by cyclic coordinate descent; x [n, s] and y [n], float64 and centred.

    Columns of x that are zero get 0. Source: Friedman, Hastie & Tibshirani (2010), "Regularization paths", section 2.
    """
    n, s = x.shape
    scale = x.square().sum(0) / n
    w = x.new_zeros(s)
    rest = y.clone()
    for _ in range(rounds):
        moved = 0.0
        for j in range(s):
            if scale[j] == 0:
                continue
            target = x[:, j] @ rest / n + scale[j] * w[j]
            new = torch.sign(target) * (target.abs() - alpha).clamp_min(0) / scale[j]
            moved = max(moved, float((new - w[j]).abs()))
            rest = rest + x[:, j] * (w[j] - new)
            w[j] = new
        if moved < tolerance:
            break
    return w


def ranks(values: Sequence[float]) -> Tensor:
    """The rank of each value from 0, in float64; equal values share the mean of theirs."""
    v = torch.tensor(list(values), dtype=torch.float64)
    below = (v[None] < v[:, None]).sum(1)
    equal = (v[None] == v[:, None]).sum(1)
    return below.double() + (equal.double() - 1) / 2


def spearman(a: Sequence[float], b: Sequence[float]) -> float:
    """Spearman's ρ, the correlation of ranks; 0 where either is constant."""
    x, y = (r - r.mean() for r in (ranks(a), ranks(b)))
    size = float(x.norm() * y.norm())
    return float(x @ y) / size if size else 0.0
