"""What came of a run: a point for every contender and length, and the machine that it was measured on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from .contenders import BASELINE
from .settings import Settings
from .spread import Spread, ratio

__all__ = ["Figures", "Point", "State"]

#: A point has figures only if it is "measured". "left out": it was not tried. "failed": it ended without a result.
#: "wrong": its result was not right.
State = Literal["measured", "left out", "failed", "wrong"]


@dataclass(frozen=True)
class Point:
    """A contender at a length. why: what the state comes from, unless it was measured.

    wall, cpu: seconds of one call, a sample for each round. calls: how many calls a sample is the mean of.
    bytes: the growth of peak memory over the inputs, None where the system does not tell. needs, takes: the bytes that
    it would have to hold, or the seconds of one call, where it was left out for that.
    """

    tokens: int
    contender: str
    state: State
    why: str = ""
    wall: Sequence[float] = ()
    cpu: Sequence[float] = ()
    calls: int = 0
    bytes: int | None = None
    needs: int | None = None
    takes: float | None = None

    @property
    def seconds(self) -> float:
        """The median on the clock."""
        return Spread.of(self.wall).median


@dataclass(frozen=True)
class Figures:
    """All points, by length and then contender. available: bytes of memory before the run; None if not known."""

    settings: Settings
    machine: dict[str, Any]
    threads: int
    available: int | None
    points: Sequence[Point]

    @property
    def subject(self) -> str:
        """What was measured, on what, in one line."""
        s = self.settings
        kind = "causal self-attention" if s.causal else "self-attention"
        shape = f"{_counted(s.heads, 'head')} of width {s.width}"
        return f"{kind}, {shape}, {s.dtype} · {self.machine['cpu']}, {_counted(self.threads, 'thread')}"

    def measured(self, contender: str) -> list[Point]:
        """A contender's points that have figures."""
        return [p for p in self.points if p.contender == contender and p.state == "measured"]

    def baseline(self, point: Point) -> Point | None:
        """What a point is measured against: PyTorch's own attention at the same length, if that has figures."""
        return next((p for p in self.measured(BASELINE) if p.tokens == point.tokens), None)

    def time_ratio(self, point: Point) -> Spread | None:
        """A point's time ÷ the baseline's, round by round; None unless both were measured."""
        base = self.baseline(point)
        return ratio(point.wall, base.wall) if base else None

    def memory_ratio(self, point: Point) -> float | None:
        """A point's growth of memory ÷ the baseline's; None unless both are known and that is not 0."""
        base = self.baseline(point)
        return point.bytes / base.bytes if point.bytes is not None and base and base.bytes else None

    def to_dict(self) -> dict[str, Any]:
        """As plain data for JSON. Seconds and bytes."""
        return {
            "schema": 1,
            "machine": self.machine,
            "threads": self.threads,
            "available_bytes": self.available,
            "settings": asdict(self.settings),
            "points": [self._point(point) for point in self.points],
        }

    def _point(self, point: Point) -> dict[str, Any]:
        over = self.time_ratio(point)
        return {
            "tokens": point.tokens,
            "contender": point.contender,
            "state": point.state,
            "why": point.why or None,
            "calls_per_sample": point.calls or None,
            "wall": _samples(point.wall),
            "cpu": _samples(point.cpu),
            "peak_growth_bytes": point.bytes,
            "time_over_sdpa": over.to_json() if over else None,
            "memory_over_sdpa": self.memory_ratio(point),
        }


def _counted(number: int, noun: str) -> str:
    return f"{number} {noun}" + ("s" if number > 1 else "")


def _samples(samples: Sequence[float]) -> dict[str, Any] | None:
    return {"samples": list(samples), **Spread.of(samples).to_json()} if samples else None
