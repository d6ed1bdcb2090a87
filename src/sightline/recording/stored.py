"""A tensor that lies somewhere: in memory, in a temporary file, in a trace."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from typing import Protocol

import torch
from torch import Tensor

from ._bytes import plain, raw

__all__ = ["CHUNK", "InMemory", "Stored", "checksum"]

CHUNK = 1 << 22
"""Bytes looked at at once."""


class Stored(Protocol):
    """A tensor of which a part can be had without the rest."""

    @property
    def dtype(self) -> torch.dtype: ...
    @property
    def shape(self) -> tuple[int, ...]: ...
    def read(self, start: int = 0, stop: int | None = None) -> Tensor:
        """Entries start:stop of the first dimension, by default all."""
        ...

    def chunks(self) -> Iterator[memoryview]:
        """Its bytes, in order; each chunk is valid until the next."""
        ...


class InMemory:
    """A tensor as it is."""

    def __init__(self, tensor: Tensor) -> None:
        self._tensor = plain(tensor)
        self.dtype, self.shape = tensor.dtype, tuple(tensor.shape)

    def read(self, start: int = 0, stop: int | None = None) -> Tensor:
        """See `Stored`."""
        return self._tensor[start:stop] if self._tensor.ndim else self._tensor

    def chunks(self) -> Iterator[memoryview]:
        """See `Stored`."""
        view = raw(self._tensor)
        for at in range(0, len(view), CHUNK):
            yield view[at : at + CHUNK]


def checksum(tensor: Stored) -> int:
    """CRC-32 of its bytes."""
    crc = 0
    for chunk in tensor.chunks():
        crc = zlib.crc32(chunk, crc)
    return crc
