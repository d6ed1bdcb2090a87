"""Entries: P_{i, keys}, −1 reads 0. Row 0 at 2, −1: 4/8, 0. Row 1 at 0, 3: 2/8, 2/8. Row 2 at 3, 1: 1/8, 2/8."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from reductions.example import SINK, by_definition, equal, grouped, logit_gradient, matrix, one, sink_gradient
from sightline import Entries, ShapeError, SpecError

KEYS = torch.tensor([[2, -1], [0, 3], [3, 1]])
HAND = torch.tensor([[4, 0], [2, 2], [1, 2]]).double() / 8


def test_the_definition_gives_the_numbers_found_by_hand() -> None:
    equal(by_definition(Entries(KEYS[None, None])), HAND)


def test_every_backend_gives_the_numbers_found_by_hand(backend: str) -> None:
    equal(one(matrix(backend), Entries(KEYS)), HAND)
    equal(matrix(backend).entries(KEYS[None, None])[0, 0], HAND)


def test_entries_that_a_row_does_not_see_are_0(backend: str, restriction: dict[str, Any]) -> None:
    equal(one(matrix(backend, **restriction), Entries(KEYS)), [[4 / 8, 0], [0, 0], [0, 2 / 3]])


def test_the_same_entry_may_be_read_twice(backend: str) -> None:
    equal(
        one(matrix(backend), Entries(torch.tensor([[2, 2], [1, 1], [0, 0]]))), [[4 / 8] * 2, [2 / 8] * 2, [4 / 8] * 2]
    )


def test_a_sink_halves_what_is_read(backend: str) -> None:
    equal(one(matrix(backend, sink=SINK), Entries(KEYS)), HAND / 2)


@pytest.mark.parametrize("heads", [1, 2, 4])
def test_keys_may_be_given_once_per_key_head_or_query_head(backend: str, heads: int) -> None:
    made = grouped(backend).entries(KEYS.expand(1, heads, 3, 2))
    reversed_keys = torch.tensor([[2, 0], [2, 2], [4, 1]]).double() / 8  # P[0, 1]; P[1, 3], P[1, 0]; P[2, 0], P[2, 2]
    with_rows_reversed = (
        torch.tensor([[1, 0], [2, 2], [1, 2]]).double() / 8
    )  # P[2, 2]; P[1, 0], P[1, 3]; P[0, 3], P[0, 1]
    with_both = torch.tensor([[2, 0], [2, 2], [1, 4]]).double() / 8  # P[2, 1]; P[1, 3], P[1, 0]; P[0, 0], P[0, 2]
    equal(made[0], torch.stack([HAND, with_rows_reversed, reversed_keys, with_both]))
    equal(made[1], (KEYS >= 0).expand(4, 3, 2) / 4)


def test_keys_of_their_own_for_every_batch_entry(backend: str) -> None:
    made = grouped(backend).entries(torch.stack([KEYS, torch.full_like(KEYS, -1)])[:, None])
    equal(made[0, 0], HAND)
    equal(made[1], torch.zeros(4, 3, 2))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_coarse_inputs_are_reduced_in_float32(dtype: torch.dtype) -> None:
    made = one(matrix("tiled", dtype), Entries(KEYS))
    assert made.dtype == torch.float32
    equal(made, HAND)


def test_the_gradient_of_the_logits_is_the_one_found_by_hand(backend: str) -> None:
    # P_ij (1 at the key read − P_i,key): row 0 reads key 2, row 1 key 0, row 2 key 3.
    equal(
        logit_gradient(backend, Entries(KEYS), lambda made: made[:, 0].sum()),
        torch.tensor([[-4, -8, 16, -4], [12, -4, -4, -4], [-4, -2, -1, 7]]).double() / 64,
    )


def test_minus_1_has_no_gradient(backend: str) -> None:
    equal(logit_gradient(backend, Entries(KEYS), lambda made: made[0, 1]), torch.zeros(3, 4))


def test_the_gradient_of_an_entry_read_twice_counts_twice(backend: str) -> None:
    grad = logit_gradient(backend, Entries(torch.tensor([[2, 2], [0, -1], [0, -1]])), lambda made: made[0].sum())
    equal(grad, torch.tensor([[-8, -16, 32, -8], [0] * 4, [0] * 4]).double() / 64)


def test_the_gradient_of_a_sink_is_the_one_found_by_hand(backend: str) -> None:
    # Each entry p falls by ½ p: ½ · ½ · (4 + 2 + 2 + 1 + 2) / 8.
    equal(sink_gradient(backend, Entries(KEYS), Tensor.sum), -11 / 32)


@pytest.mark.parametrize("kind", [torch.int32, torch.int16, torch.uint8])
def test_keys_may_be_integers_of_any_width(backend: str, kind: torch.dtype) -> None:
    equal(one(matrix(backend), Entries(KEYS.clamp(min=0).to(kind)))[:, 0], HAND[:, 0])


def test_keys_must_be_integers(backend: str) -> None:
    with pytest.raises(ShapeError, match=r"Entries.keys must be integers; it is torch.float32"):
        one(matrix(backend), Entries(KEYS.float()))
    with pytest.raises(ShapeError, match=r"Entries.keys must be integers; it is torch.bool"):
        one(matrix(backend), Entries(KEYS > 0))


@pytest.mark.parametrize("wrong", [-2, 4])
def test_keys_must_exist(backend: str, wrong: int) -> None:
    keys = KEYS.clone()
    keys[1, 1] = wrong
    with pytest.raises(SpecError, match=r"Entries.keys must lie between −1 and 3; they go from "):
        one(matrix(backend), Entries(keys))


@pytest.mark.parametrize("shape", [(2, 2), (3,), (3, 3, 2), (2, 1, 3, 2), (1, 1, 1, 3, 2)])
def test_keys_must_fit_the_rows(backend: str, shape: tuple[int, ...]) -> None:
    with pytest.raises(ShapeError, match=r"Entries.keys must be \[b\|1, h\|hk\|1, n, c\] with b=1, h=1 .*n=3"):
        one(matrix(backend), Entries(torch.zeros(shape, dtype=torch.int64)))
