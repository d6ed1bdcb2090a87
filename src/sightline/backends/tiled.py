"""Linear memory in plain PyTorch operations: runs anywhere PyTorch does, in any dtype, with any reduction.

The rows are cut into strips, as many rows as keep one strip of logits within a fixed budget; a strip spans every key
that any of its rows admits. All reductions of a strip, those of settled weights too, are taken while it is at hand,
so q·k is computed once. Which strips there are depends on the scores alone, never on what is observed: observing
changes no bit of the output.

Logits, weights and observations are float32 (float64 for float64) whatever the inputs are: products of bfloat16 or
float16 inputs are accumulated in float32, so observations are exact for the inputs given.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ..partial import Partial, finite
from ..reductions._law import RowFold, Settled, Sweep, Tile
from ..request import Gradients, Needs, Request, split
from ._strips import Strip, Workspace, chunks, strips, toeplitz_sum, window

NAME = "tiled"


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
    reductions = [r.to(dtype) for r in request.reductions]
    folds = {str(at): r for at, r in enumerate(reductions) if isinstance(r, RowFold)}
    sweeps = {at: r for at, r in enumerate(reductions) if isinstance(r, Sweep)}
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
    for at in range(len(reductions)):
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


def settle(request: Request) -> Partial:
    """What the request's keys contribute to each row: its folds, not finished. Linear memory; sweeps are left out."""
    folds = {str(at): fold.to(request.dtype) for at, fold in request.folds.items()}
    workspace = Workspace(request.dtype, request.q.device)
    pieces = [
        Partial.lift(folds, strip.i0, request.first_key + strip.j0, strip.s, strip.spare)
        for strip in strips(request, workspace)
    ]
    states = {
        name: tuple(torch.cat(parts, 2) for parts in zip(*(piece.states[name] for piece in pieces), strict=True))
        for name in folds
    }
    reference, mass = torch.cat([p.reference for p in pieces], 2), torch.cat([p.mass for p in pieces], 2)
    return Partial(folds, reference, mass, states)


def backward(request: Request, lse: Tensor, grads: Sequence[Tensor | None], needs: Needs) -> Gradients:
    """The gradients of Σ results · grads, in linear memory; grads has one entry per result, the log-sum-exp left out.

    One backward for all reductions: dS = P ∘ (Σ_r D_r − δ) + P·g_lse, with D_r = ∂L/∂P by reduction r, δ_i = Σ_j P_ij
    ΣD_ij.
    """
    made = Gradients.zeros(request, needs)
    workspace = Workspace(request.dtype, request.q.device)
    cast = [g if g is None else g.to(request.dtype) for g in grads]
    for part, batch, queries in chunks(request):
        d = request.dims
        keys = slice(queries.start // d.group, queries.stop // d.group)
        own = [g if g is None else g[batch, queries] for g in cast]
        _backward(part, workspace, lse[batch, queries], own, needs, made.heads(batch, keys, queries, d.h))
    return made


def _backward(
    request: Request,
    workspace: Workspace,
    lse: Tensor,
    grads: Sequence[Tensor | None],
    needs: Needs,
    made: Gradients,
) -> None:
    d, dtype, scores = request.dims, request.dtype, request.scores
    reductions = [r.to(dtype) for r in request.reductions]
    flowing = [
        (r, into, own)
        for r, into, own in zip(reductions, made.reductions, split(grads, reductions, d), strict=True)
        if r.differentiable and any(g is not None for g in own)
    ]
    for strip in strips(request, workspace, keep_capped=True):
        reference = finite(lse[:, :, strip.i0 : strip.i1])
        p = torch.sub(strip.s, reference[..., None], out=strip.spare).exp_()
        tile = Tile(strip.i0, strip.j0, d.m, strip.s, p, reference)
        sensitivity = workspace.take("sensitivity", *p.shape).zero_()
        rows: Tensor | None = None
        for r, into, own in flowing:
            r.sensitivity(own, tile, sensitivity)
            if needs.operands:
                r.operand_gradient(own, tile, into.floating())
            row = r.row_sensitivity(own, tile)
            rows = row if rows is None else rows if row is None else rows + row
        if not needs.scores:
            continue
        delta = torch.mul(p, sensitivity, out=strip.s).sum(-1)
        offset = delta if rows is None else delta - rows
        ds = sensitivity.sub_(offset[..., None]).mul_(p)
        if made.sinks is not None and scores.sinks is not None:
            share = (scores.sinks.to(dtype)[:, None] - reference).exp()
            # A row without keys is 0 whatever its sink.
            share = torch.where(lse[:, :, strip.i0 : strip.i1] > -torch.inf, share, 0)
            made.sinks.sub_((share * offset).sum((0, 2)))
        _score_gradients(request, strip, ds, made)


def _score_gradients(request: Request, strip: Strip, ds: Tensor, made: Gradients) -> None:
    """Carry dS of one strip back to biases, queries and keys."""
    d, scores = request.dims, request.scores
    if made.relative is not None:
        by_head = ds.sum(0)
        by_head = by_head if made.relative.shape[0] > 1 else by_head.sum(0, keepdim=True)
        toeplitz_sum(by_head, d.n, strip.i0, strip.j0, made.relative)
    if made.additive is not None:
        target = window(made.additive, strip.i0, strip.i1, strip.j0, strip.j1)
        target.add_(ds.sum_to_size(target.shape))
    if scores.softcap is not None and strip.capped is not None:
        slope = strip.capped.div_(scores.softcap).square_().neg_().add_(1)
        ds = ds.mul_(slope)
    dx = ds.view(d.b * d.hk, -1, ds.shape[-1])
    if made.q is not None:
        dq = torch.bmm(dx, strip.k).view(d.b, d.h, -1, d.d)
        torch.mul(dq, scores.scale, out=made.q[:, :, strip.i0 : strip.i1])
    if made.k is not None:
        dk = torch.bmm(dx.mT, strip.q).view(d.b, d.hk, -1, d.d)
        made.k[:, :, strip.j0 : strip.j1].add_(dk)
