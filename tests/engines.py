"""Who is tested: every backend with linear memory, and the native one on every instruction set of this machine."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch

import sightline as sl
from cases import DTYPES, Case
from sightline.backends import COMPOSITE, cpu


@dataclass(frozen=True)
class Engine:
    """A backend, and what it runs on where there is a choice."""

    backend: str
    instructions: str = ""

    def __str__(self) -> str:
        return "-".join(filter(None, (self.backend, self.instructions)))

    @property
    def dtypes(self) -> tuple[torch.dtype, ...]:
        """Inputs that it serves."""
        return DTYPES[1:] if self.backend == cpu.NAME else DTYPES

    @property
    def finest(self) -> torch.dtype:
        return self.dtypes[0]

    def only(self, *dtypes: torch.dtype) -> tuple[torch.dtype, ...]:
        """Those of the dtypes that it serves."""
        return tuple(dtype for dtype in dtypes if dtype in self.dtypes)

    def serve(self, dtype: torch.dtype) -> None:
        """Skip a test of inputs that it refuses; that it does is tested in tests/kernels."""
        if dtype not in self.dtypes:
            pytest.skip(f"the {self.backend} backend computes in float32 and refuses {dtype}")

    def coarse(self, case: Case) -> torch.dtype | None:
        """What weights are rounded to where they multiply numbers of that dtype, if to anything."""
        pairs = self.instructions in ("amx_bf16", "avx512_bf16") and case.dtype == torch.bfloat16
        return torch.bfloat16 if pairs else None


def _engines() -> list[Engine]:
    folding = [info for info in sl.backends() if info.available and info.name not in COMPOSITE]
    return [
        Engine(info.name, instructions)
        for info in folding
        for instructions in (info.runs_on if info.name == cpu.NAME else ("",))
    ]


ENGINES = _engines()
