"""Tensors on disk while a model runs: written as they come, read back when asked for."""

from __future__ import annotations

import tempfile
import threading
import weakref
from collections.abc import Iterator
from dataclasses import dataclass, field

import torch
from torch import Tensor

from ._bytes import plain, raw
from .stored import CHUNK

__all__ = ["Spill", "Spilled"]


class Spill:
    """An unnamed temporary file that tensors are appended to. It goes when nothing refers to it, or the process ends.

    `folder` is where it lies, by default the system's folder for temporary files. It may be written and read by several
    threads.
    """

    def __init__(self, folder: str | None = None) -> None:
        self._file = tempfile.TemporaryFile(prefix="sightline-", dir=folder)  # noqa: SIM115 lives as long as its tensors
        weakref.finalize(self, self._file.close)
        self._lock = threading.Lock()

    def append(self, tensor: Tensor) -> tuple[int, int]:
        """Write the tensor's values; the place [start, stop) where they lie. Raises OSError where the disk is full."""
        values = plain(tensor)
        with self._lock:
            start = self._file.seek(0, 2)
            self._file.write(raw(values))
            return start, self._file.tell()

    def read_into(self, start: int, view: memoryview) -> None:
        """Fill `view` with the bytes from `start` on."""
        with self._lock:
            self._file.flush()
            self._file.seek(start)
            done = 0
            while done < len(view):
                got = self._file.readinto(view[done : done + CHUNK])  # pyright: ignore  a file's, by construction
                if not got:
                    raise OSError("the temporary file of a recording ended early: was it truncated?")
                done += got


@dataclass
class Spilled:
    """A tensor on disk that may grow along its first dimension."""

    spill: Spill
    dtype: torch.dtype
    shape: tuple[int, ...]
    _places: list[tuple[int, int]] = field(default_factory=list)

    @staticmethod
    def of(spill: Spill, tensor: Tensor) -> Spilled:
        """The tensor, written to the end of the file."""
        spilled = Spilled(spill, tensor.dtype, (0, *tensor.shape[1:]))
        spilled.extend(tensor)
        return spilled

    def __copy__(self) -> Spilled:
        """The tensor as it is now: what is appended later is not part of the copy."""
        return Spilled(self.spill, self.dtype, self.shape, list(self._places))

    def extend(self, tensor: Tensor) -> None:
        """Append along the first dimension."""
        self._places.append(self.spill.append(tensor))
        self.shape = (self.shape[0] + tensor.shape[0], *self.shape[1:])

    def read(self, start: int = 0, stop: int | None = None) -> Tensor:
        """Entries start:stop of the first dimension, by default all, in memory."""
        stop = self.shape[0] if stop is None else stop
        tensor = torch.empty((stop - start, *self.shape[1:]), dtype=self.dtype)
        wanted, view, done = self._entry_bytes(), raw(tensor), 0
        for place, skip, size in self._pieces(start * wanted, stop * wanted):
            self.spill.read_into(place + skip, view[done : done + size])
            done += size
        return tensor

    def chunks(self) -> Iterator[memoryview]:
        """All bytes, a few megabytes at a time. Each chunk is valid until the next."""
        buffer = memoryview(bytearray(CHUNK))
        for start, stop in self._places:
            for at in range(start, stop, CHUNK):
                chunk = buffer[: min(CHUNK, stop - at)]
                self.spill.read_into(at, chunk)
                yield chunk

    def _entry_bytes(self) -> int:
        """Bytes of one entry of the first dimension."""
        return torch.empty((1, *self.shape[1:]), dtype=self.dtype, device="meta").nbytes

    def _pieces(self, start: int, stop: int) -> Iterator[tuple[int, int, int]]:
        """Where bytes start:stop of the tensor lie: (place in the file, offset there, size), in order."""
        before = 0
        for place, end in self._places:
            size = end - place
            first, last = max(start, before), min(stop, before + size)
            if first < last:
                yield place, first - before, last - first
            before += size
