"""RowMoment: P f, here of f = (key position, 1 at the ends).

Row 0: (0·1 + 1·2 + 2·4 + 3·1) / 8 = 13/8 and (1 + 1) / 8. Row 1: 12/8 and 4/8. Row 2: (2 + 2 + 3) / 8 = 7/8 and 5/8.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch

from reductions.example import SINK, by_definition, equal, grouped, logit_gradient, matrix, one, sink_gradient
from sightline import RowMoment, ShapeError

F = torch.tensor([[0, 1], [1, 0], [2, 0], [3, 1]]).double()
HAND = torch.tensor([[13, 2], [12, 4], [7, 5]]).double() / 8


def test_the_definition_gives_the_numbers_found_by_hand() -> None:
    equal(by_definition(RowMoment(F[None, None])), HAND)


def test_every_backend_gives_the_numbers_found_by_hand(backend: str) -> None:
    equal(one(matrix(backend), RowMoment(F)), HAND)
    equal((matrix(backend) @ F)[0, 0], HAND)


def test_a_row_without_keys_gives_0(backend: str, restriction: dict[str, Any]) -> None:
    # Row 2 sees position 1 with 2/3 and position 2 with 1/3.
    equal(one(matrix(backend, **restriction), RowMoment(F)), [[13 / 8, 2 / 8], [0, 0], [4 / 3, 0]])


def test_a_sink_adds_nothing_to_the_sum(backend: str) -> None:
    equal(one(matrix(backend, sink=SINK), RowMoment(F)), HAND / 2)


@pytest.mark.parametrize("heads", [1, 2, 4])
def test_values_may_be_given_once_per_key_head_or_query_head(backend: str, heads: int) -> None:
    scales = torch.arange(1, heads + 1).double()  # head a of f holds (a + 1) f
    made = grouped(backend) @ (scales[:, None, None] * F)[None]
    # With the keys from last to first the mean position is 3 less what it was; the ends stay the ends.
    backwards = torch.stack([3 - HAND[:, 0], HAND[:, 1]], 1)
    each = scales.repeat_interleave(4 // heads)[:, None, None]
    equal(made[0], each * torch.stack([HAND, HAND.flip(0), backwards, backwards.flip(0)]))
    equal(made[1], each * torch.tensor([6 / 4, 2 / 4]).expand(4, 3, 2))


def test_values_of_their_own_for_every_batch_entry(backend: str) -> None:
    made = grouped(backend) @ torch.stack([F, 2 * F])[:, None]
    equal(made[0, 0], HAND)
    equal(made[1], torch.tensor([3.0, 1.0]).expand(4, 3, 2))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_the_result_is_in_the_dtype_of_the_values(dtype: torch.dtype) -> None:
    made = one(matrix("tiled", dtype), RowMoment(F.to(dtype)))
    assert made.dtype == dtype
    assert made.tolist() == HAND.tolist()  # eighths: exact in every dtype, since the sum is taken in float32
    assert one(matrix("tiled", dtype), RowMoment(F.float())).dtype == torch.float32


def test_the_gradient_of_the_logits_is_the_one_found_by_hand(backend: str) -> None:
    # P_ij (j − mean position of row i). Row 0: 1·(0 − 13/8), 2·(1 − 13/8), 4·(2 − 13/8), 1·(3 − 13/8), all / 8.
    equal(
        logit_gradient(backend, RowMoment(F), lambda made: made[:, 0].sum()),
        torch.tensor([[-13, -10, 12, 11], [-24, -8, 8, 24], [-28, 2, 9, 17]]).double() / 64,
    )


def test_the_gradient_of_the_values_is_what_each_key_receives(backend: str) -> None:
    f = F.clone().requires_grad_()
    one(matrix(backend), RowMoment(f))[:, 0].sum().backward()
    equal(f.grad, torch.tensor([[7, 0], [6, 0], [7, 0], [4, 0]]).double() / 8)


@pytest.mark.parametrize("heads", [1, 2, 4])
def test_the_gradient_of_values_that_heads_share_is_the_sum_over_them(backend: str, heads: int) -> None:
    f = F.expand(heads, 4, 2)[None].clone().requires_grad_()
    (grouped(backend) @ f)[..., 0].sum().backward()
    # In eighths, entry 0: 7 6 7 4 for each of the first two query heads, 4 7 6 7 for the last two; entry 1: 6 6 6 6.
    ahead, behind, even = torch.tensor([7, 6, 7, 4]), torch.tensor([4, 7, 6, 7]), torch.tensor([6, 6, 6, 6])
    per_head = [ahead + even, ahead + even, behind + even, behind + even]
    shared = torch.stack(per_head).reshape(heads, -1, 4).sum(1) / 8
    equal(f.grad[0], torch.stack([shared, torch.zeros(heads, 4)], -1))


def test_the_gradient_of_a_sink_is_the_one_found_by_hand(backend: str) -> None:
    # Each mean, 13/16, 12/16, 7/16 with the sink, falls by half of itself: −32/32.
    equal(sink_gradient(backend, RowMoment(F), lambda made: made[:, 0].sum()), -1)


def test_rows_without_keys_give_the_values_no_gradient(backend: str, restriction: dict[str, Any]) -> None:
    f = F.clone().requires_grad_()
    one(matrix(backend, **restriction), RowMoment(f))[:, 0].sum().backward()
    equal(f.grad[:, 0], [1 / 8, 2 / 8 + 2 / 3, 4 / 8 + 1 / 3, 1 / 8])


def test_values_must_be_floating_point(backend: str) -> None:
    with pytest.raises(ShapeError, match=r"RowMoment.f must be floating point; it is torch.int64.*\.float\(\)"):
        one(matrix(backend), RowMoment(F.long()))


@pytest.mark.parametrize("shape", [(3, 2), (4,), (2, 4, 2), (2, 1, 4, 2), (1, 1, 1, 4, 2)])
def test_values_must_fit_the_keys(backend: str, shape: tuple[int, ...]) -> None:
    with pytest.raises(
        ShapeError, match=r"RowMoment.f must be \[b\|1, h\|hk\|1, m, c\] with b=1, h=1 .*m=4; it has shape"
    ):
        one(matrix(backend), RowMoment(torch.zeros(shape)))
