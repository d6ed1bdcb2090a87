"""A gradient of a gradient: refused in so many words by the operator, and there in the definition."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.autograd import gradgradcheck

from ops.samples import SAMPLES, inputs, tensor
from sightline import AttentionMatrix, Causal, Entropy, LogSumExp, Received, Unsupported, attention, observe


def first(backend: str, **kwargs: bool) -> tuple[Tensor, tuple[Tensor, ...]]:
    q, k, v = inputs(grad=True)
    seen = observe(q, k, v, {"entropy": Entropy(), "received": Received()}, mask=Causal(), backend=backend)
    value = seen.output.square().sum() + seen["entropy"].sum() + seen["received"].square().sum()
    return q, torch.autograd.grad(value, (q, k, v), create_graph=True, **kwargs)


@pytest.mark.parametrize("backend", ["auto", "tiled"])
def test_the_operator_refuses_it_and_says_what_to_use(backend: str) -> None:
    q, grads = first(backend)
    with pytest.raises(
        Unsupported, match=r"gradient of a gradient.*only the definition has one.*backend='dense'"
    ) as why:
        torch.autograd.grad(sum(g.square().sum() for g in grads), q)
    assert why.value.refusals == {"reduce_backward": ["it is not differentiable"]}


def test_the_operator_called_directly_refuses_it_too() -> None:
    args = SAMPLES["attention alone"](True)
    made = torch.ops.sightline.reduce(*args)
    (grad,) = torch.autograd.grad(made[1].square().sum(), args[0], create_graph=True)
    with pytest.raises(Unsupported, match="gradient of a gradient"):
        grad.sum().backward()


def test_asking_for_a_graph_of_the_gradient_without_using_it_is_fine() -> None:
    _, tiled = first("tiled")
    _, dense = first("dense")
    for a, b in zip(tiled, dense, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12)


def test_the_definition_has_a_second_order_gradient() -> None:
    q, k, v = (tensor(1, 2 if at == 0 else 1, 3, 2, seed=at, grad=True) for at in range(3))
    sinks = tensor(2, grad=True)

    def call(q: Tensor, k: Tensor, v: Tensor, sinks: Tensor) -> tuple[Tensor, ...]:
        reductions = {"entropy": Entropy(), "lse": LogSumExp(), "received": Received()}
        seen = observe(q, k, v, reductions, sinks=sinks, softcap=3.0, backend="dense")
        return seen.output, seen["entropy"], seen["lse"], seen["received"]

    assert gradgradcheck(call, (q, k, v, sinks))


def test_gradients_that_pass_the_attention_by_may_be_differentiated_again() -> None:
    # The second derivative of w² · attention with respect to w never differentiates attention's own gradient.
    q, k, v = inputs()
    w = torch.tensor(3.0, dtype=torch.float64, requires_grad=True)
    (once,) = torch.autograd.grad((w**2 * attention(q, k, v, backend="tiled")).sum(), w, create_graph=True)
    (twice,) = torch.autograd.grad(once, w)
    torch.testing.assert_close(twice, 2 * AttentionMatrix(q, k).__matmul__(v).sum(), rtol=1e-12, atol=1e-12)
