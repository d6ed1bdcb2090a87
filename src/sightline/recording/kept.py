"""What is kept of a call so that any of its weights can be computed later: q, k, the log-sum-exp and the scores.

    P_ij = exp(s_ij − lse_i)

needs q_i, k_j and lse_i alone, so a slice of a kept matrix costs what the slice costs, at any place and length.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace

import torch
from torch import Tensor
from torch.nn import functional

from ..matrix import AttentionMatrix
from ..scores import Scores
from ._bytes import plain, raw
from .spill import Spill, Spilled
from .stored import Stored

__all__ = ["SCORE_TENSORS", "Keeper", "Kept"]

SCORE_TENSORS = ("lo", "hi", "allowed", "relative", "additive", "sinks")
"""The fields of `Scores` that are tensors."""


@dataclass(frozen=True)
class Kept:
    """One call: rows of some query heads against all keys.

    q: [b, H, n, d] after rotary embedding, of the H heads that were recorded. k: [positions, b, hk, d] of this module,
    shared by its calls; this one's keys are its entries first:first + stored, and keys after those, up to m, are seen
    by no query. lse: [b, H, n]. scores: those of the H heads. group: query heads that share a key head.
    """

    q: Stored
    k: Stored
    lse: Stored
    scores: Scores
    first: int
    stored: int
    m: int
    group: int

    def matrix(self, heads: Sequence[int], chosen: Sequence[int]) -> AttentionMatrix:
        """The matrix [b, len(chosen), n, m] of some of the recorded `heads`. Both hold numbers of the model's heads."""
        at = [heads.index(head) for head in chosen]
        k = functional.pad(
            self.k.read(self.first, self.first + self.stored).permute(1, 2, 0, 3), (0, 0, 0, self.m - self.stored)
        )
        key_heads = [head // self.group for head in chosen]
        grouped = list(chosen) == list(range(k.shape[1] * self.group))  # all of them: each key head as often as it is
        return AttentionMatrix._of(
            self.q.read()[:, at],
            k if grouped else k[:, key_heads],
            self.scores.heads(slice(None), at),
            "auto",
            self.lse.read()[:, at],
        )


class Keeper:
    """Keeps calls on disk: queries as they are, and of the keys what is new.

    In generation each step's keys are the last step's and a few more. They are compared with those on disk and only
    the new ones are written, so the file grows with the tokens and not with tokens × steps. Where they differ (beams
    that change places) all are written again.
    """

    def __init__(self, folder: str | None = None) -> None:
        self._spill = Spill(folder)
        self._keys: dict[str, tuple[Spilled, int]] = {}  # module → its newest keys, and the position of the first
        self._shared: dict[tuple[object, ...], Tensor] = {}

    def keep(
        self, module: str, matrix: AttentionMatrix, lse: Tensor, heads: Sequence[int] | None, key_start: int
    ) -> Kept:
        """Write one call. `heads` are those to keep, None for all. Raises OSError where the disk is full."""
        at = slice(None) if heads is None else list(heads)
        m = matrix.dims.m
        scores = matrix.scores.heads(slice(None), at)
        stop = m if scores.hi is None else int(scores.hi.max())
        k, first = self._keys_of(module, matrix.k[:, :, :stop].detach().permute(2, 0, 1, 3), key_start)
        return Kept(
            q=Spilled.of(self._spill, matrix.q[:, at]),
            k=k,
            lse=Spilled.of(self._spill, lse[:, at]),
            scores=self._once(scores),
            first=first,
            stored=stop,
            m=m,
            group=matrix.dims.group,
        )

    def _keys_of(self, module: str, k: Tensor, start: int) -> tuple[Spilled, int]:
        """Where these keys [positions, b, hk, d] lie on disk now: the stored tensor, and the entry they begin at."""
        stored, began = self._keys.get(module, (None, 0))
        if stored is not None and stored.dtype == k.dtype and stored.shape[1:] == k.shape[1:]:
            there = began + stored.shape[0] - start  # how many of these keys are there already, if they are the same
            if start >= began and there >= 0:
                both = min(there, k.shape[0])
                if torch.equal(stored.read(start - began, start - began + both), k[:both].cpu()):
                    if both < k.shape[0]:
                        stored.extend(k[both:])
                    return stored, start - began
        self._keys[module] = Spilled.of(self._spill, k), start
        return self._keys[module][0], 0

    def _once(self, scores: Scores) -> Scores:
        """The scores with tensors that are in memory once, however many layers share them."""
        return replace(
            scores, **{name: self._unique(t) for name in SCORE_TENSORS if (t := getattr(scores, name)) is not None}
        )

    def _unique(self, tensor: Tensor) -> Tensor:
        # A tensor that is stretched over a dimension is kept as it is before that.
        for dim, (size, stride) in enumerate(zip(tensor.shape, tensor.stride(), strict=True)):
            if size > 1 and stride == 0 and tensor.ndim == 4:
                tensor = tensor.narrow(dim, 0, 1)
        tensor = plain(tensor)
        digest = zlib.crc32(raw(tensor))
        key = (tensor.dtype, tuple(tensor.shape), digest)
        known = self._shared.setdefault(key, tensor)
        return known if torch.equal(known, tensor) else tensor


assert {f.name for f in fields(Scores)} == {"scale", "softcap", *SCORE_TENSORS}, "a field of Scores would be lost"
