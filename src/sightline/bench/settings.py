"""What is asked of a run: which lengths, of which shape, and how much time to spend."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from ..errors import SpecError
from .case import Case

__all__ = ["DTYPES", "LONGEST", "SHORTEST", "Settings", "doubling"]

DTYPES = ("float32", "bfloat16")
#: Tokens of the first length, and of the last unless told otherwise.
SHORTEST, LONGEST = 512, 65_536
#: Tokens below which a call is mostly its own overhead.
_FEWEST = 16


def doubling(longest: int = LONGEST) -> tuple[int, ...]:
    """512, 1024, 2048, … up to a longest length. Raises SpecError for one below the first."""
    if longest < SHORTEST:
        raise SpecError(
            f"lengths up to {longest:,} tokens were asked for; they double from {SHORTEST}. "
            "Name a longest that is no shorter, or list the lengths themselves."
        )
    lengths = [SHORTEST]
    while lengths[-1] * 2 <= longest:
        lengths.append(lengths[-1] * 2)
    return tuple(lengths)


@dataclass(frozen=True)
class Settings:
    """tokens: the lengths, ascending. heads, width, dtype, causal: the shape of each call.

    threads: of each contender; as many as PyTorch takes if None. repeats: rounds of time at each length, fewer where
    they would take a contender longer than `limit` seconds. Who would need more than that for one call is left out.

    Raises SpecError for values that make no sense.
    """

    tokens: tuple[int, ...] = field(default_factory=doubling)
    heads: int = 1
    width: int = 64
    dtype: str = "float32"
    causal: bool = True
    threads: int | None = None
    repeats: int = 3
    limit: float = 15

    def __post_init__(self) -> None:
        object.__setattr__(self, "tokens", tuple(sorted(set(self.tokens))))
        if not self.tokens:
            raise SpecError("a benchmark of no length was asked for; there is nothing to measure. Name one or more.")
        if self.tokens[0] < _FEWEST:
            raise SpecError(
                f"a length of {self.tokens[0]} tokens was asked for; a call of fewer than {_FEWEST} is mostly its own "
                f"overhead. Name {_FEWEST} or more."
            )
        if self.dtype not in DTYPES:
            raise SpecError(f"dtype is {self.dtype!r}; those that are measured are {' and '.join(DTYPES)}. Name one.")
        for name in ("heads", "width", "repeats", "threads", "limit"):
            value = getattr(self, name)
            if value is not None and not 0 < value < math.inf:
                raise SpecError(f"{name} is {value}; it must be a number above 0. Pass such a one.")

    def case(self, tokens: int) -> Case:
        return Case(tokens, self.heads, self.width, self.dtype, self.causal)
