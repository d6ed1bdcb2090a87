"""How q·k becomes a logit, and logits become weights."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ._dims import Dims, check_tensor
from .biases import Added, Bias, bias_of
from .errors import ShapeError, SpecError
from .masks import Admitted, Mask, mask_of


def accumulator(dtype: torch.dtype) -> torch.dtype:
    """The dtype logits, weights and observations are computed in: float64 for float64, else float32."""
    return torch.float64 if dtype == torch.float64 else torch.float32


@dataclass(frozen=True)
class Scores:
    """s_ij = softcap(scale · q_i·k_j) + bias_ij where admitted, −inf elsewhere; softcap(x) = c·tanh(x / c).

    The masks and biases are lowered: see `masks.Admitted` and `biases.Added`. sinks: [h], one extra logit per head that
    takes a share of every row's mass and has no key (Xiao et al. 2024), so rows sum to less than 1.
    """

    scale: float
    softcap: float | None = None
    lo: Tensor | None = None
    hi: Tensor | None = None
    allowed: Tensor | None = None
    relative: Tensor | None = None
    additive: Tensor | None = None
    sinks: Tensor | None = None

    @staticmethod
    def of(
        dims: Dims,
        q: Tensor,
        mask: Mask | None,
        bias: Bias | None,
        scale: float | None,
        softcap: float | None,
        sinks: Tensor | None,
    ) -> Scores:
        """Check and lower what the caller gave. scale defaults to 1/√d. Raises SpecError, ShapeError."""
        if scale is None:
            scale = 1 / math.sqrt(dims.d)
        elif not math.isfinite(scale):
            raise SpecError(f"scale must be finite; it is {scale}.")
        if softcap is not None and not (softcap > 0 and math.isfinite(softcap)):
            raise SpecError(f"softcap must be a positive number; it is {softcap}. Leave it out for no cap.")
        if sinks is not None:
            check_tensor("sinks", sinks)
            if sinks.ndim != 1 or sinks.shape[0] != dims.h or not sinks.is_floating_point():
                raise ShapeError(
                    f"sinks must be floating point [h] with h={dims.h}; "
                    f"it is {sinks.dtype} with shape {tuple(sinks.shape)}."
                )
            if sinks.device != q.device:
                raise ShapeError(f"sinks must be on {q.device} with q; it is on {sinks.device}. Move it.")
        seen = Admitted() if mask is None else mask_of(mask).admitted(dims, q.device)
        added = Added() if bias is None else bias_of(bias).lowered(dims, q.device, accumulator(q.dtype))
        return Scores(float(scale), softcap, seen.lo, seen.hi, seen.allowed, added.relative, added.additive, sinks)

    def dense(self, q: Tensor, k: Tensor) -> Tensor:
        """The definition of the logits: [b, h, n, m], −inf where not admitted. Holds the whole matrix."""
        dims = Dims.of(q, k)
        grouped = q.reshape(dims.b, dims.hk, dims.group, dims.n, dims.d)
        s = (self.scale * grouped @ k[:, :, None].mT).reshape(dims.b, dims.h, dims.n, dims.m)
        if self.softcap is not None:
            s = self.softcap * (s / self.softcap).tanh()
        i = torch.arange(dims.n, device=q.device)[:, None]
        j = torch.arange(dims.m, device=q.device)
        if self.relative is not None:
            s = s + self.relative.to(s.dtype)[:, j - i + dims.n - 1]
        if self.additive is not None:
            s = s + self.additive.to(s.dtype)
        if self.lo is not None and self.hi is not None:
            s = s.masked_fill(~((j >= self.lo[..., None]) & (j < self.hi[..., None]))[:, None], -math.inf)
        if self.allowed is not None:
            s = s.masked_fill(~self.allowed, -math.inf)
        return s

    def weights(self, s: Tensor) -> Tensor:
        """The definition of the weights: p_ij = e^(s_ij) / (Σ_j e^(s_ij) + e^(sink)).

        A row without keys is 0 everywhere.
        """
        top = s.detach().amax(-1, keepdim=True)
        sink = None if self.sinks is None else self.sinks.to(s.dtype)[:, None, None]
        if sink is not None:
            top = torch.maximum(top, sink.detach())
        top = torch.where(top == -math.inf, 0, top)
        e = (s - top).exp()
        mass = e.sum(-1, keepdim=True)
        if sink is not None:
            mass = mass + (sink - top).exp()
        return e / torch.where(mass == 0, 1, mass)

    def log_normaliser(self, s: Tensor) -> Tensor:
        """The definition of the log-sum-exp: log(Σ_j e^(s_ij) + e^(sink)) [b, h, n], −inf for a row without keys."""
        live = s.detach().amax(-1) > -math.inf
        safe = torch.where(live[..., None], s, 0)
        lse = safe.logsumexp(-1)
        if self.sinks is not None:
            lse = torch.logaddexp(lse, self.sinks.to(s.dtype)[:, None])
        return torch.where(live, lse, -math.inf)

    def rows(self, dims: Dims, i0: int, i1: int) -> Scores:
        """The scores of queries i0:i1 alone; each keeps the key position it had in `dims`."""
        return replace(
            self,
            lo=None if self.lo is None else self.lo[:, i0:i1],
            hi=None if self.hi is None else self.hi[:, i0:i1],
            allowed=_cut(self.allowed, -2, i0, i1),
            relative=_cut(self.relative, -1, dims.n - i1, dims.n - i0 + dims.m - 1),
            additive=_cut(self.additive, -2, i0, i1),
        )

    def keys(self, dims: Dims, j0: int, j1: int) -> Scores:
        """The scores against keys j0:j1 alone; queries keep the positions they had in `dims`."""
        return replace(
            self,
            lo=None if self.lo is None else self.lo.clamp(j0, j1) - j0,
            hi=None if self.hi is None else self.hi.clamp(j0, j1) - j0,
            allowed=_cut(self.allowed, -1, j0, j1),
            relative=_cut(self.relative, -1, j0, j1 + dims.n - 1),
            additive=_cut(self.additive, -1, j0, j1),
        )

    def heads(self, batch: slice, heads: slice | list[int]) -> Scores:
        """The scores of some batch entries and query heads."""

        def pick(t: Tensor | None) -> Tensor | None:
            if t is None:
                return None
            return t[batch if t.shape[0] > 1 else slice(None), heads if t.shape[1] > 1 else slice(None)]

        def entry(t: Tensor | None) -> Tensor | None:
            return t if t is None or t.shape[0] == 1 else t[batch]

        def head(t: Tensor | None) -> Tensor | None:
            return t if t is None or t.shape[0] == 1 else t[heads]

        return replace(
            self,
            lo=entry(self.lo),
            hi=entry(self.hi),
            allowed=pick(self.allowed),
            relative=head(self.relative),
            additive=pick(self.additive),
            sinks=None if self.sinks is None else self.sinks[heads],
        )


def _cut(t: Tensor | None, dim: int, start: int, stop: int) -> Tensor | None:
    """t[start:stop] along `dim`, unless it is absent or broadcast there."""
    return t if t is None or t.shape[dim] == 1 else t.narrow(dim, start, stop - start)
