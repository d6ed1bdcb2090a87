"""Who is measured: PyTorch with the matrix stored and without it, and Sightline without and with observations."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F

from ..functional import attention, observe
from ..masks import Causal
from ..reductions import BlockMass, Entropy, Peak, Received, Reduction, TopK
from .case import Case, Inputs
from .definition import weights

__all__ = ["BASELINE", "CONTENDERS", "MAP", "OBSERVED", "Contender", "Results"]

#: By name: the output, and whatever tells where it looked.
Results = Mapping[str, Any]

#: The block map, 256 queries by 256 keys a block.
MAP = BlockMass(256, 256)
#: What "observing" observes; its results have these names.
OBSERVED: dict[str, Reduction] = {
    "entropy": Entropy(),
    "peak": Peak(),
    "top": TopK(8),
    "received": Received(),
    "map": MAP,
}


@dataclass(frozen=True)
class Contender:
    """One way to compute attention.

    label: how it is shown. attend: one call. stores: the bytes that it must hold beside its inputs, at the least.
    """

    label: str
    attend: Callable[[Case, Inputs], Results]
    stores: Callable[[Case], int]


def _eager(case: Case, x: Inputs) -> Results:
    p = weights(x.q, x.k, torch.arange(case.tokens) if case.causal else None).to(x.v.dtype)
    return {"output": p @ x.v, "weights": p}


def _sdpa(case: Case, x: Inputs) -> Results:
    return {"output": F.scaled_dot_product_attention(*x, is_causal=case.causal)}


def _sightline(case: Case, x: Inputs) -> Results:
    return {"output": attention(*x, mask=Causal() if case.causal else None)}


def _observing(case: Case, x: Inputs) -> Results:
    seen = observe(*x, OBSERVED, mask=Causal() if case.causal else None)
    return {"output": seen.output, **seen}


def _output(case: Case) -> int:
    return case.input_bytes // 3


def _matrices(case: Case) -> int:
    """The scores beside the weights; in half precision the scores, those in float32, and the weights in float32."""
    size = case.torch_dtype.itemsize
    return case.weights * (2 * size if size >= 4 else size + 4 + 4)


#: By name, in the order they are shown.
CONTENDERS: dict[str, Contender] = {
    "eager": Contender("eager", _eager, _matrices),
    "sdpa": Contender("SDPA", _sdpa, _output),
    "sightline": Contender("Sightline", _sightline, _output),
    "observing": Contender("Sightline, observing", _observing, _output),
}
#: Whom the others are measured against.
BASELINE = "sdpa"
