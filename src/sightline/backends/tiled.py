"""Linear memory in plain PyTorch operations: runs anywhere PyTorch does, in any dtype, with any reduction.

The rows are cut into strips, as many rows as keep one strip of logits within a fixed budget; a strip spans every key
that any of its rows admits. All reductions of a strip, those of settled weights too, are taken while it is at hand,
so q·k is computed once. Which strips there are depends on the scores alone, never on what is observed: observing
changes no bit of the output.

Logits, weights and observations are float32 (float64 for float64) whatever the inputs are: products of bfloat16 or
float16 inputs are accumulated in float32, so observations are exact for the inputs given.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ..partial import Partial
from ..reductions._law import Settled, Tile
from ..request import Request
from ._by_strips import backward, settle
from ._strips import Strip, Workspace, chunks, strips

__all__ = ["NAME", "READS_RESULTS", "absent", "backward", "forward", "refusals", "runs_on", "settle"]

NAME = "tiled"
READS_RESULTS = False


def absent() -> list[str]:
    """Why it can serve no request on this machine: it always can."""
    return []


def runs_on() -> list[str]:
    """What it computes with here."""
    return ["PyTorch, on any of its devices"]


def refusals(request: Request) -> list[str]:
    """Why this backend cannot serve the request; empty: it serves every one."""
    return []


def forward(request: Request) -> list[Tensor]:
    """The log-sum-exp [b, h, n] and every result in order, in linear memory."""
    results = [torch.empty(shape, dtype=dtype, device=request.q.device) for shape, dtype in request.like()]
    workspace = Workspace(request.dtype, request.q.device)
    for part, batch, queries in chunks(request):
        for whole, made in zip(results, _forward(part, workspace), strict=True):
            whole[batch, queries] = made
    return results


def _forward(request: Request, workspace: Workspace) -> list[Tensor]:
    d, dtype, device = request.dims, request.dtype, request.q.device
    folds = {str(at): fold.to(dtype) for at, fold in request.folds.items()}
    sweeps = {at: sweep.to(dtype) for at, sweep in request.sweeps.items()}
    buffers = {at: r.start(d, dtype, device) for at, r in sweeps.items()}
    rows = {
        at: [torch.empty(shape, dtype=kind, device=device) for shape, kind in fold.like(d, dtype)]
        for at, fold in folds.items()
    }
    lse = torch.empty((d.b, d.h, d.n), dtype=dtype, device=device)
    for strip in strips(request, workspace):
        lifted = Partial.lift(folds, strip.i0, strip.j0, strip.s, strip.spare)
        partial, settled = lifted.settle(request.scores.sinks)
        lse[:, :, strip.i0 : strip.i1] = settled.lse
        for at, fold in folds.items():
            for whole, made in zip(rows[at], fold.finish(partial.states[at], settled), strict=True):
                whole[:, :, strip.i0 : strip.i1] = made
        if sweeps:
            p = _gradient_field(request, strip, strip.spare.mul_(_normaliser(lifted, settled)[..., None]), workspace)
            tile = Tile(strip.i0, strip.j0, d.m, strip.s, p)
            for at, sweep in sweeps.items():
                sweep.absorb(buffers[at], _whole(tile) if sweep.whole_rows else tile)
    results = [lse]
    for at in range(len(request.reductions)):
        results.extend(buffers[at] if at in buffers else rows[str(at)])
    return results


def _normaliser(lifted: Partial, settled: Settled) -> Tensor:
    """What turns e^(s − reference) of a lifted strip into weights: [b, h, ti], 0 for rows without keys."""
    moved = (lifted.reference - settled.reference).exp()  # e^(−∞) where there is no key
    return moved / settled.total


def _gradient_field(request: Request, strip: Strip, p: Tensor, workspace: Workspace) -> Tensor:
    """The weights p themselves, or R = P ∘ (dO vᵀ), or the part of R that was asked for: [b, h, ti, tj]."""
    field, d = request.field, request.dims
    if field is None:
        return p
    g = field.grad_out[:, :, strip.i0 : strip.i1].to(p.dtype).reshape(d.b * d.hk, -1, field.v.shape[-1])
    v = field.v[:, :, strip.j0 : strip.j1].to(p.dtype).reshape(d.b * d.hk, -1, field.v.shape[-1])
    r = workspace.take("field", *p.shape)
    torch.bmm(g, v.mT, out=r.view(d.b * d.hk, -1, p.shape[-1]))
    r.mul_(p)
    if field.part == "positive":
        return r.clamp_(min=0)
    return r.abs_() if field.part == "absolute" else r


def _whole(tile: Tile) -> Tile:
    """The tile with the keys that its rows do not admit: logits −inf, weights 0."""
    sides = (tile.j0, tile.m - tile.j1)
    pad = torch.nn.functional.pad
    return Tile(tile.i0, 0, tile.m, pad(tile.s, sides, value=-torch.inf), pad(tile.w, sides))
