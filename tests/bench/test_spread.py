from __future__ import annotations

import pytest

from sightline.bench.spread import Spread, ratio


def test_a_spread_is_the_median_and_the_quartiles() -> None:
    assert Spread.of([5, 1, 2, 4, 3]) == Spread(2, 3, 4)
    assert Spread.of([7]) == Spread(7, 7, 7)


def test_a_ratio_is_taken_within_each_round() -> None:
    assert ratio([2, 8, 3], [1, 2, 3]) == Spread.of([2, 4, 1])
    assert ratio([2, 8, 3], [1]) == Spread.of([2])
    assert ratio([1], []) is None


@pytest.mark.parametrize("samples", [[3, 1, 2], [1, 1]])
def test_the_median_lies_between(samples: list[float]) -> None:
    spread = Spread.of(samples)
    assert min(samples) <= spread.low <= spread.median <= spread.high <= max(samples)
