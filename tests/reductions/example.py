"""The worked example: three queries, four keys, and every number small enough to check by hand.

The logits are log 2 times these exponents, so e^s is a power of two and every row's mass is 8:

    exponents          e^s               P = e^s / 8
    0 1 2 0            1 2 4 1           1/8 2/8 4/8 1/8
    1 1 1 1            2 2 2 2           2/8 2/8 2/8 2/8
    2 1 0 0            4 2 1 1           4/8 2/8 1/8 1/8

They come about as q = the identity, k_j = column j of the exponents, scale = log 2: exact in every dtype.

With a sink of log 8 every row's mass doubles and every weight halves.

Masked, row 0 sees all four keys, row 1 none, row 2 keys 1 and 2 alone, with e^s = 2 and 1:

    1/8 2/8 4/8 1/8
    0   0   0   0
    0   2/3 1/3 0
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from sightline import AttentionMatrix, DenseBias, DenseMask, Intervals, Reduction

LOG2 = math.log(2)
EXPONENTS = torch.tensor([[0, 1, 2, 0], [1, 1, 1, 1], [2, 1, 0, 0]], dtype=torch.float64)
WEIGHTS = torch.tensor([[1, 2, 4, 1], [2, 2, 2, 2], [4, 2, 1, 1]], dtype=torch.float64) / 8
ADMITTED = torch.tensor([[1, 1, 1, 1], [0, 0, 0, 0], [0, 1, 1, 0]], dtype=torch.bool)
MASKED = torch.tensor([[1 / 8, 2 / 8, 4 / 8, 1 / 8], [0, 0, 0, 0], [0, 2 / 3, 1 / 3, 0]], dtype=torch.float64)
#: The same restriction said in three ways.
RESTRICTIONS: dict[str, dict[str, Any]] = {
    "intervals": {"mask": Intervals(torch.tensor([0, 0, 1]), torch.tensor([4, 0, 3]))},
    "a dense mask": {"mask": DenseMask(ADMITTED)},
    "a bias of −inf": {"bias": DenseBias(torch.zeros(3, 4).masked_fill(~ADMITTED, -math.inf))},
}
SINK = math.log(8)


def matrix(
    backend: str, dtype: torch.dtype = torch.float64, sink: float | None = None, **given: Any
) -> AttentionMatrix:
    """The example, one head: [1, 1, 3, 4]."""
    q, k = torch.eye(3, dtype=dtype)[None, None], EXPONENTS.mT.to(dtype)[None, None]
    sinks = None if sink is None else torch.tensor([sink], dtype=dtype)
    return AttentionMatrix(q, k, scale=LOG2, sinks=sinks, backend=backend, **given)


def grouped(backend: str) -> AttentionMatrix:
    """Two batch entries, four query heads, two key heads: [2, 4, 3, 4].

    Entry 0: the example; with its rows from last to first; with its keys from last to first; with both.
    Entry 1: queries of 0, so every weight is 1/4.
    """
    eye = torch.eye(3, dtype=torch.float64)
    q = torch.stack([eye, eye.flip(0), eye, eye.flip(0)])
    k = torch.stack([EXPONENTS.mT, EXPONENTS.mT.flip(0)])
    return AttentionMatrix(torch.stack([q, 0 * q]), torch.stack([k, k]), scale=LOG2, backend=backend)


def one(matrix: AttentionMatrix, reduction: Reduction) -> Any:
    """A reduction of the only head, without the leading dimensions."""
    made = matrix.reduce({"it": reduction})["it"]
    assert made.shape[:2] == (1, 1)
    return made[0, 0]


def by_definition(reduction: Reduction) -> Any:
    """The reduction's `dense` on the example's logits and weights, without a backend."""
    made = reduction.dense(LOG2 * EXPONENTS[None, None], WEIGHTS[None, None])
    return tuple(t[0, 0] for t in made) if isinstance(made, tuple) else made[0, 0]


def logit_gradient(backend: str, reduction: Reduction, loss: Any, **given: Any) -> Tensor:
    """∂loss(result) / ∂s [3, 4]: the gradient of a bias of zeros."""
    bias = torch.zeros(3, 4, dtype=torch.float64, requires_grad=True)
    loss(one(matrix(backend, bias=DenseBias(bias), **given), reduction)).backward()
    assert bias.grad is not None
    return bias.grad


def sink_gradient(backend: str, reduction: Reduction, loss: Any) -> Tensor:
    """∂loss(result) / ∂sink, at a sink of log 8."""
    sinks = torch.tensor([SINK], dtype=torch.float64, requires_grad=True)
    plain = matrix(backend)
    whole = AttentionMatrix(plain.q, plain.k, scale=LOG2, sinks=sinks, backend=backend)
    loss(one(whole, reduction)).backward()
    assert sinks.grad is not None
    return sinks.grad[0]


def equal(actual: Any, expected: Any) -> None:
    """Equal up to a few roundings of the actual dtype."""
    expected = expected if isinstance(expected, Tensor) else torch.tensor(expected, dtype=torch.float64)
    if not actual.is_floating_point():
        assert actual.dtype == torch.int64
        assert actual.tolist() == expected.tolist()
        return
    near = {torch.float64: 4e-15, torch.float32: 4e-7, torch.bfloat16: 8e-3, torch.float16: 1e-3}[actual.dtype]
    torch.testing.assert_close(actual, expected.to(actual.dtype), rtol=near, atol=near)
