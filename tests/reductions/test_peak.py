"""Peak: max_j P_ij and its key, the first of equals.

Row 0: 4/8 at key 2. Row 1: 2/8, four alike, so key 0. Row 2: 4/8 at key 0.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch

from reductions.example import SINK, by_definition, equal, grouped, matrix
from sightline import AttentionMatrix, DenseBias, Peak, Peaks

VALUE, KEY = torch.tensor([4, 2, 4]).double() / 8, torch.tensor([2, 0, 0])


def check(made: Any, value: Any, key: Any) -> None:
    assert isinstance(made, Peaks)
    assert made.value.shape[:2] == made.key.shape[:2] == (1, 1)
    equal(made.value[0, 0], value)
    equal(made.key[0, 0], key)


def peak(whole: AttentionMatrix) -> Peaks:
    return whole.reduce({"it": Peak()})["it"]


def test_the_definition_gives_the_numbers_found_by_hand() -> None:
    value, key = by_definition(Peak())
    equal(value, VALUE)
    equal(key, KEY)


def test_every_backend_gives_the_numbers_found_by_hand(backend: str) -> None:
    check(peak(matrix(backend)), VALUE, KEY)


def test_a_row_without_keys_has_the_peak_0_at_key_minus_1(backend: str, restriction: dict[str, Any]) -> None:
    check(peak(matrix(backend, **restriction)), [4 / 8, 0, 2 / 3], [2, -1, 1])


def test_of_equal_weights_the_first_key_counts(backend: str) -> None:
    # Row 0 raised at keys 1 and 3 to the height of key 2; row 2 lowered at key 0 to that of keys 2 and 3.
    bias = torch.zeros(3, 4, dtype=torch.float64)
    bias[0, 1], bias[0, 3], bias[2, 0], bias[2, 1] = 1, 2, -2, -1
    bias = bias * torch.tensor(2.0).double().log()
    check(peak(matrix(backend, bias=DenseBias(bias))), [4 / 13, 2 / 8, 1 / 4], [1, 0, 0])


def test_a_sink_lowers_the_value_and_leaves_the_key(backend: str) -> None:
    check(peak(matrix(backend, sink=SINK)), VALUE / 2, KEY)


def test_a_sink_that_takes_everything_leaves_the_key(backend: str) -> None:
    check(peak(matrix(backend, sink=2000.0)), [0, 0, 0], KEY)


def test_query_heads_that_share_keys_each_get_their_own(backend: str) -> None:
    made = peak(grouped(backend))
    equal(made.value[0], torch.stack([VALUE] * 4))
    # With the keys from last to first: row 0 peaks at 3 − 2, row 2 at 3 − 0, and row 1's first is still 0.
    equal(made.key[0], torch.tensor([[2, 0, 0], [0, 0, 2], [1, 0, 3], [3, 0, 1]]))
    equal(made.value[1], torch.full((4, 3), 1 / 4))
    equal(made.key[1], torch.zeros(4, 3))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_coarse_inputs_are_reduced_in_float32(dtype: torch.dtype) -> None:
    made = peak(matrix("tiled", dtype))
    assert made.value.dtype == torch.float32
    check(made, VALUE, KEY)


def test_it_carries_no_gradient(backend: str) -> None:
    bias = torch.zeros(3, 4, dtype=torch.float64, requires_grad=True)
    made = peak(matrix(backend, bias=DenseBias(bias)))
    assert not made.value.requires_grad
    assert not made.key.requires_grad
