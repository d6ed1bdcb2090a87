"""Native kernels for CPUs: one pass over the keys for the output and everything observed, in linear memory.

The kernels (csrc/) are compiled for several instruction sets, and the best that the machine has is used. Rows are taken
in blocks; while a row's log-sum-exp is still moving, its unnormalised weights are kept in a strip of a few rows × all
keys, and what needs settled weights is read from it afterwards, so q·k is computed once. No result depends on what else
is observed.

Products of bfloat16 run on the machine's own instructions where it has them, accumulated in float32. There the weights
are rounded to bfloat16 where they multiply bfloat16 values, and in the backward the gradients of logits where they
multiply bfloat16 queries and keys, as in PyTorch's own attention; nothing else is. Observations are exact for the
inputs given.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
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
from ..reductions._law import gather_heads
from ..request import Gradients, Needs, Request, split
from ..scores import Scores
from . import _by_strips
from ._by_strips import settle


def _load() -> Any:
    """The compiled kernels, or None where sightline was installed without them. Named, not imported: an extension
    of the package's root would tie this module to all of it.
    """
    try:
        return import_module("sightline._native")
    except ModuleNotFoundError:
        return None


_native: Any = _load()
_NOTHING: Any = None if _native is None else _native.View()

__all__ = ["NAME", "READS_RESULTS", "absent", "backward", "forward", "refusals", "runs_on", "settle"]

NAME = "cpu"
READS_RESULTS = True
#: The instruction set to use instead of the best one, one of `runs_on()`: for tests.
INSTRUCTIONS = ""
#: Widest queries, keys and values.
WIDEST = 256
#: Most moments with gradients.
MOMENTS = 8
#: Bytes of weights and their gradients that a thread of the backward keeps where results do not tell enough. Longer
#: rows are computed twice.
STRIP_BYTES = 32 << 20

_KINDS = {
    torch.float32: 0,
    torch.bfloat16: 1,
    torch.float16: 2,
    torch.float64: 3,
    torch.int64: 4,
    torch.int32: 5,
    torch.bool: 6,
}
#: In the order of `Part` in csrc/request.hpp.
_PARTS = {"signed": 1, "positive": 2, "absolute": 3}
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


def absent() -> list[str]:
    """Why it can serve no request on this machine; empty if it can run here."""
    return ["its kernels were not built: install a C++ compiler, then sightline again"] if _native is None else []


def runs_on() -> list[str]:
    """The instruction sets that the kernels were compiled for and this machine has, best first."""
    return [] if _native is None else _native.instruction_sets()


def refusals(request: Request) -> list[str]:
    """Why this backend cannot serve the request; empty if it can."""
    reasons = absent()
    d = request.dims
    if request.q.device.type != "cpu":
        reasons.append(f"it runs on CPU tensors; q is on {request.q.device}")
    if request.q.dtype not in (torch.float32, torch.bfloat16, torch.float16):
        reasons.append(f"it computes in float32, which would lose digits of {request.q.dtype}")
    if d.d > WIDEST:
        reasons.append(f"its kernels take widths up to {WIDEST}; q and k have d={d.d}")
    if request.field is not None and request.field.v.shape[-1] > WIDEST:
        reasons.append(f"its kernels take values up to {WIDEST} wide; v has {request.field.v.shape[-1]}")
    if request.field is not None and torch.float64 in (request.field.v.dtype, request.field.grad_out.dtype):
        reasons.append("it computes in float32; v or grad_out is float64")
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
    results = [torch.empty(shape, dtype=dtype) for shape, dtype in request.like()]
    parts = _parts(request, results)
    for r, part in parts:
        if isinstance(r, Rows | Entries):  # chosen weights are left alone where no tile holds them
            part[0].zero_()
    kept: list[Tensor] = []
    native = _request(request, results[0], parts, kept)
    _native.forward(native, torch.get_num_threads(), INSTRUCTIONS)
    for r, part in parts:
        if isinstance(r, LogSumExp):
            part[0].copy_(results[0])
    return results


def _request(
    request: Request, lse: Tensor, parts: Sequence[tuple[Reduction, Sequence[Any]]], kept: list[Tensor]
) -> Any:
    """The request for the kernels, which write its results. kept: what was converted for the call must outlive it."""
    d, s = request.dims, request.scores
    observations = [_observation(r, part, kept) for r, part in parts if type(r) in _WHAT]
    relative = None if s.relative is None else s.relative.to(torch.float32).contiguous()[None, :, None]
    sinks = None if s.sinks is None else s.sinks[None, :, None, None]
    lo, hi = (None if t is None else t[:, None, :, None] for t in (s.lo, s.hi))
    places = (lo, hi, s.allowed, relative, s.additive, sinks)
    kept.extend(t for t in places if t is not None)
    return _native.Request(
        (d.b, d.h, d.hk, d.n, d.m, d.d),
        _view(request.q),
        _view(request.k),
        s.scale,
        s.softcap or 0.0,
        [_view(t) for t in places],
        observations,
        lse.data_ptr(),
        0 if request.field is None else _PARTS[request.field.part],
        _view(None if request.field is None else request.field.v),
        _view(None if request.field is None else request.field.grad_out),
        0 if request.field is None else request.field.v.shape[-1],
    )


def backward_refusals(request: Request, grads: Sequence[Tensor | None]) -> list[str]:
    """Why the native backward cannot serve the request; empty if it can. grads as in `backward`."""
    reasons = refusals(request)
    flowing = [r for r, own in _parts(request, [torch.empty(0), *grads]) if any(g is not None for g in own)]
    if sum(isinstance(r, RowMoment) for r in flowing) > MOMENTS:
        reasons.append(f"its backward takes at most {MOMENTS} moments")
    return reasons


def backward(
    request: Request, lse: Tensor, results: Sequence[Tensor | None], grads: Sequence[Tensor | None], needs: Needs
) -> Gradients:
    """The gradients of Σ results · grads, in linear memory; grads has one entry per result, the log-sum-exp left out.

    They are made in the dtypes of what they are gradients of, where nothing is left to sum up.
    """
    if backward_refusals(request, grads):
        return _by_strips.backward(request, lse, results, grads, needs)
    s, lse = request.scores, lse.contiguous()
    kept: list[Tensor] = []
    offset = torch.zeros_like(lse)
    # Of results that are not there, the kernels read a place of 0.
    known = [
        torch.empty(0, dtype=dtype) if t is None else t.contiguous()
        for t, (_, dtype) in zip(results, request.like()[1:], strict=True)
    ]
    own = [(r, given[0] if r.differentiable else None) for r, given in _parts(request, [lse, *grads])]
    operands = [_operand_gradient(request, r) if needs.operands and g is not None else None for r, g in own]
    q, k = (
        torch.empty(t.shape, dtype=t.dtype) if needed else None
        for t, needed in ((request.q, needs.q), (request.k, needs.k))
    )
    biases = _BiasGradients.of(request, needs)
    _native.backward(
        _request(request, lse, _parts(request, [lse, *known]), kept),
        [_view(g) for r, g in own if type(r) in _WHAT],
        _view(_sum([g for r, g in own if isinstance(r, LogSumExp)])),
        [_view(t) for t in (q, k, biases.whole)],
        [_view(t) for (r, _), t in zip(own, operands, strict=True) if type(r) in _WHAT],
        offset.data_ptr(),
        [0 if t is None else t.data_ptr() for t in (biases.relative, biases.rows, biases.columns)],
        STRIP_BYTES,
        torch.get_num_threads(),
        INSTRUCTIONS,
    )
    sinks = None
    if needs.sinks and s.sinks is not None:
        share = torch.where(lse > -torch.inf, (s.sinks.to(lse.dtype)[:, None] - lse).exp(), 0)
        sinks = -(share * offset).sum((0, 2))
    made = tuple(_with_gradient(r, t) for (r, _), t in zip(own, operands, strict=True))
    return Gradients(q, k, *biases.made(s), sinks, made)


def _sum(given: Sequence[Tensor | None]) -> Tensor | None:
    """The sum of those that are there, if any is."""
    there = [t for t in given if t is not None]
    return torch.stack(there).sum(0) if len(there) > 1 else there[0] if there else None


@dataclass(frozen=True)
class _BiasGradients:
    """Where dS is summed up for biases.

    relative: along diagonals [b, h, n + m − 1]. For an additive bias that is the same for all keys: rows [b, h, n, 1];
    for all queries: columns [b, h, 1, m]; any other: whole, in its own shape.
    """

    relative: Tensor | None
    rows: Tensor | None
    columns: Tensor | None
    whole: Tensor | None

    @staticmethod
    def of(request: Request, needs: Needs) -> _BiasGradients:
        """Places for the ones that are asked for."""
        d, s = request.dims, request.scores
        relative = torch.empty(d.b, d.h, d.n + d.m - 1) if needs.relative and s.relative is not None else None
        if not needs.additive or s.additive is None:
            return _BiasGradients(relative, None, None, None)
        if s.additive.shape[3] == 1:
            return _BiasGradients(relative, torch.zeros(d.b, d.h, d.n, 1), None, None)
        if s.additive.shape[2] == 1:
            return _BiasGradients(relative, None, torch.empty(d.b, d.h, 1, d.m), None)
        return _BiasGradients(relative, None, None, torch.zeros(s.additive.shape))

    def made(self, s: Scores) -> tuple[Tensor | None, Tensor | None]:
        """The gradients of the relative and the additive bias."""
        relative, additive = self.relative, self.whole
        if relative is not None and s.relative is not None:
            relative = relative.sum(0).sum_to_size(s.relative.shape)
        summed = self.rows if self.rows is not None else self.columns
        if summed is not None and s.additive is not None:
            additive = summed.sum_to_size(s.additive.shape)
        return relative, additive


def _operand_gradient(request: Request, r: Reduction) -> Tensor | None:
    """Where the gradient of a reduction's operand is made, of every batch entry and of every head that has its own."""
    d = request.dims
    match r:
        case RowMoment(f=f) if f.shape[0] == d.b and f.shape[1] >= d.hk:
            return torch.empty(f.shape, dtype=f.dtype)
        case RowMoment(f=f):
            return torch.empty(d.b, max(d.hk, f.shape[1]), d.m, f.shape[-1])
        case Received(weights=weights) if weights is not None:
            return torch.zeros(d.b, d.h, d.n)
        case ColumnMoment(w=w):
            return torch.zeros(d.b, d.h, d.n, w.shape[-1])
        case _:
            return None


def _with_gradient(r: Reduction, made: Tensor | None) -> Reduction:
    """The reduction with its operand's gradient in its place: zeros where none was made."""

    def place(t: Tensor) -> Tensor:
        if made is None:
            return torch.zeros(t.shape, dtype=torch.float32)
        return made if made.shape == t.shape else gather_heads(made, t)

    return r.map(place)


def _parts(request: Request, results: Sequence[Any]) -> list[tuple[Reduction, Sequence[Any]]]:
    """Each reduction with its own results; the first is the log-sum-exp."""
    return list(zip(request.reductions, split(results[1:], request.reductions, request.dims), strict=True))


def _view(t: Tensor | None) -> Any:
    """A tensor of up to four dimensions [b, h, i, j] for the kernels: where it lies; stride 0 where it is broadcast."""
    if t is None:
        return _NOTHING
    shape = t.shape
    strides = [0 if size == 1 else stride for size, stride in zip(shape, t.stride(), strict=True)]
    if len(strides) < 4:
        strides += [0] * (4 - len(strides))
    return _native.View(t.data_ptr(), _KINDS[t.dtype], strides, shape[1])


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
