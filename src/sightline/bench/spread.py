"""The spread of samples, and of their ratios."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from statistics import quantiles

__all__ = ["Spread", "ratio"]


@dataclass(frozen=True)
class Spread:
    """The median and the quartiles around it."""

    low: float
    median: float
    high: float

    @staticmethod
    def of(samples: Sequence[float]) -> Spread:
        """Of one sample or more."""
        if len(samples) == 1:
            return Spread(samples[0], samples[0], samples[0])
        return Spread(*quantiles(samples, n=4, method="inclusive"))

    def to_json(self) -> dict[str, float]:
        return asdict(self)


def ratio(over: Sequence[float], under: Sequence[float]) -> Spread | None:
    """One set of samples ÷ another, round by round, for the rounds that both took part in; None if there are none."""
    pairs = [a / b for a, b in zip(over, under)]
    return Spread.of(pairs) if pairs else None
