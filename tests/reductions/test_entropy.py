"""Entropy: H_i = −Σ_j P_ij log P_ij.

In units of log 2, −log P is 3 2 1 3 for row 0, so H = (1·3 + 2·2 + 4·1 + 1·3) / 8 = 14/8. Row 1: 2. Row 2: 14/8 again.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from reductions.example import (
    LOG2,
    RESTRICTIONS,
    SINK,
    by_definition,
    equal,
    grouped,
    logit_gradient,
    matrix,
    one,
    sink_gradient,
)
from sightline import AttentionMatrix, Entropy, SpecError
from sightline.reductions._law import Tile

HAND = torch.tensor([14 / 8, 2, 14 / 8], dtype=torch.float64) * LOG2


def test_the_definition_gives_the_numbers_found_by_hand() -> None:
    equal(by_definition(Entropy()), HAND)


def test_every_backend_gives_the_numbers_found_by_hand(backend: str) -> None:
    equal(one(matrix(backend), Entropy()), HAND)


def test_a_row_without_keys_has_no_entropy_and_a_restricted_row_that_of_the_keys_it_sees(
    backend: str, restriction: dict[str, Any]
) -> None:
    # Row 2: 2/3 log 3/2 + 1/3 log 3 = log 3 − 2/3 log 2.
    equal(
        one(matrix(backend, **restriction), Entropy()),
        [14 / 8 * LOG2, 0, torch.tensor(3.0).double().log() - 2 / 3 * LOG2],
    )


def test_equal_scores_have_the_entropy_of_the_number_of_keys_and_one_key_has_none(backend: str) -> None:
    q = torch.zeros(1, 1, 2, 3, dtype=torch.float64)
    equal(one(AttentionMatrix(q, torch.ones(1, 1, 4, 3).double(), backend=backend), Entropy()), [2 * LOG2, 2 * LOG2])
    equal(one(AttentionMatrix(q, torch.ones(1, 1, 1, 3).double(), backend=backend), Entropy()), [0, 0])


def test_a_sink_leaves_the_sum_over_the_keys_alone(backend: str) -> None:
    # Every weight halves: −Σ P/2 log(P/2) = H/2 + (log 2)/2. The sink's own −½ log ½ is not part of it.
    equal(one(matrix(backend, sink=SINK), Entropy()), HAND / 2 + LOG2 / 2)


def test_query_heads_that_share_keys_each_get_their_own(backend: str) -> None:
    made = grouped(backend).reduce({"it": Entropy()})["it"]
    equal(
        made[0], torch.stack([HAND] * 4)
    )  # the rows' order and the keys' order change nothing: rows 0 and 2 are alike
    equal(made[1], torch.full((4, 3), 2 * LOG2, dtype=torch.float64))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_coarse_inputs_are_reduced_in_float32(dtype: torch.dtype) -> None:
    made = one(matrix("tiled", dtype), Entropy())
    assert made.dtype == torch.float32
    equal(made, HAND)


def test_it_keeps_small_entropies_that_a_difference_of_large_numbers_would_lose() -> None:
    # Logits of 1000 and 991: H ≈ 1.23e-3·… while log-sum-exp − E[s] would have an error of 1000 · 2⁻²⁴ = 6e-5.
    q, k = torch.tensor([[[[1000.0]]]]), torch.tensor([[[[1.0], [0.991]]]])
    made = AttentionMatrix(q, k, scale=1.0, backend="tiled").reduce({"it": Entropy()})["it"].item()
    gap = (torch.tensor(1000.0) - torch.tensor(1000.0) * torch.tensor(0.991)).double()  # as float32 has it
    p = 1 / (1 + (-gap).exp())
    assert made == pytest.approx((-(p * p.log() + (1 - p) * (1 - p).log())).item(), rel=1e-4)


def test_the_gradient_of_the_logits_is_the_one_found_by_hand(backend: str) -> None:
    # −P (log P + H). Row 0, in log 2: ⅛·(3 − 14/8) = 10/64, ¼·(2 − 14/8) = 4/64, ½·(1 − 14/8) = −24/64. Row 1: 0.
    equal(
        logit_gradient(backend, Entropy(), Tensor.sum),
        torch.tensor([[10, 4, -24, 10], [0, 0, 0, 0], [-24, 4, 10, 10]]).double() / 64 * LOG2,
    )


def test_the_gradient_of_a_sink_is_the_one_found_by_hand(backend: str) -> None:
    # Each p falls by p/2: ∂H/∂sink = ½ Σ p (log p + 1) = ½ (½ − H). H: 11/8, 12/8, 11/8 log 2 with the sink.
    equal(sink_gradient(backend, Entropy(), Tensor.sum), (3 / 2 - 34 / 8 * LOG2) / 2)


@pytest.mark.parametrize("how", ["intervals", "a dense mask"])
def test_rows_without_keys_have_no_gradient(backend: str, how: str) -> None:
    grad = logit_gradient(backend, Entropy(), Tensor.sum, **RESTRICTIONS[how])
    assert grad[1].tolist() == [0, 0, 0, 0]
    equal(grad[0], torch.tensor([10, 4, -24, 10]).double() / 64 * LOG2)


def test_it_refuses_weights_without_a_reference() -> None:
    tile = Tile(0, 0, 4, torch.zeros(1, 1, 3, 4), torch.full((1, 1, 3, 4), 0.25))
    with pytest.raises(SpecError, match="against a reference"):
        Entropy().lift(tile)
