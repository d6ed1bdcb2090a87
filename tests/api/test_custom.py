"""Reductions of a user's own: written as a definition, or as a fold; tiled, they equal their definition."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor

from sightline import (
    AttentionMatrix,
    Causal,
    Entropy,
    Lengths,
    Received,
    SpecError,
    Unsupported,
    Window,
    merge,
    observe,
    relevance,
)
from sightline._dims import Dims
from sightline.backends import _strips
from sightline.reductions import Additive, RowFold, RowWise, Settled, Tile


@dataclass(frozen=True)
class Above(RowWise):
    """How many keys of each row weigh more than a threshold, and what they weigh together."""

    threshold: float

    def dense(self, s: Tensor, p: Tensor) -> tuple[Tensor, Tensor]:
        heavy = p > self.threshold
        return heavy.sum(-1), (p * heavy).sum(-1)

    def like(self, dims: Dims, dtype: torch.dtype) -> Any:
        shape = (dims.b, dims.h, dims.n)
        return (shape, torch.int64), (shape, dtype)

    def pack(self, results: Sequence[Tensor]) -> dict[str, Tensor]:
        return {"count": results[0], "mass": results[1]}


@dataclass(frozen=True)
class Margin(RowWise):
    """The gap between the two largest logits of each row: reads logits, not weights."""

    def dense(self, s: Tensor, p: Tensor) -> Tensor:
        best = s.topk(2, -1).values
        return torch.where(best[..., 1] > -torch.inf, best[..., 0] - best[..., 1], 0)

    def like(self, dims: Dims, dtype: torch.dtype) -> Any:
        return (((dims.b, dims.h, dims.n), dtype),)


@dataclass(frozen=True)
class Spread(Additive):
    """Σ_i P_ijᵖ for a power p: how sharply each key is looked at; and the number of rows, as a second result."""

    power: float = 2.0

    def dense(self, s: Tensor, p: Tensor) -> tuple[Tensor, Tensor]:
        return p.pow(self.power).sum(-2), p.new_full((*p.shape[:2], 1), p.shape[-2])

    def like(self, dims: Dims, dtype: torch.dtype) -> Any:
        return ((dims.b, dims.h, dims.m), dtype), ((dims.b, dims.h, 1), dtype)

    def pack(self, results: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        return results[0], results[1]


@dataclass(frozen=True)
class Together(Additive):
    """PᵀP: which keys are looked at together."""

    def dense(self, s: Tensor, p: Tensor) -> Tensor:
        return p.mT @ p

    def like(self, dims: Dims, dtype: torch.dtype) -> Any:
        return (((dims.b, dims.h, dims.m, dims.m), dtype),)


@dataclass(frozen=True)
class Renyi(RowFold):
    """log Σ_j P_ijᵃ / (1 − a), the entropy of order a; −∞ … a row without keys gives 0. With a gradient."""

    order: float
    add: int = 0

    def dense(self, s: Tensor, p: Tensor) -> Tensor:
        mass = p.pow(self.order).sum(-1)
        return torch.where(mass > 0, mass, 1).log() / (1 - self.order) + self.add

    def like(self, dims: Dims, dtype: torch.dtype) -> Any:
        return (((dims.b, dims.h, dims.n), dtype),)

    def lift(self, tile: Tile) -> tuple[Tensor, ...]:
        return (tile.w.pow(self.order).sum(-1),)

    def shift(self, state: tuple[Tensor, ...], d: Tensor, mass: Tensor) -> tuple[Tensor, ...]:
        return (state[0] * (self.order * d).exp(),)

    def merge(self, a: tuple[Tensor, ...], b: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        return (a[0] + b[0],)

    def finish(self, state: tuple[Tensor, ...], rows: Settled) -> tuple[Tensor, ...]:
        mass = state[0] / rows.total.pow(self.order)
        return (torch.where(mass > 0, mass, 1).log() / (1 - self.order) + self.add,)

    def sensitivity(self, grads: Sequence[Tensor | None], tile: Tile, into: Tensor) -> None:
        if grads[0] is not None:
            g = grads[0][:, :, tile.i0 : tile.i1, None] * self.order / (1 - self.order)
            # The rows of a tile are whole here: the test's matrix is narrow and unmasked.
            into += g * tile.w.pow(self.order - 1) / tile.w.pow(self.order).sum(-1, keepdim=True)


@dataclass(frozen=True)
class Without(RowWise):
    """A reduction that sees nothing of the matrix but its shape; both fields may be left out."""

    shift: float | None = None
    times: int = 1

    def dense(self, s: Tensor, p: Tensor) -> Tensor:
        return p.new_full(p.shape[:3], (self.shift if self.shift is not None else 0.5) * self.times)

    def like(self, dims: Dims, dtype: torch.dtype) -> Any:
        return (((dims.b, dims.h, dims.n), dtype),)


ALL: dict[str, Any] = {
    "above": Above(0.2),
    "above nothing": Above(-math.inf),
    "margin": Margin(),
    "spread": Spread(),
    "spread of another power": Spread(0.5),
    "together": Together(),
    "renyi": Renyi(2.0),
    "renyi of another order": Renyi(0.5, add=3),
    "without": Without(),
    "without, with fields": Without(0.25, 3),
}
B, H, HK, N, M, D = 2, 4, 2, 6, 7, 3


def randn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed + sum(shape)), dtype=torch.float64)


OPTIONS: dict[str, dict[str, Any]] = {
    "plain": {},
    "causal": {"mask": Causal()},
    "a window with rows without keys, and sinks": {
        "mask": Causal() & Window(2) & Lengths(torch.tensor([6, 3])),
        "sinks": randn(H, seed=1),
    },
}


def whole(backend: str, **given: Any) -> AttentionMatrix:
    return AttentionMatrix(randn(B, H, N, D), randn(B, HK, M, D), backend=backend, **given)


@pytest.fixture(params=["at once", "row by row"])
def cut(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.param == "row by row":
        monkeypatch.setattr(_strips, "STRIP", 1)
        monkeypatch.setattr(_strips, "MOST_ROWS", 1)


@pytest.mark.usefixtures("cut")
@pytest.mark.parametrize("options", list(OPTIONS))
@pytest.mark.parametrize("name", list(ALL))
def test_tiled_equals_the_definition(name: str, options: str) -> None:
    tiled, dense = (
        whole(backend, **OPTIONS[options]).reduce({"it": ALL[name]})["it"] for backend in ("tiled", "dense")
    )
    assert type(tiled) is type(dense)
    torch.testing.assert_close(tiled, dense, rtol=1e-12, atol=1e-13)


def test_the_definition_is_evaluated_on_the_matrix_itself() -> None:
    p = whole("dense", mask=Causal()).dense()
    made = whole("tiled", mask=Causal()).reduce(
        {"above": Above(0.2), "together": Together(), "without": Without(0.25, 3)}
    )
    assert torch.equal(made["above"]["count"], (p > 0.2).sum(-1))
    torch.testing.assert_close(made["together"], p.mT @ p, rtol=1e-12, atol=1e-13)
    assert made["without"].unique().tolist() == [0.75]


def test_two_of_one_class_with_different_fields_stay_apart() -> None:
    made = whole("tiled").reduce({"low": Above(0.1), "high": Above(0.4)})
    assert (made["low"]["count"] > made["high"]["count"]).any()


def test_they_stand_beside_the_librarys_own_and_change_none() -> None:
    q, k, v = randn(B, H, N, D), randn(B, HK, M, D), randn(B, HK, M, 2)
    plain = observe(q, k, v, {"entropy": Entropy(), "received": Received()}, mask=Causal())
    seen = observe(q, k, v, {"above": Above(0.2), "entropy": Entropy(), **ALL, "received": Received()}, mask=Causal())
    assert torch.equal(seen.output, plain.output)
    assert torch.equal(seen["entropy"], plain["entropy"])
    assert torch.equal(seen["received"], plain["received"])


def test_a_fold_of_ones_own_merges_over_any_cut_of_the_keys() -> None:
    matrix = whole("tiled", mask=Causal())
    a, b, c = (matrix.partial({"it": Renyi(2.0)}, j0, j1) for j0, j1 in ((0, 2), (2, 5), (5, M)))
    wanted = matrix.reduce({"it": Renyi(2.0)})["it"]
    for merged in (merge(merge(a, b), c), merge(a, merge(b, c)), merge(c, merge(b, a))):
        torch.testing.assert_close(merged.finish()["it"], wanted, rtol=1e-12, atol=1e-13)


def test_a_fold_with_a_sensitivity_of_its_own_has_a_gradient() -> None:
    grads = []
    for backend in ("tiled", "dense"):
        q, k = randn(B, H, N, D).requires_grad_(), randn(B, HK, M, D).requires_grad_()
        made = AttentionMatrix(q, k, backend=backend).reduce({"it": Renyi(1.5)})["it"]
        (made * torch.linspace(1, 2, made.numel()).double().reshape(made.shape)).sum().backward()
        grads.append((q.grad, k.grad))
    for a, b in zip(*grads, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize("reduction", [Spread(), Margin()])
def test_one_without_a_sensitivity_is_refused_a_gradient_and_the_definition_gives_it(reduction: Any) -> None:
    def total(backend: str) -> Tensor:
        q = randn(1, 1, N, D).requires_grad_()
        made = AttentionMatrix(q, randn(1, 1, M, D), backend=backend).reduce({"it": reduction})["it"]
        (made[0] if isinstance(made, tuple) else made).sum().backward()
        assert q.grad is not None
        return q.grad

    with pytest.raises(Unsupported, match=rf"{type(reduction).__name__}.*no gradient.*backend='dense'"):
        total("tiled")
    assert total("dense").any()


def test_one_whose_gradient_is_not_asked_for_stands_in_nobodys_way() -> None:
    grads = []
    for extra in ({}, {"spread": Spread()}):
        q, k, v = randn(1, 1, N, D).requires_grad_(), randn(1, 1, M, D), randn(1, 1, M, 2)
        observe(q, k, v, extra).output.square().sum().backward()
        grads.append(q.grad)
    assert torch.equal(*grads)


@pytest.mark.usefixtures("cut")
def test_they_reduce_gradient_fields_too() -> None:
    v, g = randn(B, HK, M, 2), randn(B, H, N, 2)
    for reduction in (Above(0.1), Together(), Spread(2.0)):
        tiled, dense = (relevance(whole(name), v, g, {"it": reduction})["it"] for name in ("tiled", "dense"))
        torch.testing.assert_close(tiled, dense, rtol=1e-12, atol=1e-13)


def test_one_that_reads_logits_reads_them_beside_a_gradient_field_too() -> None:
    v, g = randn(B, HK, M, 2), randn(B, H, N, 2)
    tiled, dense = (relevance(whole(name), v, g, {"it": Margin()})["it"] for name in ("tiled", "dense"))
    torch.testing.assert_close(tiled, dense, rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_they_are_given_float32_for_coarser_inputs(dtype: torch.dtype) -> None:
    q, k = randn(B, H, N, D).to(dtype), randn(B, HK, M, D).to(dtype)
    made = AttentionMatrix(q, k).reduce({"it": Together()})["it"]
    assert made.dtype == torch.float32
    exact = AttentionMatrix(q.double(), k.double(), backend="dense").reduce({"it": Together()})["it"]
    torch.testing.assert_close(made.double(), exact, rtol=1e-5, atol=1e-6)


def test_a_field_that_cannot_cross_to_a_backend_is_refused_by_name() -> None:
    with pytest.raises(SpecError, match=r"Above.threshold must be an int, a float, a tensor or None; it is str"):
        whole("tiled").reduce({"it": Above("0.5")})  # type: ignore[arg-type]


def test_a_reduction_that_is_no_dataclass_is_refused_in_so_many_words() -> None:
    class Bare(RowWise):
        def dense(self, s: Tensor, p: Tensor) -> Tensor:
            return p.sum(-1)

        def like(self, dims: Dims, dtype: torch.dtype) -> Any:
            return (((dims.b, dims.h, dims.n), dtype),)

    with pytest.raises(SpecError, match=r"(?s)Bare.*dataclass"):
        whole("tiled").reduce({"it": Bare()})
