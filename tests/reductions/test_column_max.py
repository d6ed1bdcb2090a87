"""ColumnMax: max_i P_ij. In eighths the columns are 1 2 4, 2 2 2, 4 2 1, 1 2 1: 4 2 4 2."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from reductions.example import SINK, by_definition, equal, grouped, matrix, one
from sightline import ColumnMax, DenseBias, Window

HAND = torch.tensor([4, 2, 4, 2]).double() / 8


def test_the_definition_gives_the_numbers_found_by_hand() -> None:
    equal(by_definition(ColumnMax()), HAND)


def test_every_backend_gives_the_numbers_found_by_hand(backend: str) -> None:
    equal(one(matrix(backend), ColumnMax()), HAND)


def test_a_row_without_keys_gives_nothing(backend: str, restriction: dict[str, Any]) -> None:
    equal(one(matrix(backend, **restriction), ColumnMax()), [1 / 8, 2 / 3, 4 / 8, 1 / 8])


def test_keys_that_no_row_sees_have_the_maximum_0(backend: str) -> None:
    equal(one(matrix(backend, mask=Window(0, 0)), ColumnMax()), [0, 1, 1, 1])


def test_a_sink_takes_its_share_from_every_weight(backend: str) -> None:
    equal(one(matrix(backend, sink=SINK), ColumnMax()), HAND / 2)


def test_query_heads_that_share_keys_each_get_their_own(backend: str) -> None:
    made = grouped(backend).reduce({"it": ColumnMax()})["it"]
    equal(made[0], torch.stack([HAND, HAND, HAND.flip(0), HAND.flip(0)]))
    equal(made[1], torch.full((4, 4), 1 / 4))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_coarse_inputs_are_reduced_in_float32(dtype: torch.dtype) -> None:
    made = one(matrix("tiled", dtype), ColumnMax())
    assert made.dtype == torch.float32
    equal(made, HAND)


def test_it_carries_no_gradient(backend: str) -> None:
    bias = torch.zeros(3, 4, dtype=torch.float64, requires_grad=True)
    assert not one(matrix(backend, bias=DenseBias(bias)), ColumnMax()).requires_grad
