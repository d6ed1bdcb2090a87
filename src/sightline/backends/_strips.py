"""Strips of logits: some rows against every key that any of them admits, in buffers used again and again."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from ..request import Request

#: Logits in one strip: 4 MiB in float32. Strips, exponentials and weights stay in or near the last-level cache.
STRIP = 2**20
#: Rows that keep matrix products efficient: fewer heads go at once before rows become fewer.
ROWS = 64
#: More rows than this only widen the strip beyond what each row admits.
MOST_ROWS = 256


@dataclass(frozen=True)
class Strip:
    """Rows i0:i1 × keys j0:j1.

    s: logits [b, h, ti, tj], −inf where not admitted; spare: an uninitialised buffer of the same shape; capped: the
    logits before bias and mask, where a softcap needs them for its gradient; q: [b·hk, group·ti, d], scaled; k:
    [b·hk, tj, d].
    """

    i0: int
    i1: int
    j0: int
    j1: int
    s: Tensor
    spare: Tensor
    capped: Tensor | None
    q: Tensor
    k: Tensor


class Workspace:
    """Buffers by name, grown as needed: allocating megabytes per strip would cost a pass over memory each."""

    def __init__(self, dtype: torch.dtype, device: torch.device) -> None:
        self._dtype, self._device = dtype, device
        self._buffers: dict[str, Tensor] = {}

    def take(self, name: str, *shape: int) -> Tensor:
        """An uninitialised tensor of this shape; it is overwritten by the next `take` of the same name."""
        size = math.prod(shape)
        if name not in self._buffers or self._buffers[name].numel() < size:
            self._buffers[name] = torch.empty(size, dtype=self._dtype, device=self._device)
        return self._buffers[name][:size].view(shape)


def chunks(request: Request) -> Iterator[tuple[Request, slice, slice]]:
    """Cut a request by batch entry and key head until a strip of each part has enough rows.

    (part, batch, query heads).
    """
    d = request.dims
    head = min(d.n, ROWS) * d.group * d.m
    heads = min(d.hk, max(1, STRIP // head))
    entries = min(d.b, max(1, STRIP // (head * d.hk))) if heads == d.hk else 1
    for b0 in range(0, d.b, entries):
        batch = slice(b0, min(b0 + entries, d.b))
        for h0 in range(0, d.hk, heads):
            keys = slice(h0, min(h0 + heads, d.hk))
            yield request.heads(batch, keys), batch, slice(keys.start * d.group, keys.stop * d.group)


@dataclass(frozen=True)
class _Span:
    """Rows i0:i1 admit keys within j0:j1; all of them admit all of a:c."""

    i0: int
    i1: int
    j0: int
    j1: int
    a: int
    c: int


def spans(request: Request) -> list[_Span]:
    """Cut the rows so that each strip stays within STRIP logits, and find the keys each strip must span."""
    d, lo, hi = request.dims, request.scores.lo, request.scores.hi
    width = d.m
    if lo is not None and hi is not None:
        width = max(1, int((hi - lo).amax()))
    rows = max(1, min(STRIP // (d.b * d.h * width), max(width, ROWS), MOST_ROWS, d.n))
    starts = range(0, d.n, rows)
    if lo is None or hi is None:
        return [_Span(i0, min(i0 + rows, d.n), 0, d.m, 0, d.m) for i0 in starts]
    live = lo < hi
    pad = (0, len(starts) * rows - d.n)

    def per_strip(t: Tensor, fill: int, most: bool) -> list[int]:
        t = torch.nn.functional.pad(t, pad, value=fill).view(t.shape[0], -1, rows)
        return (t.amax((0, 2)) if most else t.amin((0, 2))).tolist()

    # A row without keys must not widen the span, but must be masked everywhere.
    first = per_strip(torch.where(live, lo, d.m), d.m, most=False)
    last = per_strip(torch.where(live, hi, 0), 0, most=True)
    full_from = per_strip(torch.where(live, lo, d.m), 0, most=True)
    full_to = per_strip(torch.where(live, hi, 0), d.m, most=False)
    result: list[_Span] = []
    for i0, j0, j1, a, c in zip(starts, first, last, full_from, full_to, strict=True):
        j0, j1 = (j0, j1) if j0 < j1 else (0, 1)
        a = min(max(a, j0), j1)
        c = max(min(c, j1), j0)
        result.append(_Span(i0, min(i0 + rows, d.n), j0, j1, *((a, c) if a < c else (j1, j1))))
    return result


def strips(request: Request, workspace: Workspace, keep_capped: bool = False) -> Iterator[Strip]:
    """The request's logits strip by strip. A strip's tensors are valid until the next one is asked for."""
    d, dtype, scores = request.dims, request.dtype, request.scores
    # One copy of the keys at most: in the accumulator's dtype, heads in front.
    keys = request.k.to(dtype).reshape(d.b * d.hk, d.m, d.d)
    additive = scores.additive
    relative = None if scores.relative is None else scores.relative.to(dtype)
    for at in spans(request):
        ti, tj = at.i1 - at.i0, at.j1 - at.j0
        shape = (d.b, d.h, ti, tj)
        q = (request.q[:, :, at.i0 : at.i1].to(dtype) * scores.scale).reshape(d.b * d.hk, d.group * ti, d.d)
        k = keys[:, at.j0 : at.j1]
        s = workspace.take("s", *shape)
        torch.bmm(q, k.mT, out=s.view(d.b * d.hk, d.group * ti, tj))
        capped = None
        if scores.softcap is not None:
            s.div_(scores.softcap).tanh_().mul_(scores.softcap)
            if keep_capped:
                capped = workspace.take("capped", *shape).copy_(s)
        if relative is not None:
            s += toeplitz(relative, d.n, at.i0, at.i1, at.j0, at.j1)
        if additive is not None:
            s += window(additive, at.i0, at.i1, at.j0, at.j1).to(dtype)
        _mask(s, request, at)
        yield Strip(at.i0, at.i1, at.j0, at.j1, s, workspace.take("spare", *shape), capped, q, k)


def _mask(s: Tensor, request: Request, at: _Span) -> None:
    """Put −inf where a key is not admitted; columns that all rows admit are left alone."""
    scores = request.scores
    if scores.lo is not None and scores.hi is not None:
        lo, hi = (t[:, None, at.i0 : at.i1, None] for t in (scores.lo, scores.hi))
        for j0, j1 in ((at.j0, at.a), (at.c, at.j1)):
            if j0 < j1:
                j = torch.arange(j0, j1, device=s.device, dtype=lo.dtype)
                s[..., j0 - at.j0 : j1 - at.j0].masked_fill_((j < lo) | (j >= hi), -math.inf)
    if scores.allowed is not None:
        s.masked_fill_(~window(scores.allowed, at.i0, at.i1, at.j0, at.j1), -math.inf)


def window(t: Tensor, i0: int, i1: int, j0: int, j1: int) -> Tensor:
    """t[..., i0:i1, j0:j1], where a dimension of size 1 stands for all."""
    return t[
        ..., slice(None) if t.shape[-2] == 1 else slice(i0, i1), slice(None) if t.shape[-1] == 1 else slice(j0, j1)
    ]


def toeplitz(vector: Tensor, n: int, i0: int, i1: int, j0: int, j1: int) -> Tensor:
    """Spread a vector over j − i, indexed j − i + n − 1, [h|1, n + m − 1], into rows i0:i1 × keys j0:j1.

    [h|1, ti, tj].
    """
    first = j0 - (i1 - 1) + n - 1
    part = vector[:, first : first + (i1 - i0) + (j1 - j0) - 1]
    return part.unfold(-1, j1 - j0, 1).flip(-2)


def toeplitz_sum(t: Tensor, n: int, i0: int, j0: int, into: Tensor) -> None:
    """The adjoint of `toeplitz`: add the sums along the diagonals of t [h, ti, tj] to a vector [h, n + m − 1]."""
    h, ti, tj = t.shape
    # Rows from last to first, each one step further right in a row one longer: the diagonals become columns.
    skewed = torch.nn.functional.pad(t.flip(-2), (0, ti)).reshape(h, -1)[:, : ti * (ti + tj - 1)]
    first = j0 - (i0 + ti - 1) + n - 1
    into[:, first : first + ti + tj - 1] += skewed.view(h, ti, ti + tj - 1).sum(-2)
