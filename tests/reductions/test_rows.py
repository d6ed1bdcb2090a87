"""Rows: whole rows of P, in the order asked for."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from reductions.example import (
    MASKED,
    SINK,
    WEIGHTS,
    by_definition,
    equal,
    grouped,
    logit_gradient,
    matrix,
    one,
    sink_gradient,
)
from sightline import Rows, ShapeError, SpecError

HAND = torch.tensor([[4, 2, 1, 1], [1, 2, 4, 1]]).double() / 8


def test_the_definition_gives_the_numbers_found_by_hand() -> None:
    equal(by_definition(Rows(torch.tensor([2, 0]))), HAND)


def test_every_backend_gives_the_numbers_found_by_hand(backend: str) -> None:
    equal(one(matrix(backend), Rows(torch.tensor([2, 0]))), HAND)


def test_rows_may_repeat_and_count_from_the_end(backend: str) -> None:
    equal(one(matrix(backend), Rows(torch.tensor([-1, 0, -3, 2, 2]))), HAND[[0, 1, 1, 0, 0]])


@pytest.mark.parametrize("i", [[2, 0], range(2, -1, -2), (2, 0)])
def test_rows_may_be_a_list_or_a_range(backend: str, i: Any) -> None:
    equal(one(matrix(backend), Rows(i)), HAND)


def test_a_row_without_keys_is_0_and_a_restricted_row_is_0_outside(backend: str, restriction: dict[str, Any]) -> None:
    equal(one(matrix(backend, **restriction), Rows(torch.tensor([1, 2, 0]))), MASKED[[1, 2, 0]])


def test_rows_sum_to_what_the_sink_leaves_them(backend: str) -> None:
    made = one(matrix(backend, sink=SINK), Rows(torch.arange(3)))
    equal(made, WEIGHTS / 2)
    equal(made.sum(-1), [1 / 2] * 3)


def test_query_heads_that_share_keys_each_get_their_own(backend: str) -> None:
    made = grouped(backend).reduce({"it": Rows(torch.tensor([2, 0]))})["it"]
    equal(made[0], torch.stack([HAND, HAND.flip(0), HAND.flip(1), HAND.flip(0, 1)]))
    equal(made[1], torch.full((4, 2, 4), 1 / 4))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_coarse_inputs_are_reduced_in_float32(dtype: torch.dtype) -> None:
    made = one(matrix("tiled", dtype), Rows(torch.tensor([2, 0])))
    assert made.dtype == torch.float32
    equal(made, HAND)


def test_the_gradient_of_the_logits_is_the_one_found_by_hand(backend: str) -> None:
    # The weight P[2, 0] = 4/8: P_2j (1 at 0 − 4/8) = 4·4, 2·(−4), 1·(−4), 1·(−4), in 64ths. Other rows: nothing.
    equal(
        logit_gradient(backend, Rows(torch.tensor([2, 0])), lambda made: made[0, 0]),
        torch.tensor([[0] * 4, [0] * 4, [16, -8, -4, -4]]).double() / 64,
    )


def test_the_gradient_of_a_row_asked_for_twice_counts_twice(backend: str) -> None:
    equal(
        logit_gradient(backend, Rows(torch.tensor([2, 2])), lambda made: made[:, 0].sum()),
        torch.tensor([[0] * 4, [0] * 4, [32, -16, -8, -8]]).double() / 64,
    )


def test_the_gradient_of_a_sink_is_the_one_found_by_hand(backend: str) -> None:
    # P[2, 0] = 4/16 with the sink, and falls by half of itself.
    equal(sink_gradient(backend, Rows(torch.tensor([2])), lambda made: made[0, 0]), -1 / 8)


@pytest.mark.parametrize("wrong", [torch.tensor([[0]]), torch.tensor(0), torch.tensor([0.0]), torch.tensor([True])])
def test_rows_must_be_a_vector_of_integers(backend: str, wrong: torch.Tensor) -> None:
    with pytest.raises(ShapeError, match=r"Rows.i must be integers, at least one; it is torch\."):
        one(matrix(backend), Rows(wrong))


def test_there_must_be_a_row(backend: str) -> None:
    with pytest.raises(ShapeError, match=r"Rows.i must be integers, at least one; it is torch.int64 with shape \(0,\)"):
        one(matrix(backend), Rows(torch.zeros(0, dtype=torch.int64)))
    with pytest.raises(ShapeError, match=r"Rows\.i must be integers, at least one"):
        one(matrix(backend), Rows([]))


@pytest.mark.parametrize("wrong", [-4, 3])
def test_rows_must_exist(backend: str, wrong: int) -> None:
    with pytest.raises(SpecError, match=r"Rows.i must lie between -3 and 2; it goes from "):
        one(matrix(backend), Rows(torch.tensor([0, wrong])))
