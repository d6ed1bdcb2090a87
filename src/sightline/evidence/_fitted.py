"""Drops that add up: one number a span, fitted so that sums of them foretell what any part of the document is worth."""

from __future__ import annotations

import random
from collections.abc import Callable, Collection, Sequence

import torch
from torch import Tensor

from ..errors import SpecError
from ..reader import Reader
from ..sentences import Span
from ._drops import measured_drop, to_read

Tokens = Sequence[int]

_PENALTY = 0.1
"""λ of the ridge: enough to settle what the sets leave open, and less than one set in which a span stays."""


def fitted_drops(
    reader: Reader,
    prompt: Tokens,
    spans: Sequence[Span],
    answer: Tokens,
    without: Callable[[Collection[Span]], Tokens],
    *,
    forwards: int = 16,
    seed: int = 0,
) -> list[float]:
    """w_i of each span, in nats, such that log p(answer | kept spans) ≈ constant + Σ_{i kept} w_i.

        w = argmin Σ_sets (log p(answer | kept) − c − Σ_{i kept} w_i)² + λ ‖w‖²,   λ = 0.1, c free

    The sets are the whole document, the document without each span alone where that leaves some over, and random ones
    in which each span stays with probability ½: `forwards` in all, the whole document not counted. A drop alone misses
    what two spans hold both: without either the answer stands, without both it falls, and the fit shares that out.

    `without` makes the prompt whose document lacks some spans. The reader has read at least prompt[:-1]; what it holds
    of it afterwards is less. Cost: reading again, for each set, what follows the first span that it lacks.

    Raises SpecError for forwards < 1. Source: linear datamodels of ablations, Cohen-Wang et al. (2024), "ContextCite",
    with a ridge in place of the LASSO and single removals in place of half of the random ones.
    """
    if forwards < 1:
        raise SpecError(f"forwards is {forwards}; a fit needs measurements. Pass 1 or more, 16 is the default.")
    if not spans:
        return []
    reader.read(prompt[reader.length : len(prompt) - 1])
    reader.rewind(len(prompt) - 1)
    baseline = reader.log_prob(prompt[-1:], answer)
    removed = _sets(len(spans), forwards, seed)
    shortened = [without([spans[i] for i in sorted(numbers)]) for numbers in removed]
    kept = torch.ones(1 + len(removed), len(spans), dtype=torch.float64)
    drops = torch.zeros(1 + len(removed), dtype=torch.float64)
    # From the end of the document to its start: each rewind then keeps all that the next measurement can use.
    for at in sorted(range(len(removed)), key=lambda i: to_read(prompt, shortened[i])):
        kept[1 + at, sorted(removed[at])] = 0
        drops[1 + at] = measured_drop(reader, prompt, shortened[at], answer, baseline)
    return _ridge(kept, -drops).tolist()


def _sets(spans: int, forwards: int, seed: int) -> list[frozenset[int]]:
    """The spans that each measurement takes out: one alone each, if there is room for more, and random ones."""
    chance = random.Random(seed)
    singles = [frozenset([i]) for i in range(spans)] if spans < forwards else []
    return singles + [
        frozenset(i for i in range(spans) if chance.random() < 0.5) for _ in range(forwards - len(singles))
    ]


def _ridge(x: Tensor, y: Tensor) -> Tensor:
    """argmin_w min_c ‖y − c − x w‖² + λ ‖w‖²; x [n, s] and y [n] in float64."""
    x, y = x - x.mean(0), y - y.mean()
    return torch.linalg.solve(x.T @ x + _PENALTY * torch.eye(x.shape[1], dtype=x.dtype), x.T @ y)
