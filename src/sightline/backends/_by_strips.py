"""Partial states and gradients by strips, in plain PyTorch operations and linear memory.

For backends whose kernels do not give them. They depend on the request alone, not on who ran it forward.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ..partial import Partial, finite
from ..reductions._law import Tile
from ..request import Gradients, Needs, Request, split
from ._strips import Strip, Workspace, chunks, strips, toeplitz_sum, window


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


def backward(
    request: Request, lse: Tensor, results: Sequence[Tensor | None], grads: Sequence[Tensor | None], needs: Needs
) -> Gradients:
    """The gradients of Σ results · grads, in linear memory; grads has one entry per result, the log-sum-exp left out.

    Results are not needed: a strip holds whole rows.

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
