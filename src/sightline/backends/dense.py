"""The definition: holds the whole matrix, applies each reduction's `dense`, and is differentiated by PyTorch itself.

Every other backend is tested against this one in float64.
"""

from __future__ import annotations

from torch import Tensor

from ..reductions import LogSumExp
from ..request import Request

NAME = "dense"
#: Entries of the matrix beyond which it is not built: 1 GiB in float32.
LIMIT = 2**28


def absent() -> list[str]:
    """Why it can serve no request on this machine: it always can."""
    return []


def runs_on() -> list[str]:
    """What it computes with here."""
    return ["PyTorch, on any of its devices"]


def refusals(request: Request) -> list[str]:
    """Why this backend cannot serve the request; empty if it can."""
    d = request.dims
    reasons: list[str] = []
    if request.q.element_size() < 4:
        reasons.append(
            f"it is the definition and computes in the input's dtype, which {request.q.dtype} is too coarse for"
        )
    if d.b * d.h * d.n * d.m > LIMIT:
        reasons.append(f"it would build {d.b}×{d.h}×{d.n}×{d.m} weights, more than {LIMIT}")
    return reasons


def forward(request: Request) -> list[Tensor]:
    """The log-sum-exp [b, h, n] and every result, each by its definition."""
    s = request.scores.dense(request.q, request.k)
    p = request.scores.weights(s)
    field = gradient_field(request, p)
    lse = request.scores.log_normaliser(s)
    results = [lse]
    for r in request.reductions:
        # Selections carry no gradient on any backend: a kink's derivative is not this one's to choose.
        if isinstance(r, LogSumExp):
            made = lse  # exact also where a sink leaves no weight that a float can hold
        else:
            made = r.dense(s, field) if r.differentiable else r.dense(s.detach(), field.detach())
        results.extend(made if isinstance(made, tuple) else (made,))
    return results


def gradient_field(request: Request, p: Tensor) -> Tensor:
    """P itself, or R = P ∘ (dO vᵀ), or the part of R that was asked for: [b, h, n, m]."""
    field = request.field
    if field is None:
        return p
    d = request.dims
    v = field.v.to(p.dtype).repeat_interleave(d.group, 1)
    r = p * (field.grad_out.to(p.dtype) @ v.mT)
    return {"signed": r, "positive": r.clamp(min=0), "absolute": r.abs()}[field.part]
