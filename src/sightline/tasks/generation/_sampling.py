"""How the next token is chosen from the logits: the likeliest, or drawn."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ...errors import SpecError

__all__ = ["Chooser", "Sampling"]

_COLDEST = 1e-6
"""The least temperature that draws. Logits that differ in the fourth digit are e¹⁰⁰ apart here: nothing is lost."""


@dataclass(frozen=True)
class Sampling:
    """Temperature 0 takes the likeliest token; above, tokens are drawn from softmax(logits / temperature).

    `top_k` leaves the k likeliest, then `top_p` the likeliest that together have at least this probability; None leaves
    all. The same `seed` draws the same tokens, on the same device; None draws anew every time.

    Raises SpecError for values that make no sense, and for top_k or top_p where nothing is drawn.
    """

    temperature: float = 0.0
    top_p: float | None = None
    top_k: int | None = None
    seed: int | None = None

    def __post_init__(self) -> None:
        if not (math.isfinite(self.temperature) and self.temperature >= 0):
            raise SpecError(
                f"temperature is {self.temperature}; it divides the logits. Pass a number above 0, or 0 to always take "
                "the likeliest token."
            )
        if 0 < self.temperature < _COLDEST:
            raise SpecError(
                f"temperature is {self.temperature}; divided by so little, logits overflow, and no token but the "
                f"likeliest could be drawn. Pass 0 to take that one, or {_COLDEST} and more."
            )
        if self.top_p is not None and not 0 < self.top_p <= 1:
            raise SpecError(f"top_p is {self.top_p}; it is a probability. Pass a number above 0, at most 1.")
        if self.top_k is not None and self.top_k < 1:
            raise SpecError(f"top_k is {self.top_k}; it counts the tokens to draw from. Pass 1 or more.")
        if self.seed is not None and not 0 <= self.seed < 2**64:
            raise SpecError(f"seed is {self.seed}; it is a number of 64 bits. Pass 0 or more, below 2^64.")
        if self.temperature == 0 and (self.top_p is not None or self.top_k is not None):
            which = "top_p" if self.top_p is not None else "top_k"
            raise SpecError(
                f"{which} was given and temperature is 0; at temperature 0 the likeliest token is always taken, and "
                f"{which} has nothing to leave out. Pass a temperature above 0, such as 0.8, or leave {which} out."
            )


class Chooser:
    """Chooses token after token, with one stream of random numbers.

    Logits are warped by Transformers' own processors in the order in which its `generate` applies them, and drawn as
    there: with the same seed it draws the same tokens.
    """

    def __init__(self, sampling: Sampling, device: torch.device) -> None:
        # Imported late: Transformers is optional.
        from transformers import LogitsProcessorList, TemperatureLogitsWarper, TopKLogitsWarper, TopPLogitsWarper

        self._draws = sampling.temperature > 0
        self._warp: Any = LogitsProcessorList()
        if not self._draws:
            return
        if sampling.temperature != 1:
            self._warp.append(TemperatureLogitsWarper(float(sampling.temperature)))
        if sampling.top_k is not None:
            self._warp.append(TopKLogitsWarper(sampling.top_k))
        if sampling.top_p is not None and sampling.top_p < 1:
            self._warp.append(TopPLogitsWarper(float(sampling.top_p)))
        self._random = torch.Generator(device)
        if sampling.seed is None:
            self._random.seed()
        else:
            self._random.manual_seed(sampling.seed)

    @torch.no_grad()
    def choose(self, logits: Tensor) -> int:
        """The next token, from logits [vocabulary]."""
        logits = logits.detach().to(dtype=torch.float32)
        if not self._draws:
            return int(logits.argmax())
        # None of the warpers used looks at the tokens before.
        before = torch.empty(1, 0, dtype=torch.long, device=logits.device)
        probabilities = torch.softmax(self._warp(before, logits[None]), dim=-1)
        return int(torch.multinomial(probabilities, 1, generator=self._random))
