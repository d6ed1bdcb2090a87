"""The shapes of one attention call, parsed and checked once, at the public edge."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch._C._functorch import is_batchedtensor  # pyright: ignore
from torch._subclasses.fake_tensor import FakeTensor

from .errors import ShapeError


def readable(*tensors: Tensor) -> bool:
    """Whether values can be looked at: not while a graph is traced, nor of tensors that stand for others."""
    return not torch.compiler.is_compiling() and not any(
        t.is_meta or isinstance(t, FakeTensor) or is_batchedtensor(t) for t in tensors
    )


def check_tensor(name: str, value: object) -> None:
    """Raise ShapeError where a value is no tensor."""
    if not isinstance(value, Tensor):
        raise ShapeError(f"{name} must be a tensor; it is {type(value).__name__}. Convert it with torch.as_tensor.")


@dataclass(frozen=True)
class Dims:
    """Sizes of one call: `b` batch, `h` query heads, `hk` key heads, `n` queries, `m` keys, `d` width.

    `h` is a multiple of `hk`: query head i reads key head i // (h // hk) (grouped-query attention).
    Query i stands at key position i + (m − n).
    """

    b: int
    h: int
    hk: int
    n: int
    m: int
    d: int

    @property
    def group(self) -> int:
        """Query heads that share one key head."""
        return self.h // self.hk

    @staticmethod
    def of(q: Tensor, k: Tensor) -> Dims:
        """Parse q [b,h,n,d] and k [b,hk,m,d]. Raises ShapeError."""
        for name, t, layout in (("q", q, "[b, h, n, d]"), ("k", k, "[b, hk, m, d]")):
            check_tensor(name, t)
            if t.ndim != 4:
                raise ShapeError(
                    f"{name} must be {layout}; it has shape {tuple(t.shape)}. "
                    "Add the missing dimensions with unsqueeze."
                )
            if not t.is_floating_point():
                raise ShapeError(f"{name} must be floating point; it is {t.dtype}. Convert it with .float().")
        b, h, n, d = q.shape
        bk, hk, m, dk = k.shape
        if q.dtype != k.dtype:
            raise ShapeError(f"q and k must share a dtype; they are {q.dtype} and {k.dtype}. Convert one of them.")
        if q.device != k.device:
            raise ShapeError(f"q and k must share a device; they are on {q.device} and {k.device}. Move one of them.")
        if b != bk:
            raise ShapeError(f"q and k must share the batch size; q has {b}, k has {bk}. Expand one of them.")
        if d != dk:
            raise ShapeError(
                f"q and k must share the width d; q has {d}, k has {dk}. Project one of them to the other's width."
            )
        for name, size in (("b", b), ("h", h), ("n", n), ("d", d), ("hk", hk), ("m", m)):
            if size == 0:
                raise ShapeError(f"every dimension must be at least 1; {name} is 0. Leave out the empty call.")
        if h % hk:
            raise ShapeError(
                f"the query heads must be a multiple of the key heads; q has {h}, k has {hk}, which "
                "does not divide it. Repeat or drop heads of one of them."
            )
        return Dims(b, h, hk, n, m, d)

    def check_value(self, v: Tensor, k: Tensor) -> None:
        """Check v [b,hk,m,dv] against k. Raises ShapeError."""
        check_tensor("v", v)
        if v.ndim != 4 or v.shape[:3] != (self.b, self.hk, self.m) or v.shape[3] == 0:
            raise ShapeError(
                f"v must be [b, hk, m, dv] with b={self.b}, hk={self.hk}, m={self.m} and dv at least 1; "
                f"it has shape {tuple(v.shape)}."
            )
        if v.dtype != k.dtype or v.device != k.device:
            raise ShapeError(
                f"v must share dtype and device with k ({k.dtype}, {k.device}); it is {v.dtype} on {v.device}."
            )
