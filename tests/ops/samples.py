"""Calls of the operators: masks, biases and every reduction, as arguments of the operators themselves."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from sightline import (
    Alibi,
    BlockMass,
    BlockMax,
    Causal,
    ColumnMax,
    ColumnMoment,
    DenseBias,
    DenseMask,
    Entries,
    Entropy,
    Lengths,
    LogSumExp,
    Peak,
    Received,
    Reduction,
    RelativeBias,
    RowMoment,
    Rows,
    SegmentMass,
    TopK,
    Window,
)
from sightline._dims import Dims
from sightline.functional import bound
from sightline.ops import _flatten
from sightline.request import Field, Request
from sightline.scores import Scores

B, H, HK, N, M, D = 2, 4, 2, 5, 7, 3


def tensor(*shape: int, dtype: torch.dtype = torch.float64, seed: int = 0, grad: bool = False) -> Tensor:
    g = torch.Generator().manual_seed(seed + sum(shape))
    return torch.randn(shape, generator=g, dtype=torch.float64).to(dtype).requires_grad_(grad)


def every_reduction(dtype: torch.dtype = torch.float64, grad: bool = False) -> dict[str, Reduction]:
    """One of each kind, for the shapes above; floating operands in `dtype`."""
    ids = torch.arange(M).expand(B, M) % 3
    keys = torch.arange(B * N * 2).reshape(B, 1, N, 2) % M
    return {
        "entropy": Entropy(),
        "lse": LogSumExp(),
        "peak": Peak(),
        "top": TopK(3),
        "entries": Entries(keys),
        "moment": RowMoment(tensor(1, HK, M, 2, dtype=dtype, seed=1, grad=grad)),
        "segments": SegmentMass(ids, 3),
        "rows": Rows(torch.tensor([0, -1])),
        "received": Received(),
        "weighted": Received(tensor(B, H, N, dtype=dtype, seed=2, grad=grad)),
        "columns": ColumnMoment(tensor(1, 1, N, 2, dtype=dtype, seed=3, grad=grad)),
        "largest": ColumnMax(),
        "blocks": BlockMass(2, 3),
        "tops": BlockMax(2, 3),
    }


def inputs(dtype: torch.dtype = torch.float64, grad: bool = False) -> tuple[Tensor, Tensor, Tensor]:
    """q, k, v."""
    return (
        tensor(B, H, N, D, dtype=dtype, seed=4, grad=grad),
        tensor(B, HK, M, D, dtype=dtype, seed=5, grad=grad),
        tensor(B, HK, M, D + 1, dtype=dtype, seed=6, grad=grad),
    )


def _arguments(
    reductions: list[Reduction], dtype: torch.dtype, grad: bool, field: bool = False, **given: Any
) -> list[Any]:
    q, k, v = inputs(dtype, grad)
    dims = Dims.of(q, k)
    options = {"mask": None, "bias": None, "scale": None, "softcap": None, "sinks": None} | given
    scores = Scores.of(dims, q, **options)
    gradients = Field(v.detach(), tensor(B, H, N, D + 1, dtype=dtype), "positive") if field else None
    flat = _flatten(Request(q, k, scores, bound(reductions, dims, q), gradients), "tiled")
    return [*flat[:17], flat[17:]]


def _plain(grad: bool) -> list[Any]:
    return _arguments([RowMoment(inputs(grad=grad)[2])], torch.float64, grad)


def _everything(grad: bool) -> list[Any]:
    return _arguments(
        list(every_reduction(grad=grad).values()),
        torch.float64,
        grad,
        mask=Causal() & Window(4),
        bias=Alibi(tensor(H, seed=7, grad=grad)) + DenseBias(tensor(B, 1, N, M, seed=8, grad=grad)),
        softcap=5.0,
        sinks=tensor(H, seed=9, grad=grad),
    )


def _empty_rows(grad: bool) -> list[Any]:
    seen = torch.arange(N * M).reshape(N, M) % 3 > 0
    seen[2] = False
    return _arguments(
        [RowMoment(inputs(grad=grad)[2]), Entropy(), Received()],
        torch.float64,
        grad,
        mask=Lengths(torch.tensor([5, 3]), torch.tensor([0, 6])) & DenseMask(seen),
        bias=RelativeBias(tensor(8, H, seed=10, grad=grad)),
        scale=0.7,
    )


def _coarse(grad: bool) -> list[Any]:
    few = [RowMoment(inputs(torch.bfloat16, grad)[2]), Entropy(), ColumnMoment(tensor(N, 2, dtype=torch.bfloat16))]
    return _arguments(few, torch.bfloat16, grad, mask=Causal())


def _float32(grad: bool) -> list[Any]:
    few = [Peak(), TopK(4), RowMoment(inputs(torch.float32, grad)[2]), BlockMass(2, 2), LogSumExp()]
    return _arguments(few, torch.float32, grad, mask=Causal())


def _field(grad: bool) -> list[Any]:
    few = [Received(), Rows(torch.tensor([1])), BlockMax(2, 2)]
    return _arguments(few, torch.float64, False, field=True, mask=Causal())


def _nothing(grad: bool) -> list[Any]:
    return _arguments([], torch.float64, False)


SAMPLES: dict[str, Callable[[bool], list[Any]]] = {
    "attention alone": _plain,
    "everything": _everything,
    "rows without keys": _empty_rows,
    "bfloat16": _coarse,
    "float32": _float32,
    "a gradient field": _field,
    "no reduction": _nothing,
}
WITH_GRADIENTS = [name for name in SAMPLES if name not in ("a gradient field", "no reduction")]
