"""TopK: keys by (weight descending, key ascending).

Row 0 weighs 1 2 4 1: keys 2, 1, then 0 before 3. Row 1: all alike, 0 1 2 3. Row 2 weighs 4 2 1 1: keys 0 1 2 3.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch

from reductions.example import SINK, by_definition, equal, grouped, matrix, one
from sightline import AttentionMatrix, DenseBias, SpecError, TopK, Unsupported

HAND = torch.tensor([[2, 1, 0], [0, 1, 2], [0, 1, 2]])


def test_the_definition_gives_the_keys_found_by_hand() -> None:
    equal(by_definition(TopK(3)), HAND)


def test_every_backend_gives_the_keys_found_by_hand(backend: str) -> None:
    equal(one(matrix(backend), TopK(3)), HAND)
    equal(one(matrix(backend), TopK(1)), HAND[:, :1])


def test_asking_for_more_keys_than_there_are_fills_up_with_minus_1(backend: str) -> None:
    equal(one(matrix(backend), TopK(6)), [[2, 1, 0, 3, -1, -1], [0, 1, 2, 3, -1, -1], [0, 1, 2, 3, -1, -1]])


def test_keys_that_a_row_does_not_see_are_minus_1(backend: str, restriction: dict[str, Any]) -> None:
    equal(one(matrix(backend, **restriction), TopK(3)), [[2, 1, 0], [-1, -1, -1], [1, 2, -1]])


def test_of_equal_weights_the_first_keys_come_first_in_a_long_row(backend: str) -> None:
    q, k = torch.zeros(1, 1, 1, 2), torch.zeros(1, 1, 3000, 2)
    bias = torch.zeros(1, 3000)
    bias[0, [7, 1500, 2999]] = 1
    made = one(AttentionMatrix(q, k, bias=DenseBias(bias), backend=backend), TopK(6))
    equal(made, [[7, 1500, 2999, 0, 1, 2]])


def test_a_sink_changes_no_key(backend: str) -> None:
    equal(one(matrix(backend, sink=SINK), TopK(3)), HAND)


def test_query_heads_that_share_keys_each_get_their_own(backend: str) -> None:
    made = grouped(backend).reduce({"it": TopK(2)})["it"]
    # With the keys from last to first the exponents are 0 2 1 0, 1 1 1 1, 0 0 1 2.
    first, second = [[2, 1], [0, 1], [0, 1]], [[1, 2], [0, 1], [3, 2]]
    equal(made[0], torch.tensor([first, first[::-1], second, second[::-1]]))
    equal(made[1], torch.tensor([0, 1]).expand(4, 3, 2))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_coarse_inputs_give_the_same_keys(dtype: torch.dtype) -> None:
    equal(one(matrix("tiled", dtype), TopK(3)), HAND)


def test_entries_reads_the_weights_of_the_keys_it_finds(backend: str) -> None:
    whole = matrix(backend)
    equal(whole.entries(whole.reduce({"it": TopK(3)})["it"])[0, 0], torch.tensor([[4, 2, 1], [2, 2, 2], [4, 2, 1]]) / 8)


def test_it_carries_no_gradient(backend: str) -> None:
    bias = torch.zeros(3, 4, dtype=torch.float64, requires_grad=True)
    assert not one(matrix(backend, bias=DenseBias(bias)), TopK(2)).requires_grad


def test_64_keys_are_the_most_and_the_error_names_what_to_use(backend: str) -> None:
    assert one(matrix(backend), TopK(64)).shape == (3, 64)
    with pytest.raises(Unsupported, match=r"TopK\(k=65\) asks for more than 64 keys.*Rows"):
        one(matrix(backend), TopK(65))


@pytest.mark.parametrize("k", [0, -1])
def test_it_must_ask_for_at_least_one_key(backend: str, k: int) -> None:
    with pytest.raises(SpecError, match=rf"TopK\(k={k}\) must ask for at least one key"):
        one(matrix(backend), TopK(k))
