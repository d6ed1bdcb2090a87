"""Many numbers as a short string: deflated bytes in base64, which a browser can inflate by itself.

Three encodings, in planes: the lowest bytes of all numbers, then the next:

    thousandths   16 bits: 1000·e + d stands for d · 10^(−e−2), d from 100 to 999, and 0 for 0: from 10^−64 to 9.99,
                  rounded once, to three significant digits
    floats        24 bits: the upper three bytes of a float32, rounded: 16 significant bits, for numbers to be added up
    integers      24 bits, each one more than it is
"""

from __future__ import annotations

import zlib
from base64 import b64encode

import torch
from torch import Tensor

from ..errors import SpecError

__all__ = ["floats", "integers", "thousandths"]

_MOST = 64
"""The largest e: 1000·64 + 999 < 2¹⁶."""


def thousandths(values: Tensor) -> str:
    """Numbers from 0 to 9.99, to three significant digits. Raises SpecError for others."""
    x = values.detach().to("cpu", torch.float64).flatten()
    if x.numel() and not bool(((x >= 0) & (x < 9.995)).all()):
        raise SpecError("numbers from 0 to 9.99 can be packed in thousandths; these have others. Pack them as floats.")
    e = (-x.clamp(min=1e-300).log10().floor()).clamp(0, _MOST)
    digits = (x * 10.0 ** (e + 2)).round()
    over = digits >= 1000  # 0.9996 is 1.00: rounding made it one digit longer
    e, digits = torch.where(over, e - 1, e), torch.where(over, digits / 10, digits)
    digits[digits < 100] = 0
    codes = torch.where(digits > 0, 1000 * e + digits, 0).to(torch.int64)
    return _packed(codes, 2)


def floats(values: Tensor) -> str:
    """Numbers to 16 significant bits."""
    bits = values.detach().to("cpu", torch.float32).flatten().contiguous().view(torch.int32).to(torch.int64)
    return _packed(((bits & 0xFFFFFFFF) + 0x80) >> 8, 3)


def integers(values: Tensor) -> str:
    """Whole numbers from −1 to 2²⁴ − 2."""
    return _packed(values.detach().to("cpu", torch.int64).flatten() + 1, 3)


def _packed(codes: Tensor, size: int) -> str:
    """Whole numbers of `size` bytes: first the lowest byte of each, then the next, which deflates better."""
    planes = torch.stack([codes >> 8 * byte & 0xFF for byte in range(size)])
    return b64encode(zlib.compress(bytes(planes.flatten().tolist()), 6)).decode()
