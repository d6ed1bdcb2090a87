"""BlockMax: max of P over blocks. With 2 × 3 blocks, in eighths:

1 2 4 | 1        4, 2
2 2 2 | 2   ->
------+--
4 2 1 | 1        4, 1
"""

from __future__ import annotations

from typing import Any

import pytest
import torch

from reductions.example import SINK, WEIGHTS, by_definition, equal, grouped, matrix, one
from sightline import BlockMax, DenseBias, SpecError, Window

HAND = torch.tensor([[4, 2], [4, 1]]).double() / 8
BY_SIZE = {
    (1, 1): WEIGHTS,
    (3, 4): torch.tensor([[4 / 8]]),
    (8, 9): torch.tensor([[4 / 8]]),
    (3, 1): torch.tensor([[4, 2, 4, 2]]) / 8,
    (1, 4): torch.tensor([[4], [2], [4]]) / 8,
    (2, 2): torch.tensor([[2, 4], [4, 1]]) / 8,
}


def test_the_definition_gives_the_numbers_found_by_hand() -> None:
    equal(by_definition(BlockMax(2, 3)), HAND)


def test_every_backend_gives_the_numbers_found_by_hand(backend: str) -> None:
    equal(one(matrix(backend), BlockMax(2, 3)), HAND)


@pytest.mark.parametrize("size", list(BY_SIZE), ids=str)
def test_blocks_may_be_of_any_size(backend: str, size: tuple[int, int]) -> None:
    equal(one(matrix(backend), BlockMax(*size)), BY_SIZE[size])


def test_a_row_without_keys_gives_nothing(backend: str, restriction: dict[str, Any]) -> None:
    equal(one(matrix(backend, **restriction), BlockMax(2, 3)), [[4 / 8, 1 / 8], [2 / 3, 0]])


def test_blocks_that_no_row_sees_are_0(backend: str) -> None:
    equal(one(matrix(backend, mask=Window(0, 0)), BlockMax(2, 2)), [[1, 1], [0, 1]])


def test_a_sink_takes_its_share_from_every_weight(backend: str) -> None:
    equal(one(matrix(backend, sink=SINK), BlockMax(2, 3)), HAND / 2)


def test_query_heads_that_share_keys_each_get_their_own(backend: str) -> None:
    made = grouped(backend).reduce({"it": BlockMax(2, 3)})["it"]
    # Rows reversed: 4 2 1 | 1, 2 2 2 | 2, then 1 2 4 | 1. Keys reversed: 1 4 2 | 1, 2 2 2 | 2, 1 1 2 | 4. Both.
    equal(made[0], torch.tensor([[[4, 2], [4, 1]], [[4, 2], [4, 1]], [[4, 2], [2, 4]], [[2, 4], [4, 1]]]) / 8)
    equal(made[1], torch.full((4, 2, 2), 1 / 4))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_coarse_inputs_are_reduced_in_float32(dtype: torch.dtype) -> None:
    made = one(matrix("tiled", dtype), BlockMax(2, 3))
    assert made.dtype == torch.float32
    equal(made, HAND)


def test_it_carries_no_gradient(backend: str) -> None:
    bias = torch.zeros(3, 4, dtype=torch.float64, requires_grad=True)
    assert not one(matrix(backend, bias=DenseBias(bias)), BlockMax(2, 3)).requires_grad


@pytest.mark.parametrize("size", [(0, 3), (2, 0), (2, -3)])
def test_blocks_must_have_a_size(backend: str, size: tuple[int, int]) -> None:
    with pytest.raises(SpecError, match=rf"BlockMax needs blocks of at least 1 × 1; it got {size[0]} × {size[1]}"):
        one(matrix(backend), BlockMax(*size))
