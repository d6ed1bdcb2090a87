"""Under autocast, q, k and v take its dtype, as they do in PyTorch's own attention."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from ops.samples import B, H, N, inputs, tensor
from sightline import AttentionMatrix, Entropy, Received, RowMoment, attention, observe

HALVES = [torch.bfloat16, torch.float16]


def torchs(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return scaled_dot_product_attention(q, k, v, enable_gqa=True)


@pytest.mark.parametrize("given", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("dtype", HALVES)
def test_the_output_has_the_dtype_that_pytorchs_has(given: torch.dtype, dtype: torch.dtype) -> None:
    for call in (torchs, attention):
        with torch.autocast("cpu", dtype):
            assert call(*inputs(given)).dtype == dtype


@pytest.mark.parametrize("call", [torchs, attention])
def test_off_and_disabled_it_changes_nothing(call: Callable[..., Tensor]) -> None:
    assert call(*inputs(torch.float32)).dtype == torch.float32
    with torch.autocast("cpu", torch.bfloat16), torch.autocast("cpu", enabled=False):
        assert call(*inputs(torch.float32)).dtype == torch.float32


@pytest.mark.parametrize("dtype", HALVES)
def test_the_numbers_are_those_of_inputs_rounded_by_hand(dtype: torch.dtype) -> None:
    given = inputs(torch.float32)
    with torch.autocast("cpu", dtype):
        seen = observe(*given, {"entropy": Entropy(), "received": Received()})
        matrix = AttentionMatrix(*given[:2])
        lse = matrix.lse()
    rounded = observe(*(t.to(dtype) for t in given), {"entropy": Entropy(), "received": Received()})
    assert seen.output.dtype == dtype
    assert torch.equal(seen.output, rounded.output)
    for name in ("entropy", "received"):
        assert seen[name].dtype == torch.float32
        assert torch.equal(seen[name], rounded[name])
    assert matrix.q.dtype == dtype
    assert torch.equal(lse, AttentionMatrix(*(t.to(dtype) for t in given[:2])).lse())


def test_float64_is_left_alone_as_it_is_by_pytorch() -> None:
    for call in (torchs, attention):
        with torch.autocast("cpu", torch.bfloat16):
            assert call(*inputs(torch.float64)).dtype == torch.float64


def test_gradients_arrive_in_the_dtype_of_the_leaves() -> None:
    for call in (torchs, attention):
        given = inputs(torch.float32, grad=True)
        with torch.autocast("cpu", torch.bfloat16):
            made = call(*given)
        made.float().square().sum().backward()
        assert {t.grad.dtype for t in given if t.grad is not None} == {torch.float32}
        assert all(t.grad is not None for t in given)


def test_gradients_are_those_of_inputs_rounded_by_hand() -> None:
    given, leaves = inputs(torch.float32, grad=True), inputs(torch.float32, grad=True)
    with torch.autocast("cpu", torch.bfloat16):
        attention(*given).float().square().sum().backward()
    attention(*(t.bfloat16() for t in leaves)).float().square().sum().backward()
    for actual, wanted in zip(given, leaves, strict=True):
        assert torch.equal(actual.grad, wanted.grad)  # type: ignore[arg-type]


def test_inputs_of_several_dtypes_meet_in_autocasts() -> None:
    q, k, v = inputs(torch.float32)
    for call in (torchs, attention):
        with torch.autocast("cpu", torch.bfloat16):
            assert call(q, k.bfloat16(), v).dtype == torch.bfloat16


def test_operands_keep_their_dtype() -> None:
    f = tensor(7, 2, dtype=torch.float32)
    q, k, v = inputs(torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        seen = observe(q, k, v, {"it": RowMoment(f)})
    assert seen["it"].dtype == torch.float32
    assert seen["it"].shape == (B, H, N, 2)
