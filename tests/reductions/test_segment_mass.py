"""SegmentMass: the weight each row gives to each segment.

Key 0 is in segment 0, keys 1 and 2 in segment 1, key 3 in none; segment 2 is empty.

Row 0 weighs 1 2 4 1: 1/8, 6/8, 0. Row 1: 2/8, 4/8, 0. Row 2 weighs 4 2 1 1: 4/8, 3/8, 0.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from reductions.example import SINK, by_definition, equal, grouped, logit_gradient, matrix, one, sink_gradient
from sightline import SegmentMass, ShapeError, SpecError

IDS = torch.tensor([0, 1, 1, -1])
HAND = torch.tensor([[1, 6, 0], [2, 4, 0], [4, 3, 0]]).double() / 8


def test_the_definition_gives_the_numbers_found_by_hand() -> None:
    equal(by_definition(SegmentMass(IDS[None, None], 3)), HAND)


def test_every_backend_gives_the_numbers_found_by_hand(backend: str) -> None:
    equal(one(matrix(backend), SegmentMass(IDS, 3)), HAND)


def test_a_row_without_keys_gives_every_segment_0(backend: str, restriction: dict[str, Any]) -> None:
    equal(one(matrix(backend, **restriction), SegmentMass(IDS, 3)), [[1 / 8, 6 / 8, 0], [0, 0, 0], [0, 1, 0]])


def test_a_sink_is_in_no_segment(backend: str) -> None:
    equal(one(matrix(backend, sink=SINK), SegmentMass(IDS, 3)), HAND / 2)


def test_ids_of_their_own_for_every_batch_entry(backend: str) -> None:
    made = grouped(backend).reduce({"it": SegmentMass(torch.stack([IDS, torch.tensor([2, 2, 2, 0])])[:, None], 3)})[
        "it"
    ]
    # With the keys from last to first: segment 0 holds P[:, 3], segment 1 P[:, 2] and P[:, 1].
    backwards = torch.tensor([[1, 6, 0], [2, 4, 0], [1, 3, 0]]).double() / 8
    equal(made[0], torch.stack([HAND, HAND.flip(0), backwards, backwards.flip(0)]))
    equal(made[1], torch.tensor([1 / 4, 0, 3 / 4]).expand(4, 3, 3))


def test_ids_b_m_serve_every_head_of_their_batch_entry(backend: str) -> None:
    ids = torch.stack([IDS, torch.tensor([2, 2, 2, 0])])
    made = grouped(backend).reduce({"it": SegmentMass(ids, 3)})["it"]
    equal(made[0, 0], HAND)
    equal(made[1], torch.tensor([1 / 4, 0, 3 / 4]).expand(4, 3, 3))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_coarse_inputs_are_reduced_in_float32(dtype: torch.dtype) -> None:
    made = one(matrix("tiled", dtype), SegmentMass(IDS, 3))
    assert made.dtype == torch.float32
    equal(made, HAND)


@pytest.mark.parametrize("kind", [torch.int32, torch.int16, torch.uint8])
def test_ids_may_be_integers_of_any_width(backend: str, kind: torch.dtype) -> None:
    equal(one(matrix(backend), SegmentMass(torch.tensor([0, 1, 1, 2], dtype=kind), 3))[:, :2], HAND[:, :2])


def test_the_gradient_of_the_logits_is_the_one_found_by_hand(backend: str) -> None:
    # P_ij (1 in segment 1 − its mass). Row 0: 1·(−6), 2·(8 − 6), 4·(8 − 6), 1·(−6), in 64ths.
    equal(
        logit_gradient(backend, SegmentMass(IDS, 3), lambda made: made[:, 1].sum()),
        torch.tensor([[-6, 4, 8, -6], [-8, 8, 8, -8], [-12, 10, 5, -3]]).double() / 64,
    )


def test_the_gradient_of_a_sink_is_the_one_found_by_hand(backend: str) -> None:
    # Half of each mass with the sink: ½ · ½ · (7 + 6 + 7) / 8.
    equal(sink_gradient(backend, SegmentMass(IDS, 3), Tensor.sum), -20 / 32)


def test_ids_must_be_integers(backend: str) -> None:
    for wrong in (IDS.float(), IDS > 0):
        with pytest.raises(ShapeError, match=r"SegmentMass.ids must be integers \[b, m\]; it is torch\."):
            one(matrix(backend), SegmentMass(wrong, 3))


@pytest.mark.parametrize("shape", [(3,), (2, 4), (1, 1, 1, 4), ()])
def test_ids_must_fit_the_keys(backend: str, shape: tuple[int, ...]) -> None:
    with pytest.raises(ShapeError, match=r"SegmentMass.ids must be .*it (has|is)"):
        one(matrix(backend), SegmentMass(torch.zeros(shape, dtype=torch.int64), 3))


def test_ids_must_name_segments_that_there_are(backend: str) -> None:
    with pytest.raises(SpecError, match=r"SegmentMass.ids must lie between −1 and 0; they go from -1 to 1"):
        one(matrix(backend), SegmentMass(IDS, 1))
    with pytest.raises(SpecError, match=r"SegmentMass.ids must lie between −1 and 2; they go from -2 to 1"):
        one(matrix(backend), SegmentMass(torch.tensor([-2, 0, 1, 1]), 3))


def test_there_must_be_a_segment(backend: str) -> None:
    with pytest.raises(SpecError, match=r"SegmentMass needs at least one segment; segments is 0"):
        one(matrix(backend), SegmentMass(IDS, 0))
