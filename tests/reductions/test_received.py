"""Received: Σ_i w_i P_ij. Unweighted, the columns of eighths 1 2 4, 2 2 2 … sum to 7, 6, 7, 4.

With weights 1, 2, 3: 1 + 4 + 12 = 17, 2 + 4 + 6 = 12, 4 + 4 + 3 = 11, 1 + 4 + 3 = 8.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from reductions.example import SINK, by_definition, equal, grouped, logit_gradient, matrix, one, sink_gradient
from sightline import Received, ShapeError, Window

HAND = torch.tensor([7, 6, 7, 4]).double() / 8
BY = torch.tensor([1, 2, 3]).double()
WEIGHTED = torch.tensor([17, 12, 11, 8]).double() / 8


def test_the_definition_gives_the_numbers_found_by_hand() -> None:
    equal(by_definition(Received()), HAND)
    equal(by_definition(Received(BY[None, None])), WEIGHTED)


def test_every_backend_gives_the_numbers_found_by_hand(backend: str) -> None:
    equal(one(matrix(backend), Received()), HAND)
    equal(one(matrix(backend), Received(BY)), WEIGHTED)


def test_a_row_without_keys_gives_nothing(backend: str, restriction: dict[str, Any]) -> None:
    made = matrix(backend, **restriction).reduce({"even": Received(), "weighted": Received(BY)})
    equal(made["even"][0, 0], [1 / 8, 2 / 8 + 2 / 3, 4 / 8 + 1 / 3, 1 / 8])
    equal(made["weighted"][0, 0], [1 / 8, 2 / 8 + 2, 4 / 8 + 1, 1 / 8])


def test_keys_that_no_row_sees_receive_0(backend: str) -> None:
    # Query i stands at position i + 1: with nothing behind and nothing ahead, keys 1, 2, 3 get all of one row each.
    equal(one(matrix(backend, mask=Window(0, 0)), Received()), [0, 1, 1, 1])


def test_a_sink_takes_its_share_from_every_key(backend: str) -> None:
    equal(one(matrix(backend, sink=SINK), Received()), HAND / 2)


@pytest.mark.parametrize("heads", [1, 2, 4])
def test_weights_may_be_given_once_per_key_head_or_query_head(backend: str, heads: int) -> None:
    scales = torch.arange(1, heads + 1).double()
    made = grouped(backend).reduce({"it": Received((scales[:, None] * BY)[None])})["it"]
    each = scales.repeat_interleave(4 // heads)[:, None]
    # With the rows from last to first the weights meet them as 3, 2, 1: 3 + 4 + 4, 6 + 4 + 2, 12 + 4 + 1, 3 + 4 + 1.
    turned = torch.tensor([11, 12, 17, 8]).double() / 8
    equal(made[0], each * torch.stack([WEIGHTED, turned, WEIGHTED.flip(0), turned.flip(0)]))
    equal(made[1], each * torch.full((4, 4), 6 / 4))


def test_weights_of_their_own_for_every_batch_entry(backend: str) -> None:
    made = grouped(backend).reduce({"it": Received(torch.stack([BY, 0 * BY])[:, None])})["it"]
    equal(made[0, 0], WEIGHTED)
    equal(made[1], torch.zeros(4, 4))


def test_heads_that_share_keys_each_get_their_own(backend: str) -> None:
    made = grouped(backend).reduce({"it": Received()})["it"]
    equal(made[0], torch.stack([HAND, HAND, HAND.flip(0), HAND.flip(0)]))
    equal(made[1], torch.full((4, 4), 3 / 4))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_coarse_inputs_and_weights_are_reduced_in_float32(dtype: torch.dtype) -> None:
    for reduction, hand in ((Received(), HAND), (Received(BY.to(dtype)), WEIGHTED)):
        made = one(matrix("tiled", dtype), reduction)
        assert made.dtype == torch.float32
        equal(made, hand)


def test_the_gradient_of_the_logits_is_the_one_found_by_hand(backend: str) -> None:
    # What key 2 receives: P_ij (1 at 2 − P_i2), with P_i2 = 4, 2, 1 eighths; the weights multiply the rows.
    even = torch.tensor([[-4, -8, 16, -4], [-4, -4, 12, -4], [-4, -2, 7, -1]]).double() / 64
    equal(logit_gradient(backend, Received(), lambda made: made[2]), even)
    equal(logit_gradient(backend, Received(BY), lambda made: made[2]), BY[:, None] * even)


def test_the_gradient_of_the_weights_is_the_column(backend: str) -> None:
    weights = BY.clone().requires_grad_()
    one(matrix(backend), Received(weights))[2].backward()
    equal(weights.grad, torch.tensor([4, 2, 1]).double() / 8)


@pytest.mark.parametrize("heads", [1, 2, 4])
def test_the_gradient_of_weights_that_heads_share_is_the_sum_over_them(backend: str, heads: int) -> None:
    weights = BY.expand(1, heads, 3).clone().requires_grad_()
    grouped(backend).reduce({"it": Received(weights)})["it"][..., 2].sum().backward()
    # Key 2 of each query head, entry 0, in eighths: 4 2 1, 1 2 4, then P[:, 1] = 2 2 2 twice. Entry 1: 2 2 2 for each.
    columns = torch.tensor([[4, 2, 1], [1, 2, 4], [2, 2, 2], [2, 2, 2]]) + 2
    equal(weights.grad[0], columns.reshape(heads, -1, 3).sum(1) / 8)


def test_the_gradient_of_a_sink_is_the_one_found_by_hand(backend: str) -> None:
    # Everything received is 3/2 in all, with the sink, and falls by half of itself.
    equal(sink_gradient(backend, Received(), Tensor.sum), -3 / 4)


def test_weights_must_be_floating_point(backend: str) -> None:
    with pytest.raises(ShapeError, match=r"Received.weights must be floating point; it is torch.int64"):
        one(matrix(backend), Received(BY.long()))


@pytest.mark.parametrize("shape", [(4,), (), (2, 3), (2, 1, 3), (1, 1, 1, 3)])
def test_weights_must_fit_the_rows(backend: str, shape: tuple[int, ...]) -> None:
    with pytest.raises(ShapeError, match=r"Received.weights must be .* with b=1, h=1 .*n=3, m=4; it has shape"):
        one(matrix(backend), Received(torch.zeros(shape)))
