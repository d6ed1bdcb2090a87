"""ColumnMoment: Pᵀ w, here of w = (1 for rows 0 and 2, 1 for rows 1 and 2).

In eighths, rows 0 and 2 are 1 2 4 1 and 4 2 1 1: 5 4 5 2. Rows 1 and 2 are 2 2 2 2 and 4 2 1 1: 6 4 3 3.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from reductions.example import SINK, by_definition, equal, grouped, logit_gradient, matrix, one, sink_gradient
from sightline import ColumnMoment, ShapeError

W = torch.tensor([[1, 0], [0, 1], [1, 1]]).double()
HAND = torch.tensor([[5, 6], [4, 4], [5, 3], [2, 3]]).double() / 8


def test_the_definition_gives_the_numbers_found_by_hand() -> None:
    equal(by_definition(ColumnMoment(W[None, None])), HAND)


def test_every_backend_gives_the_numbers_found_by_hand(backend: str) -> None:
    equal(one(matrix(backend), ColumnMoment(W)), HAND)
    equal((matrix(backend).mT @ W)[0, 0], HAND)


def test_a_row_without_keys_gives_nothing(backend: str, restriction: dict[str, Any]) -> None:
    equal(
        one(matrix(backend, **restriction), ColumnMoment(W)),
        [[1 / 8, 0], [2 / 8 + 2 / 3, 2 / 3], [4 / 8 + 1 / 3, 1 / 3], [1 / 8, 0]],
    )


def test_a_sink_takes_its_share_from_every_key(backend: str) -> None:
    equal(one(matrix(backend, sink=SINK), ColumnMoment(W)), HAND / 2)


@pytest.mark.parametrize("heads", [1, 2, 4])
def test_w_may_be_given_once_per_key_head_or_query_head(backend: str, heads: int) -> None:
    scales = torch.arange(1, heads + 1).double()
    made = grouped(backend).mT @ (scales[:, None, None] * W)[None]
    each = scales.repeat_interleave(4 // heads)[:, None, None]
    # With the rows from last to first, w meets rows 0 and 2 as before, and then rows 1 and 0: 3 4 6 3.
    turned = torch.tensor([[5, 3], [4, 4], [5, 6], [2, 3]]).double() / 8
    equal(made[0], each * torch.stack([HAND, turned, HAND.flip(0), turned.flip(0)]))
    equal(made[1], each * torch.full((4, 4, 2), 2 / 4))


def test_w_of_its_own_for_every_batch_entry(backend: str) -> None:
    made = grouped(backend).mT @ torch.stack([W, 0 * W])[:, None]
    equal(made[0, 0], HAND)
    equal(made[1], torch.zeros(4, 4, 2))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_the_result_is_in_the_dtype_of_w(dtype: torch.dtype) -> None:
    made = one(matrix("tiled", dtype), ColumnMoment(W.to(dtype)))
    assert made.dtype == dtype
    assert made.tolist() == HAND.tolist()  # eighths: exact in every dtype, since the sum is taken in float32
    assert one(matrix("tiled", dtype), ColumnMoment(W.float())).dtype == torch.float32


def test_the_gradient_of_the_logits_is_the_one_found_by_hand(backend: str) -> None:
    # Key 2 of the first column of w, which rows 0 and 2 carry: P_ij (1 at 2 − P_i2).
    equal(
        logit_gradient(backend, ColumnMoment(W), lambda made: made[2, 0]),
        torch.tensor([[-4, -8, 16, -4], [0] * 4, [-4, -2, 7, -1]]).double() / 64,
    )


def test_the_gradient_of_w_is_the_column(backend: str) -> None:
    w = W.clone().requires_grad_()
    one(matrix(backend), ColumnMoment(w))[2, 0].backward()
    equal(w.grad, torch.tensor([[4, 0], [2, 0], [1, 0]]).double() / 8)


@pytest.mark.parametrize("heads", [1, 2, 4])
def test_the_gradient_of_w_that_heads_share_is_the_sum_over_them(backend: str, heads: int) -> None:
    w = W.expand(1, heads, 3, 2).clone().requires_grad_()
    (grouped(backend).mT @ w)[:, :, 2, 0].sum().backward()
    # Key 2 of each query head, entry 0, in eighths: 4 2 1, 1 2 4, then P[:, 1] = 2 2 2 twice. Entry 1: 2 2 2 for each.
    columns = torch.tensor([[4, 2, 1], [1, 2, 4], [2, 2, 2], [2, 2, 2]]) + 2
    equal(w.grad[0, :, :, 0], columns.reshape(heads, -1, 3).sum(1) / 8)
    equal(w.grad[0, :, :, 1], torch.zeros(heads, 3))


def test_the_gradient_of_a_sink_is_the_one_found_by_hand(backend: str) -> None:
    # Four rows' worth in all, half of it left by the sink, and that falls by half of itself.
    equal(sink_gradient(backend, ColumnMoment(W), Tensor.sum), -1)


def test_w_must_be_floating_point(backend: str) -> None:
    with pytest.raises(ShapeError, match=r"ColumnMoment.w must be floating point; it is torch.int64"):
        one(matrix(backend), ColumnMoment(W.long()))


@pytest.mark.parametrize("shape", [(4, 2), (3,), (2, 3, 2), (2, 1, 3, 2), (1, 1, 1, 3, 2)])
def test_w_must_fit_the_rows(backend: str, shape: tuple[int, ...]) -> None:
    with pytest.raises(
        ShapeError, match=r"ColumnMoment.w must be \[b\|1, h\|hk\|1, n, c\] with b=1, h=1 .*n=3, m=4; it has"
    ):
        one(matrix(backend), ColumnMoment(torch.zeros(shape)))
