"""BlockMass: Σ of P over blocks. With 2 × 3 blocks, in eighths:

1 2 4 | 1        7 + 6 = 13, 1 + 2 = 3
2 2 2 | 2   ->
------+--
4 2 1 | 1        7, 1
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from reductions.example import SINK, WEIGHTS, by_definition, equal, grouped, logit_gradient, matrix, one, sink_gradient
from sightline import BlockMass, SpecError, Window

HAND = torch.tensor([[13, 3], [7, 1]]).double() / 8
BY_SIZE = {
    (1, 1): WEIGHTS,
    (3, 4): torch.tensor([[3.0]]),
    (8, 9): torch.tensor([[3.0]]),
    (3, 1): torch.tensor([[7, 6, 7, 4]]) / 8,
    (1, 4): torch.ones(3, 1),
    (2, 2): torch.tensor([[7, 9], [6, 2]]) / 8,
    (1, 3): torch.tensor([[7, 1], [6, 2], [7, 1]]) / 8,
}


def test_the_definition_gives_the_numbers_found_by_hand() -> None:
    equal(by_definition(BlockMass(2, 3)), HAND)


def test_every_backend_gives_the_numbers_found_by_hand(backend: str) -> None:
    equal(one(matrix(backend), BlockMass(2, 3)), HAND)


@pytest.mark.parametrize("size", list(BY_SIZE), ids=str)
def test_blocks_may_be_of_any_size(backend: str, size: tuple[int, int]) -> None:
    equal(one(matrix(backend), BlockMass(*size)), BY_SIZE[size])


def test_a_row_without_keys_gives_nothing(backend: str, restriction: dict[str, Any]) -> None:
    equal(one(matrix(backend, **restriction), BlockMass(2, 3)), [[7 / 8, 1 / 8], [1, 0]])


def test_blocks_that_no_row_sees_are_0(backend: str) -> None:
    # Query i stands at position i + 1 and sees that key alone: the weights are 1 at (0, 1), (1, 2), (2, 3).
    equal(one(matrix(backend, mask=Window(0, 0)), BlockMass(2, 2)), [[1, 1], [0, 1]])


def test_a_sink_takes_its_share_from_every_block(backend: str) -> None:
    equal(one(matrix(backend, sink=SINK), BlockMass(2, 3)), HAND / 2)


def test_query_heads_that_share_keys_each_get_their_own(backend: str) -> None:
    made = grouped(backend).reduce({"it": BlockMass(2, 3)})["it"]
    # Rows reversed: 4 2 1 | 1, 2 2 2 | 2, then 1 2 4 | 1. Keys reversed: 1 4 2 | 1, 2 2 2 | 2, 1 1 2 | 4. Both.
    equal(made[0], torch.tensor([[[13, 3], [7, 1]], [[13, 3], [7, 1]], [[13, 3], [4, 4]], [[10, 6], [7, 1]]]) / 8)
    equal(made[1], torch.tensor([[6, 2], [3, 1]]).expand(4, 2, 2) / 4)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_coarse_inputs_are_reduced_in_float32(dtype: torch.dtype) -> None:
    made = one(matrix("tiled", dtype), BlockMass(2, 3))
    assert made.dtype == torch.float32
    equal(made, HAND)


def test_the_gradient_of_the_logits_is_the_one_found_by_hand(backend: str) -> None:
    # The block of rows 0 and 1 with key 3: P_ij (1 at 3 − P_i3), P_i3 = 1 and 2 eighths.
    equal(
        logit_gradient(backend, BlockMass(2, 3), lambda made: made[0, 1]),
        torch.tensor([[-1, -2, -4, 7], [-4, -4, -4, 12], [0, 0, 0, 0]]).double() / 64,
    )


def test_the_gradient_of_a_sink_is_the_one_found_by_hand(backend: str) -> None:
    equal(sink_gradient(backend, BlockMass(2, 3), Tensor.sum), -3 / 4)


@pytest.mark.parametrize("size", [(0, 3), (2, 0), (-1, 3)])
def test_blocks_must_have_a_size(backend: str, size: tuple[int, int]) -> None:
    with pytest.raises(SpecError, match=rf"BlockMass needs blocks of at least 1 × 1; it got {size[0]} × {size[1]}"):
        one(matrix(backend), BlockMass(*size))
