"""Gradient-weighted attention, and attention flowing through layers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import torch
from torch import Tensor

from ._dims import check_tensor
from .errors import ShapeError, SpecError, Unsupported
from .functional import bound, named, run
from .matrix import AttentionMatrix
from .reductions import ColumnMoment, Reduction, RowFold
from .reductions._law import floating
from .request import Field, Request

Part = Literal["signed", "positive", "absolute"]


def relevance(
    matrix: AttentionMatrix,
    v: Tensor,
    grad_out: Tensor,
    reductions: Mapping[str, Reduction],
    *,
    part: Part = "signed",
) -> dict[str, Any]:
    """Reductions of R = P ∘ (dO vᵀ): how much each weight, as it is, moved the differentiated quantity.

    v: [b, hk, m, dv], the values; grad_out: [b, h, n, dv], the gradient of any scalar with respect to the output P v;
    reductions: those of settled weights (Received, ColumnMoment, ColumnMax, BlockMass, BlockMax, Rows, Entries).
    part: "signed" reduces R; "positive" max(0, R), what spoke for it; "absolute" |R|.

    The signed rows sum to δ_i = dO_i · O_i. One pass, linear memory, no gradient of its own.
    Raises ShapeError, SpecError, and Unsupported for reductions that fold logits.
    Source: gradient-weighted attention, Barkan et al. 2021; Chefer et al. 2021, eq. 5, with relu per head.
    """
    if not isinstance(matrix, AttentionMatrix):
        raise SpecError(
            f"relevance takes an AttentionMatrix, which knows q and k; it got {type(matrix).__name__}. "
            "Build one: AttentionMatrix(q, k)."
        )
    dims = matrix.dims
    dims.check_value(v, matrix.k)
    check_tensor("grad_out", grad_out)
    floating("grad_out", grad_out, v.device)
    if tuple(grad_out.shape) != (dims.b, dims.h, dims.n, v.shape[-1]):
        raise ShapeError(
            f"grad_out must be [b, h, n, dv] = {[dims.b, dims.h, dims.n, v.shape[-1]]}; "
            f"it has shape {tuple(grad_out.shape)}."
        )
    if part not in ("signed", "positive", "absolute"):
        raise SpecError(f"part={part!r} is not one of 'signed', 'positive', 'absolute'.")
    for name, r in zip(reductions, named(reductions), strict=True):
        if isinstance(r, RowFold):
            raise Unsupported(
                f"relevance was asked for {name!r}, a {type(r).__name__}, which folds logits; R has none. "
                "Use Received, ColumnMoment, BlockMass, Rows or Entries."
            )
    asked = bound(named(reductions), dims, matrix.q)
    with torch.no_grad():
        request = Request(matrix.q, matrix.k, matrix.scores, asked, Field(v, grad_out, part))
        return dict(zip(reductions, run(request, matrix.backend), strict=True))


def rollout(matrices: Sequence[AttentionMatrix], target: Tensor) -> Tensor:
    """How much chosen positions of the last layer draw on each position of the first -> [b, m].

    w ← (mean_h Pᵀ w + w) / 2, from the last matrix to the first: attention rollout with its residual stream, for a
    chosen weighting of positions instead of all of them, so no product of matrices is formed.

    matrices: one per layer, first layer first, square (n = m). target: [b, m], weights of the positions asked about.
    Differentiable. Raises SpecError, ShapeError. Source: Abnar and Zuidema 2020, eq. 1.
    """
    if not matrices:
        raise SpecError("rollout needs at least one attention matrix, first layer first; it got none.")
    b, _, _, m = matrices[-1].shape
    if tuple(target.shape) != (b, m) or not target.is_floating_point():
        raise ShapeError(
            f"target must be floating point [b, m] = {[b, m]}; it is {target.dtype} with shape {tuple(target.shape)}."
        )
    w = target
    for at, matrix in reversed(list(enumerate(matrices))):
        if matrix.shape[0] != b or matrix.shape[2:] != (m, m):
            raise ShapeError(
                f"rollout needs square self-attention over the same {m} positions in every layer; "
                f"layer {at} has {tuple(matrix.shape)}."
            )
        w = (matrix.reduce({"it": ColumnMoment(w[:, None, :, None])})["it"].mean(1)[..., 0] + w) / 2
    return w
