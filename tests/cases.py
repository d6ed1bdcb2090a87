"""Attention calls drawn at random from a seed: every shape, dtype, mask, bias and reduction the library promises.

A `Case` is one call. Its tensors that gradients can flow to are its leaves, by name, so that one case can be called in
its own dtype, and defined in any other.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

import sightline as sl
from sightline._dims import Dims
from sightline.biases import Bias
from sightline.masks import Mask
from sightline.reductions import Reduction

HALVES = (torch.bfloat16, torch.float16)
DTYPES = (torch.float64, torch.float32, torch.bfloat16, torch.float16)
SIZES = (1, 1, 2, 3, 4, 5, 7, 8, 9, 13, 16, 17, 24, 31, 33, 40)
WIDTHS = (1, 2, 3, 5, 8, 16, 17, 32, 64)
#: Budgets of a strip: logits, rows before heads are cut, most rows. Small ones cut small cases into many strips.
STRIPS = ((2**21, 64, 256), (256, 4, 8), (64, 1, 3), (1, 1, 1), (1024, 64, 5))


@dataclass(frozen=True)
class Case:
    """One call.

    leaves: "q", "k", "v", perhaps "sinks", "bias.0" …, and "<reduction>.0" for a reduction's floating operand.
    bias: makes the bias from the leaves. wanted: the leaves whose gradient is asked for. strip: see STRIPS.
    grads: the gradient to push back into a result, by the result's name.
    """

    seed: int
    dims: Dims
    leaves: Mapping[str, Tensor]
    mask: Mask | None
    bias: Callable[[Mapping[str, Tensor]], Bias] | None
    reductions: Mapping[str, Reduction]
    scale: float | None
    softcap: float | None
    wanted: tuple[str, ...]
    strip: tuple[int, int, int] = STRIPS[0]
    grads: Mapping[str, Tensor] = field(default_factory=dict)

    @property
    def dtype(self) -> torch.dtype:
        return self.leaves["q"].dtype

    @property
    def accumulator(self) -> torch.dtype:
        """What logits, weights and observations are computed in."""
        return torch.float64 if self.dtype == torch.float64 else torch.float32

    @property
    def multiplier(self) -> float:
        return 1 / math.sqrt(self.dims.d) if self.scale is None else self.scale

    def fresh(self, dtype: torch.dtype | None = None) -> dict[str, Tensor]:
        """The leaves as new leaves of autograd, in their own dtypes or all in `dtype`; strides are kept."""
        return {
            name: (t if dtype is None else t.to(dtype)).detach().requires_grad_(name in self.wanted)
            for name, t in self.leaves.items()
        }

    def observe(
        self, leaves: Mapping[str, Tensor], backend: str, only: tuple[str, ...] | None = None
    ) -> dict[str, Any]:
        """The library's results: "output" and each reduction by name."""
        asked = {n: r for n, r in self.on(leaves).items() if only is None or n in only}
        seen = sl.observe(leaves["q"], leaves["k"], leaves["v"], asked, backend=backend, **self.options(leaves))
        return {"output": seen.output, **seen}

    def options(self, leaves: Mapping[str, Tensor]) -> dict[str, Any]:
        """The keyword arguments of the public calls."""
        return {
            "mask": self.mask,
            "bias": None if self.bias is None else self.bias(leaves),
            "scale": self.scale,
            "softcap": self.softcap,
            "sinks": leaves.get("sinks"),
        }

    def on(self, leaves: Mapping[str, Tensor]) -> dict[str, Reduction]:
        """The reductions with their floating operands taken from the leaves."""
        return {
            name: r.map(lambda t, name=name: leaves[f"{name}.0"]) if r.floating() else r
            for name, r in self.reductions.items()
        }

    def __str__(self) -> str:
        parts = [
            f"seed {self.seed}: {self.dtype}, {self.dims}, dv={self.leaves['v'].shape[-1]}",
            f"mask={self.mask}",
            f"bias={None if self.bias is None else self.bias(self.leaves)}",
            f"scale={self.scale} softcap={self.softcap} sinks={self.leaves.get('sinks')} strip={self.strip}",
            f"reductions={', '.join(f'{n}={r}' for n, r in self.reductions.items())}",
            f"gradients of {', '.join(self.wanted) or 'nothing'}",
        ]
        return "\n  ".join(parts)


class Draw:
    """Random choices and tensors from one seed."""

    def __init__(self, seed: int) -> None:
        self.choose = random.Random(seed)
        self.generator = torch.Generator().manual_seed(seed)

    def chance(self, p: float) -> bool:
        return self.choose.random() < p

    def one(self, options: Any) -> Any:
        return self.choose.choice(list(options))

    def whole(self, low: int, high: int) -> int:
        return self.choose.randint(low, high)

    def integers(self, low: int, high: int, *shape: int) -> Tensor:
        """int64 between low and high, both included."""
        return torch.randint(low, high + 1, shape, generator=self.generator)

    def normal(self, *shape: int, dtype: torch.dtype = torch.float64) -> Tensor:
        return torch.randn(shape, generator=self.generator, dtype=torch.float64).to(dtype)

    def strided(self, t: Tensor) -> Tensor:
        """The same values [b, h, n, d] as callers may hold them: contiguous, transposed, with steps, or broadcast."""
        kind = self.one(("contiguous", "contiguous", "b n h d", "steps", "reversed layout", "expanded"))
        if kind == "b n h d":
            return t.transpose(1, 2).contiguous().transpose(1, 2)
        if kind == "steps":
            wide = torch.full((*t.shape[:2], 2 * t.shape[2] + 1, 3 * t.shape[3]), torch.nan, dtype=t.dtype)
            wide[:, :, 1::2, ::3] = t
            return wide[:, :, 1::2, ::3]
        if kind == "reversed layout":
            return t.permute(3, 2, 1, 0).contiguous().permute(3, 2, 1, 0)
        if kind == "expanded":
            return t[:, :1].expand(t.shape)
        return t


def draw(seed: int, dtypes: tuple[torch.dtype, ...] = DTYPES) -> Case:
    """The case of a seed. The same seed always gives the same case."""
    pick = Draw(seed)
    dtype = pick.one(dtypes)
    dims = _dims(pick)
    q, k, v, scale = _tensors(pick, dims, dtype)
    leaves: dict[str, Tensor] = {"q": q, "k": k, "v": v}
    if pick.chance(0.3):
        size = pick.one((0.5, 3.0, 3.0, 100.0, 1e4))
        leaves["sinks"] = size * pick.normal(dims.h, dtype=pick.one((dtype, torch.float32)))
    bias = _bias(pick, dims, leaves) if pick.chance(0.5) else None
    mask = _mask(pick, dims) if pick.chance(0.75) else None
    reductions = _reductions(pick, dims, dtype, leaves)
    case = Case(
        seed,
        dims,
        leaves,
        mask,
        bias,
        reductions,
        scale,
        pick.one((None, None, 1.0, 5.0, 30.0, 50.0)),
        tuple(name for name in leaves if pick.chance(0.7)) if pick.chance(0.85) else (),
        pick.one(STRIPS) if pick.chance(0.6) else STRIPS[0],
    )
    return replace(case, grads=_grads(pick, case))


def _dims(pick: Draw) -> Dims:
    b, hk, group = pick.one((1, 1, 2, 3)), pick.one((1, 2, 3)), pick.one((1, 1, 2, 3, 4))
    n, m = pick.one(SIZES), pick.one(SIZES)
    if pick.chance(0.3):
        m = n
    if pick.chance(0.04):  # long rows, few of them: top-k goes by blocks
        b, hk, group, n, m = 1, 1, 2, pick.whole(1, 3), pick.whole(250, 700)
    elif pick.chance(0.04):  # as many queries against few keys
        b, hk, group, n, m = 1, 2, 1, pick.whole(250, 700), pick.whole(1, 3)
    return Dims(b, hk * group, hk, n, m, pick.one(WIDTHS))


def _tensors(pick: Draw, dims: Dims, dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor, float | None]:
    """q, k, v and the scale: logits ordinary, all equal, tied, or up to 1e4 either way."""
    q = pick.normal(dims.b, dims.h, dims.n, dims.d)
    k = pick.normal(dims.b, dims.hk, dims.m, dims.d)
    v = pick.normal(dims.b, dims.hk, dims.m, pick.one((*WIDTHS, dims.d)))
    scale: float | None = None
    kind = pick.one(("default", "default", "default", "scaled", "scaled", "huge", "equal", "tied"))
    if kind == "equal":
        q = torch.zeros_like(q)
    elif kind == "tied":  # small whole numbers: many keys score the same, exactly
        q, k = q.round().clamp(-1, 1), k.round().clamp(-1, 1)
        scale = pick.one((0.5, 1.0, -2.0))
    q, k, v = (pick.strided(t.to(dtype)) for t in (q, k, v))
    if kind in ("scaled", "huge"):
        largest = float((q.double().norm(dim=-1).amax() * k.double().norm(dim=-1).amax()).clamp(min=1e-3))
        scale = pick.one((-1, 1)) * (1e4 if kind == "huge" else pick.one((0.0, 0.1, 1.0, 10.0, 100.0))) / largest
    return q, k, v, scale


# -- masks --------------------------------------------------------------------------------------------


def _mask(pick: Draw, dims: Dims) -> Mask:
    """One mask or up to three of them, not contradictory."""
    while True:
        mask = simple_mask(pick, dims)
        while pick.chance(0.4):
            mask = mask & simple_mask(pick, dims)
        try:
            mask.admitted(dims, torch.device("cpu"))
        except sl.SpecError:  # the parts contradict each other
            continue
        return mask


def simple_mask(pick: Draw, dims: Dims) -> Mask:
    """Any one mask, rows without keys included."""
    b, h, n, m = dims.b, dims.h, dims.n, dims.m
    kind = pick.one(("causal", "causal", "window", "lengths", "packed", "prefix", "intervals", "dense"))
    if kind == "causal":
        return sl.Causal()
    if kind == "window":
        return sl.Window(pick.one((None, 0, 1, pick.whole(0, m))), pick.one((None, 0, 1, pick.whole(0, n))))
    if kind == "lengths":
        few = pick.one((1, b))
        q, k = pick.integers(0, n, few), pick.integers(0, m, few)
        return sl.Lengths(*pick.one(((q, k), (None, k), (q, None), (q.int(), k.int()))))
    if kind == "packed":
        sequences = pick.whole(1, 4)
        cu_q = _boundaries(pick, sequences, n)
        return sl.Packed(cu_q, None if n == m and pick.chance(0.5) else _boundaries(pick, sequences, m))
    if kind == "prefix":
        return sl.Prefix(pick.one((pick.whole(0, m), pick.integers(0, m, b))))
    if kind == "intervals":
        few = pick.one((1, b))
        lo, hi = pick.integers(-2, m, few, n), pick.integers(0, m + 2, few, n)
        return sl.Intervals(lo, hi) if few > 1 or pick.chance(0.5) else sl.Intervals(lo[0], hi[0])
    shape = [pick.one((1, size)) for size in (b, h, n, m)]
    return sl.DenseMask(_without_leading_ones(pick, pick.normal(*shape) > pick.one((-1.5, 0.0, 1.0))))


def _boundaries(pick: Draw, sequences: int, limit: int) -> Tensor:
    inner = pick.integers(0, limit, sequences).sort().values
    if pick.chance(0.5):
        inner[-1] = limit
    return torch.cat([torch.zeros(1, dtype=torch.int64), inner]).to(pick.one((torch.int32, torch.int64)))


def _without_leading_ones(pick: Draw, t: Tensor) -> Tensor:
    while t.ndim > 1 and t.shape[0] == 1 and pick.chance(0.5):
        t = t[0]
    return t


# -- biases -------------------------------------------------------------------------------------------


def _bias(pick: Draw, dims: Dims, leaves: dict[str, Tensor]) -> Callable[[Mapping[str, Tensor]], Bias]:
    """A bias or the sum of up to three; adds its tensors to the leaves."""
    makers: list[Callable[[Mapping[str, Tensor]], Bias]] = []
    while not makers or (len(makers) < 3 and pick.chance(0.3)):
        makers.append(_simple_bias(pick, dims, leaves, f"bias.{len(makers)}"))

    def bias(given: Mapping[str, Tensor]) -> Bias:
        total = makers[0](given)
        for make in makers[1:]:
            total = total + make(given)
        return total

    return bias


def _simple_bias(
    pick: Draw, dims: Dims, leaves: dict[str, Tensor], name: str
) -> Callable[[Mapping[str, Tensor]], Bias]:
    dtype = pick.one((leaves["q"].dtype, torch.float32))
    kind = pick.one(("alibi", "relative", "dense"))
    if kind == "alibi":
        geometric = sl.Alibi.geometric(dims.h).slopes
        leaves[name] = pick.one((geometric, pick.normal(dims.h), pick.normal(1))).to(dtype)
        return lambda given: sl.Alibi(given[name])
    if kind == "relative":
        both = pick.chance(0.5)
        buckets = pick.one((4, 6, 8, 32)) if both else pick.one((2, 3, 8, 32))
        far = pick.one((16, 20, 128)) if buckets < 32 else pick.one((24, 128))
        leaves[name] = pick.normal(buckets, pick.one((1, dims.h)), dtype=dtype)
        return lambda given: sl.RelativeBias(given[name], bidirectional=both, max_distance=far)
    shape = [pick.one((1, size)) for size in (dims.b, dims.h, dims.n, dims.m)]
    values = pick.normal(*shape) * pick.one((0.3, 2.0, 20.0))
    if pick.chance(0.5):
        values[pick.normal(*shape) > pick.one((0.0, 1.0, 2.0))] = -math.inf
    leaves[name] = _without_leading_ones(pick, values.to(dtype))
    return lambda given: sl.DenseBias(given[name])


# -- reductions ---------------------------------------------------------------------------------------


def _reductions(pick: Draw, dims: Dims, dtype: torch.dtype, leaves: dict[str, Tensor]) -> dict[str, Reduction]:
    """Some of all reductions, with operands in every layout; adds the floating ones to the leaves."""
    every = all_reductions(pick, dims, dtype)
    count = pick.one((0, 1, 2, 4, 6, len(every)))
    chosen = {name: every[name] for name in pick.choose.sample(sorted(every), count)}
    for name, r in chosen.items():
        for at, t in enumerate(r.floating()):
            leaves[f"{name}.{at}"] = t
    return chosen


def all_reductions(pick: Draw, dims: Dims, dtype: torch.dtype) -> dict[str, Reduction]:
    """Every reduction, some of them twice."""
    b, h, hk, n, m = dims.b, dims.h, dims.hk, dims.n, dims.m

    def leading() -> tuple[int, ...]:
        return pick.one(((), (pick.one((1, h)),), (pick.one((1, b)), pick.one((1, hk, h)))))

    def operand(*tail: int) -> Tensor:
        # Without the heads dimension an operand is [b, …]; without either it serves all.
        lead = leading()
        lead = (pick.one((1, b)),) if len(lead) == 1 else lead
        return pick.normal(*lead, *tail, dtype=pick.one((dtype, dtype, torch.float32)))

    def whole(low: int, high: int, *tail: int) -> Tensor:
        lead = leading()
        lead = (pick.one((1, b)),) if len(lead) == 1 else lead
        return pick.integers(low, high, *lead, *tail).to(pick.one((torch.int64, torch.int32)))

    segments = pick.whole(1, 5)
    return {
        "entropy": sl.Entropy(),
        "lse": sl.LogSumExp(),
        "peak": sl.Peak(),
        "top": sl.TopK(pick.one((1, 2, 3, 8))),
        "top64": sl.TopK(64),
        "moment": sl.RowMoment(operand(m, pick.whole(1, 4))),
        "segments": sl.SegmentMass(whole(-1, segments - 1, m), segments),
        "rows": sl.Rows(pick.integers(-n, n - 1, pick.whole(1, 5))),
        "entries": sl.Entries(whole(-1, m - 1, n, pick.whole(1, 6))),
        "received": sl.Received(),
        "received weighted": sl.Received(operand(n)),
        "column moment": sl.ColumnMoment(operand(n, pick.whole(1, 4))),
        "column max": sl.ColumnMax(),
        "block mass": sl.BlockMass(pick.whole(1, n + 2), pick.whole(1, m + 2)),
        "block mass small": sl.BlockMass(pick.whole(1, 3), pick.whole(1, 3)),
        "block max": sl.BlockMax(pick.whole(1, n + 2), pick.whole(1, m + 2)),
    }


def _grads(pick: Draw, case: Case) -> dict[str, Tensor]:
    """A gradient to push back into some of the differentiable results, in the result's dtype."""
    d = case.dims
    likes = {"output": ((d.b, d.h, d.n, case.leaves["v"].shape[-1]), case.dtype)}
    for name, r in case.reductions.items():
        if r.differentiable:
            likes[name] = r.bind(d, torch.device("cpu")).like(d, case.accumulator)[0]
    few = {name: like for name, like in likes.items() if pick.chance(0.75)}
    return {name: pick.normal(*shape, dtype=dtype) for name, (shape, dtype) in few.items()}
