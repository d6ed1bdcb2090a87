"""Shapes and dtypes without data: what tracing sees is what running gives."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

from ops.samples import HK, SAMPLES, B, D, H, M, N, every_reduction, inputs
from sightline import (
    AttentionMatrix,
    Causal,
    DenseBias,
    Lengths,
    Packed,
    Prefix,
    Received,
    Reduction,
    Window,
    attention,
    observe,
    reductions,
)

Description = list[tuple[tuple[int, ...], torch.dtype, tuple[int, ...]]]


def described(results: Any) -> Description:
    leaves = torch.utils._pytree.tree_leaves(results)
    return [(tuple(t.shape), t.dtype, t.stride()) for t in leaves]


@pytest.mark.parametrize("name", list(SAMPLES))
def test_the_operators_fake_gives_the_shapes_dtypes_and_strides_of_its_results(name: str) -> None:
    args = SAMPLES[name](False)
    real = described(torch.ops.sightline.reduce(*args))
    with FakeTensorMode(allow_non_fake_inputs=True):
        fake = torch.ops.sightline.reduce(*args)
    assert described(fake) == real
    assert type(fake[0]).__name__ == "FakeTensor"


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("name", list(every_reduction()))
def test_every_reduction_has_the_same_shape_and_dtype_with_and_without_data(name: str, dtype: torch.dtype) -> None:
    def call(q: Tensor, k: Tensor, reduction: Reduction) -> Any:
        return AttentionMatrix(q, k, mask=Causal()).reduce({"it": reduction})["it"]

    q, k, _ = inputs(dtype)
    reduction = every_reduction(dtype)[name]
    with FakeTensorMode() as mode:
        fakes = reduction.map(mode.from_tensor)
        fake = call(mode.from_tensor(q), mode.from_tensor(k), with_fake_integers(fakes, mode))
    assert described(fake) == described(call(q, k, reduction))


def with_fake_integers(reduction: Reduction, mode: FakeTensorMode) -> Reduction:
    changed = {
        f.name: mode.from_tensor(value)
        for f in dataclasses.fields(reduction)  # type: ignore[arg-type]
        if isinstance(value := getattr(reduction, f.name), Tensor) and not value.is_floating_point()
    }
    return dataclasses.replace(reduction, **changed) if changed else reduction  # type: ignore[type-var]


CALLS: dict[str, Callable[[Tensor, Tensor, Tensor], Tensor]] = {
    "plain": lambda q, k, v: attention(q, k, v),
    "causal window": lambda q, k, v: attention(q, k, v, mask=Causal() & Window(2)),
    "lengths": lambda q, k, v: attention(q, k, v, mask=Lengths(k=torch.tensor([3, 4]))),
    "packed": lambda q, k, v: attention(q, k, v, mask=Packed(torch.tensor([0, 3, 5]))),
    "prefix": lambda q, k, v: attention(q, k, v, mask=Prefix(torch.tensor([3, 4]))),
    "a dense bias": lambda q, k, v: attention(q, k, v, bias=DenseBias(torch.zeros(N, M))),
    "a slice": lambda q, k, v: AttentionMatrix(q, k)[0, 1:, 1:3, -1],
    "the definition": lambda q, k, v: attention(q.float(), k.float(), v.float(), backend="dense"),
}


@pytest.mark.parametrize("name", list(CALLS))
def test_a_call_on_fake_tensors_gives_the_shape_of_the_call_on_real_ones(name: str) -> None:
    call = CALLS[name]
    with FakeTensorMode():
        fake = call(torch.empty(B, H, N, D), torch.empty(B, HK, M, D), torch.empty(B, HK, M, D + 1))
    real = call(*inputs(torch.float32))
    assert (fake.shape, fake.dtype) == (real.shape, real.dtype)


@pytest.mark.parametrize("name", ["plain", "causal window", "a slice"])
def test_meta_tensors_give_meta_tensors_of_the_same_shape(name: str) -> None:
    real = CALLS[name](*inputs(torch.float32))
    made = CALLS[name](*(t.to("meta") for t in inputs(torch.float32)))
    assert made.device.type == "meta"
    assert (made.shape, made.dtype) == (real.shape, real.dtype)


def test_gradients_on_fake_tensors_have_the_shapes_of_their_inputs() -> None:
    with FakeTensorMode():
        q, k, v = (torch.empty(t.shape, requires_grad=True) for t in inputs())
        weights = torch.empty(B, H, N, requires_grad=True)
        seen = observe(q, k, v, {"it": Received(weights)})
        (seen.output.sum() + seen["it"].sum()).backward()
        for t in (q, k, v, weights):
            assert t.grad is not None
            assert (t.grad.shape, t.grad.dtype) == (t.shape, t.dtype)


def test_no_reduction_is_left_out_of_these_tests() -> None:
    public = [getattr(reductions, name) for name in reductions.__all__]
    concrete = {c for c in public if isinstance(c, type) and issubclass(c, Reduction) and "dense" in vars(c)}
    assert {type(r) for r in every_reduction().values()} == concrete - {Reduction}
