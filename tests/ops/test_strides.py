"""Inputs as callers hold them: transposed, with steps, broadcast, offset; and gradients that come back the same way."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from ops.samples import HK, B, D, H, M, N, every_reduction, inputs, tensor
from sightline import AttentionMatrix, Causal, DenseBias, DenseMask, Entropy, Received, RowMoment, attention, observe


def wide(t: Tensor) -> Tensor:
    """The same values, every second of a larger tensor, the rest NaN."""
    larger = torch.full([2 * s + 1 for s in t.shape], torch.nan, dtype=t.dtype)
    larger[tuple(slice(1, None, 2) for _ in t.shape)] = t
    return larger[tuple(slice(1, None, 2) for _ in t.shape)]


LAYOUTS: dict[str, Callable[[Tensor], Tensor]] = {
    "b n h d": lambda t: t.transpose(1, 2).contiguous().transpose(1, 2),
    "dimensions in reverse": lambda t: t.permute(3, 2, 1, 0).contiguous().permute(3, 2, 1, 0),
    "every second element": wide,
    "a slice of a longer cache": lambda t: torch.cat([torch.full_like(t, torch.nan), t], 2)[:, :, t.shape[2] :],
    "channels last": lambda t: t.contiguous(memory_format=torch.channels_last),
}


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
@pytest.mark.parametrize("layout", list(LAYOUTS))
def test_the_layout_of_the_inputs_changes_no_result(layout: str, dtype: torch.dtype) -> None:
    reshape = LAYOUTS[layout]
    q, k, v = inputs(dtype)
    plain = observe(q, k, v, every_reduction(dtype), mask=Causal())
    made = observe(reshape(q), reshape(k), reshape(v), every_reduction(dtype), mask=Causal())
    assert not reshape(q).is_contiguous()
    for actual, wanted in zip(
        *(torch.utils._pytree.tree_leaves([s.output, dict(s)]) for s in (made, plain)), strict=True
    ):
        torch.testing.assert_close(actual, wanted, rtol=0, atol=0)


@pytest.mark.parametrize("layout", list(LAYOUTS))
def test_the_layout_of_inputs_and_gradients_changes_no_gradient(layout: str) -> None:
    reshape = LAYOUTS[layout]

    def outcome(change: Callable[[Tensor], Tensor]) -> list[Tensor]:
        given = inputs(grad=True)
        f = tensor(1, HK, M, 2, seed=1, grad=True)
        seen = observe(*map(change, given), {"it": RowMoment(change(f)), "entropy": Entropy()}, mask=Causal())
        grad = change(tensor(*seen.output.shape, seed=2))
        torch.autograd.backward([seen.output, seen["it"], seen["entropy"]], [grad, change(grad[..., :2]), grad[..., 0]])
        return [t.grad for t in (*given, f)]  # type: ignore[misc]

    for actual, wanted in zip(outcome(reshape), outcome(lambda t: t), strict=True):
        torch.testing.assert_close(actual, wanted, rtol=0, atol=0)


def test_broadcast_inputs_read_as_if_copied_and_get_their_gradient_summed() -> None:
    q, k, v = tensor(1, 1, N, D, grad=True), tensor(1, 1, 1, D, grad=True), tensor(B, HK, 1, 1, grad=True)
    shapes = (B, H, N, D), (B, HK, M, D), (B, HK, M, 3)
    expanded = [t.expand(shape) for t, shape in zip((q, k, v), shapes, strict=True)]
    made = attention(*expanded)
    copied = [t.detach().contiguous().requires_grad_() for t in expanded]
    wanted = attention(*copied)
    torch.testing.assert_close(made, wanted, rtol=0, atol=0)
    made.square().sum().backward()
    wanted.square().sum().backward()
    for t, copy in zip((q, k, v), copied, strict=True):
        torch.testing.assert_close(t.grad, copy.grad.sum_to_size(t.shape), rtol=1e-13, atol=1e-13)  # type: ignore[union-attr]


def test_an_expanded_gradient_as_sum_gives_is_read_right() -> None:
    outcomes = []
    for expand in (True, False):
        q, k, _ = inputs(grad=True)
        made = AttentionMatrix(q, k).reduce({"it": Received()})["it"]
        grad = torch.ones((), dtype=made.dtype).expand(made.shape) if expand else torch.ones_like(made)
        made.backward(grad)
        outcomes.append((q.grad, k.grad))
    for a, b in zip(*outcomes, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=0)


@pytest.mark.parametrize("shape", [(N, M), (B, 1, N, M), (1, H, 1, M), (H, N, 1), (B, 1, 1, M)])
def test_biases_and_masks_may_have_any_strides(shape: tuple[int, ...]) -> None:
    q, k, v = inputs()
    bias = tensor(*shape, seed=8)
    seen = bias > -1
    for given in ({"bias": DenseBias(bias)}, {"mask": DenseMask(seen)}):
        stepped = (
            {"bias": DenseBias(wide(bias))}
            if "bias" in given
            else {"mask": DenseMask(seen.transpose(-1, -2).contiguous().transpose(-1, -2))}
        )
        torch.testing.assert_close(attention(q, k, v, **stepped), attention(q, k, v, **given), rtol=0, atol=0)


def test_results_are_contiguous_and_share_no_memory_with_inputs() -> None:
    q, k, v = map(LAYOUTS["b n h d"], inputs())
    seen = observe(q, k, v, every_reduction())
    held = {t.untyped_storage().data_ptr() for t in (q, k, v)}
    for t in torch.utils._pytree.tree_leaves([seen.output, dict(seen)]):
        assert t.is_contiguous()
        assert t.untyped_storage().data_ptr() not in held
