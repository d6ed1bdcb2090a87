"""The LASSO by the conditions that its minimum meets; Spearman's ρ by hand."""

from __future__ import annotations

import math

import pytest
import torch

from sightline.bench.focus.linear import lasso, ranks, spearman


@pytest.mark.parametrize("alpha", [0.01, 0.1, 0.4])
@pytest.mark.parametrize("seed", range(4))
def test_the_lasso_meets_the_conditions_of_its_minimum(alpha: float, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(40, 8, generator=generator, dtype=torch.float64)
    y = x @ torch.randn(8, generator=generator, dtype=torch.float64) + torch.randn(40, generator=generator).double()
    x[:, 3] = 0
    x, y = x - x.mean(0), y - y.mean()
    w = lasso(x, y, alpha)
    slope = x.T @ (y - x @ w) / len(y)
    assert w[3] == 0
    # KKT: the slope is α sign(w) where w is not zero, and at most α in size elsewhere.
    torch.testing.assert_close(slope[w != 0], alpha * torch.sign(w[w != 0]), atol=1e-5, rtol=0)
    assert bool((slope.abs() <= alpha + 1e-5).all())
    # The negative control: other weights do not meet them.
    other = x.T @ (y - x @ (w + 0.1)) / len(y)
    assert not torch.allclose(other[w != 0], alpha * torch.sign(w[w != 0]), atol=1e-3)


def test_a_strong_penalty_leaves_nothing() -> None:
    x = torch.eye(4, dtype=torch.float64) - 0.25
    assert lasso(x, x[:, 0], 10.0).tolist() == [0, 0, 0, 0]


def test_spearman_by_hand() -> None:
    assert ranks([10, 30, 20, 30]).tolist() == [0, 2.5, 1, 2.5]
    assert spearman([1, 2, 3, 4], [10, 20, 30, 1000]) == pytest.approx(1)
    assert spearman([1, 2, 3, 4], [4, 3, 2, 1]) == pytest.approx(-1)
    # 1 − 6 Σ d² / (n (n² − 1)) with d = (1, −1, 0, 0)
    assert spearman([1, 2, 3, 4], [2, 1, 3, 4]) == pytest.approx(1 - 6 * 2 / (4 * 15))
    # With ties: ranks (0, 1.5, 1.5, 3) and (0, 1, 2, 3), 4.5 / √(4.5 · 5)
    assert spearman([1, 2, 2, 3], [1, 2, 3, 4]) == pytest.approx(4.5 / math.sqrt(4.5 * 5))
    assert spearman([1, 1, 1], [1, 2, 3]) == 0
