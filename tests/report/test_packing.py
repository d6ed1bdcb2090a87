"""Packed numbers are what they were: to three digits, or to 16 bits."""

from __future__ import annotations

import zlib
from base64 import b64decode

import pytest
import torch

from sightline.errors import SpecError
from sightline.report._packing import floats, integers, thousandths


def planes(text: str, size: int) -> list[int]:
    data = zlib.decompress(b64decode(text))
    count = len(data) // size
    return [sum(data[p * count + i] << 8 * p for p in range(size)) for i in range(count)]


def test_thousandths_are_the_three_digits_that_would_be_printed() -> None:
    torch.manual_seed(0)
    values = torch.cat(
        [
            10 ** (-12 * torch.rand(5000, dtype=torch.float64)),
            torch.tensor([0.0, 1.0, 0.99949, 0.9996, 0.1, 0.001, 1e-40, 9.99, 5.004], dtype=torch.float64),
        ]
    )
    decoded = [(code % 1000) / 10 ** (code // 1000 + 2) for code in planes(thousandths(values), 2)]
    assert [f"{x:.2e}" for x in decoded] == [f"{x:.2e}" for x in values.tolist()]


@pytest.mark.parametrize("bad", [-0.1, 10.0, float("nan")])
def test_thousandths_refuse_what_they_cannot_hold(bad: float) -> None:
    with pytest.raises(SpecError, match="Pack them as floats"):
        thousandths(torch.tensor([0.5, bad]))


def test_floats_have_16_bits() -> None:
    torch.manual_seed(0)
    values = torch.cat([torch.randn(3000), torch.rand(3000) * 1e-6, torch.tensor([0.0, 1.0, -1.0])])
    codes = torch.tensor([code << 8 for code in planes(floats(values), 3)], dtype=torch.int64)
    back = (codes - (codes >= 2**31) * 2**32).to(torch.int32).view(torch.float32)
    assert bool(((back - values).abs() <= values.abs() * 2**-16).all())
    assert back[-3:].tolist() == [0.0, 1.0, -1.0]


def test_integers_come_back() -> None:
    assert [code - 1 for code in planes(integers(torch.tensor([-1, 0, 255, 256, 70_000])), 3)] == [
        -1,
        0,
        255,
        256,
        70_000,
    ]
