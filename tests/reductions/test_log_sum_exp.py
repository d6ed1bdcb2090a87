"""LogSumExp: log Σ_j e^s_ij. Every row of the example has mass 1 + 2 + 4 + 1 = 8 = 2³."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from reductions.example import (
    LOG2,
    MASKED,
    RESTRICTIONS,
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
from sightline import AttentionMatrix, LogSumExp

HAND = torch.full((3,), 3 * LOG2, dtype=torch.float64)


def test_the_definition_gives_the_numbers_found_by_hand() -> None:
    equal(by_definition(LogSumExp()), HAND)


def test_every_backend_gives_the_numbers_found_by_hand(backend: str) -> None:
    equal(one(matrix(backend), LogSumExp()), HAND)
    equal(matrix(backend).lse()[0, 0], HAND)


def test_a_row_without_keys_gives_minus_infinity(backend: str, restriction: dict[str, Any]) -> None:
    equal(one(matrix(backend, **restriction), LogSumExp()), [3 * LOG2, -math.inf, math.log(3)])


def test_a_row_without_keys_gives_minus_infinity_even_with_a_sink(backend: str, restriction: dict[str, Any]) -> None:
    # Row 0: log(8 + 8). Row 2: log(2 + 1 + 8).
    equal(one(matrix(backend, sink=SINK, **restriction), LogSumExp()), [4 * LOG2, -math.inf, math.log(11)])


def test_the_sink_is_part_of_the_normaliser(backend: str) -> None:
    equal(one(matrix(backend, sink=SINK), LogSumExp()), [4 * LOG2] * 3)


def test_a_sink_far_above_every_logit_is_the_normaliser(backend: str) -> None:
    equal(one(matrix(backend, sink=2000.0), LogSumExp()), [2000.0] * 3)


def test_huge_logits_neither_overflow_nor_vanish(backend: str) -> None:
    q, k = torch.tensor([[[[1.0], [-1.0]]]]), torch.full((1, 1, 4, 1), 1e4)
    equal(one(AttentionMatrix(q, k, scale=1.0, backend=backend), LogSumExp()), [1e4 + 2 * LOG2, -1e4 + 2 * LOG2])


def test_query_heads_that_share_keys_each_get_their_own(backend: str) -> None:
    made = grouped(backend).lse()
    equal(made[0], torch.full((4, 3), 3 * LOG2, dtype=torch.float64))
    equal(made[1], torch.full((4, 3), 2 * LOG2, dtype=torch.float64))  # four logits of 0


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_coarse_inputs_are_reduced_in_float32(dtype: torch.dtype) -> None:
    made = one(matrix("tiled", dtype), LogSumExp())
    assert made.dtype == torch.float32
    equal(made, HAND)


def test_the_gradient_of_the_logits_is_the_weights(backend: str) -> None:
    equal(logit_gradient(backend, LogSumExp(), Tensor.sum), WEIGHTS)


def test_the_gradient_of_a_sink_is_its_share_of_every_row(backend: str) -> None:
    equal(sink_gradient(backend, LogSumExp(), Tensor.sum), 3 / 2)


def test_rows_without_keys_have_no_gradient(backend: str) -> None:
    grad = logit_gradient(backend, LogSumExp(), lambda lse: lse[0] + lse[2], **RESTRICTIONS["intervals"])
    equal(grad, MASKED)
