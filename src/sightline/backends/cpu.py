"""Native kernels for CPUs: one pass over the keys for the output and everything observed, in linear memory.

The kernels (csrc/) are compiled for several instruction sets, and the best that the machine has is used. Rows are taken in
blocks; while a row's log-sum-exp is still moving its unnormalised weights are kept in a strip of a few rows × all keys, and
what needs settled weights is read from it afterwards, so q·k is computed once. No result depends on what else is observed.

bfloat16 products run on the machine's own instructions where it has them, accumulated in float32; the weights are then rounded
to bfloat16 to multiply bfloat16 values, as PyTorch's own attention does, and to nothing else: observations are float32.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ..reductions import (
    BlockMass,
    BlockMax,
    ColumnMax,
    ColumnMoment,
    Entries,
    Entropy,
    LogSumExp,
    Peak,
    Received,
    Reduction,
    RowMoment,
    Rows,
    SegmentMass,
    TopK,
)
from ..request import Request

try:
    from .. import _native  # type: ignore[attr-defined]
except ImportError:  # installed where there was no compiler
    _native = None

NAME = "cpu"
#: The instruction set to use instead of the best one, one of `instruction_sets()`: for tests.
INSTRUCTIONS = ""
#: Widest queries, keys and values.
WIDEST = 256

_KINDS = {
    torch.float32: 0,
    torch.bfloat16: 1,
    torch.float16: 2,
    torch.float64: 3,
    torch.int64: 4,
    torch.int32: 5,
    torch.bool: 6,
}
#: In the order of `What` in csrc/request.hpp. The log-sum-exp is a result of every call and no observation.
_WHAT: dict[type[Reduction], int] = {
    RowMoment: 0,
    Entropy: 1,
    Peak: 2,
    TopK: 3,
    Received: 4,
    ColumnMax: 5,
    ColumnMoment: 6,
    BlockMass: 7,
    BlockMax: 8,
    Rows: 9,
    Entries: 10,
    SegmentMass: 11,
}


def instruction_sets() -> list[str]:
    """The instruction sets that the kernels were compiled for and this machine has, best first."""
    return [] if _native is None else _native.instruction_sets()


def refusals(request: Request) -> list[str]:
    """Why this backend cannot serve the request; empty if it can."""
    reasons: list[str] = []
    d = request.dims
    if _native is None:
        reasons.append("its kernels were not built; install a C++ compiler and reinstall sightline")
    if request.q.device.type != "cpu":
        reasons.append(f"it runs on CPU tensors; q is on {request.q.device}")
    if request.q.dtype not in (torch.float32, torch.bfloat16, torch.float16):
        reasons.append(f"it computes in float32, which would lose digits of {request.q.dtype}")
    if d.d > WIDEST:
        reasons.append(f"its kernels take widths up to {WIDEST}; q and k have d={d.d}")
    if request.field is not None:
        reasons.append("it has no kernels for gradient-weighted relevance yet")
    for r in request.reductions:
        name = type(r).__name__
        if type(r) not in _WHAT and not isinstance(r, LogSumExp):
            reasons.append(f"it has no kernel for {name}")
        elif isinstance(r, RowMoment) and r.f.shape[-1] > WIDEST:
            reasons.append(f"its kernels take values up to {WIDEST} wide; {name} has {r.f.shape[-1]}")
        elif any(t.dtype == torch.float64 for t in r.operands()):
            reasons.append(f"it computes in float32; {name} has a float64 operand")
    return reasons


def forward(request: Request) -> list[Tensor]:
    """The log-sum-exp [b, h, n] and every result in order."""
    d, s = request.dims, request.scores
    # Sums and chosen weights are added to or left at 0 where no row admits a key.
    results = [torch.zeros(shape, dtype=dtype) for shape, dtype in request.like()]
    kept: list[Tensor] = []  # operands converted for the call: they must outlive it
    observations: list[Any] = []
    at = 1
    for r in request.reductions:
        made = results[at : at + len(r.like(d, request.dtype))]
        at += len(made)
        if isinstance(r, LogSumExp):
            continue
        observations.append(_observation(r, made, kept))
    relative = None if s.relative is None else s.relative.to(torch.float32).contiguous()[None, :, None]
    sinks = None if s.sinks is None else s.sinks[None, :, None, None]
    lo, hi = (None if t is None else t[:, None, :, None] for t in (s.lo, s.hi))
    scores = [_view(t) for t in (lo, hi, s.allowed, relative, s.additive, sinks)]
    _native.forward(
        (d.b, d.h, d.hk, d.n, d.m, d.d),
        _view(request.q),
        _view(request.k),
        s.scale,
        s.softcap or 0.0,
        scores,
        observations,
        results[0].data_ptr(),
        torch.get_num_threads(),
        INSTRUCTIONS,
    )
    for r, part in _parts(request, results):
        if isinstance(r, LogSumExp):
            part[0].copy_(results[0])
    return results


def _parts(request: Request, results: Sequence[Tensor]) -> list[tuple[Reduction, Sequence[Tensor]]]:
    parts: list[tuple[Reduction, Sequence[Tensor]]] = []
    at = 1
    for r in request.reductions:
        count = len(r.like(request.dims, request.dtype))
        parts.append((r, results[at : at + count]))
        at += count
    return parts


def _view(t: Tensor | None) -> Any:
    """A tensor of up to four dimensions [b, h, i, j] for the kernels: where it lies, and 0 strides where it is broadcast."""
    if t is None:
        return _native.View()
    strides = [0 if size == 1 else stride for size, stride in zip(t.shape, t.stride(), strict=True)]
    return _native.View(t.data_ptr(), _KINDS[t.dtype], (*strides, *[0] * (4 - len(strides))), t.shape[1])


def _observation(r: Reduction, made: Sequence[Tensor], kept: list[Tensor]) -> Any:
    """One reduction for the kernels. Integer operands are given as int64."""
    operand, sizes = None, (0, 0, 0)
    match r:
        case RowMoment(f=f):
            operand, sizes = f, (f.shape[-1], 0, 0)
        case ColumnMoment(w=w):
            operand, sizes = w, (w.shape[-1], 0, 0)
        case Received(weights=weights):
            operand = weights
        case TopK(k=k):
            sizes = (k, 0, 0)
        case BlockMass(rows=rows, cols=cols) | BlockMax(rows=rows, cols=cols):
            sizes = (0, rows, cols)
        case Rows(i=i):
            operand, sizes = i.to(torch.int64).contiguous()[None, None], (i.shape[0], 0, 0)
        case Entries(keys=keys):
            operand, sizes = keys.to(torch.int64), (keys.shape[-1], 0, 0)
        case SegmentMass(ids=ids, segments=segments):
            operand, sizes = ids.to(torch.int64), (segments, 0, 0)
        case _:
            pass
    if operand is not None:
        kept.append(operand)
    values = made[0]
    keys_at = made[1].data_ptr() if len(made) > 1 else 0
    return _native.Observation(_WHAT[type(r)], _view(operand), sizes, values.data_ptr(), keys_at, _KINDS[values.dtype])
