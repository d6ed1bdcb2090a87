"""A safetensors file: written tensor by tensor, so that none of it need be in memory; mapped when it is read.

Source: the format's specification, https://github.com/huggingface/safetensors#format.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from ..errors import SpecError, TraceError
from .stored import InMemory, Stored, checksum

__all__ = ["DTYPES", "File", "InFile", "write"]

DTYPES: Mapping[torch.dtype, str] = {
    torch.bool: "BOOL",
    torch.uint8: "U8",
    torch.int8: "I8",
    torch.int16: "I16",
    torch.int32: "I32",
    torch.int64: "I64",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.float32: "F32",
    torch.float64: "F64",
}
"""What a file can hold, with the format's names."""

_LONGEST_HEADER = 100_000_000
"""Bytes: readers of the format refuse more."""


def write(file: BinaryIO, metadata: Mapping[str, str], tensors: Mapping[str, Stored]) -> None:
    """Write a whole file. Raises SpecError where its header would be longer than readers of the format take."""
    # The widest numbers first, as the format's own writers do: each tensor then begins at a multiple of its number.
    order = sorted(tensors, key=lambda name: (-tensors[name].dtype.itemsize, name))
    entries: dict[str, Any] = {"__metadata__": dict(metadata)}
    end = 0
    for name in order:
        tensor = tensors[name]
        start, end = end, end + torch.Size(tensor.shape).numel() * tensor.dtype.itemsize
        entries[name] = {"dtype": DTYPES[tensor.dtype], "shape": list(tensor.shape), "data_offsets": [start, end]}
    header = json.dumps(entries, separators=(",", ":")).encode()
    header += b" " * (-len(header) % 8)
    if len(header) > _LONGEST_HEADER:
        raise SpecError(
            f"the trace would have {len(order):,} tensors and a header of {len(header) / 1e6:.0f} MB; readers of the "
            f"format take {_LONGEST_HEADER / 1e6:.0f} MB. Record fewer layers or steps."
        )
    file.write(len(header).to_bytes(8, "little") + header)
    for name in order:
        for chunk in tensors[name].chunks():
            file.write(chunk)


class File:
    """An open safetensors file. Raises TraceError where it is none."""

    def __init__(self, path: Path) -> None:
        try:
            self._open: Any = safe_open(str(path), framework="pt")
            self.names = frozenset(self._open.keys())
            self.metadata: Mapping[str, str] = self._open.metadata() or {}
        except FileNotFoundError as error:
            raise TraceError(f"the trace {str(path)!r} was asked for; there is no such file.") from error
        except (SafetensorError, OSError, ValueError, RuntimeError) as error:
            raise TraceError(
                f"the trace {str(path)!r} was asked for; it is no whole safetensors file ({error}). Record it again."
            ) from error

    def describe(self, name: str) -> tuple[str, tuple[int, ...]]:
        """The dtype of a tensor, as the format spells it, and its shape."""
        piece = self._open.get_slice(name)
        return piece.get_dtype(), tuple(piece.get_shape())

    def tensor(self, name: str) -> Tensor:
        """A tensor that lies in the mapped file. Raises TraceError."""
        try:
            return self._open.get_tensor(name)
        except (SafetensorError, OSError, ValueError, RuntimeError) as error:
            raise TraceError(f"the trace's tensor {name!r} cannot be read: {error}. Record it again.") from error


class InFile:
    """A tensor of an open file. Its checksum is compared when it is first read."""

    def __init__(self, file: File, name: str, dtype: torch.dtype, shape: tuple[int, ...], crc32: int) -> None:
        self.dtype, self.shape = dtype, shape
        self._file, self._name, self._crc32 = file, name, crc32
        self._checked = False

    def read(self, start: int = 0, stop: int | None = None) -> Tensor:
        """See `Stored`. Raises TraceError where the bytes are not those that were written."""
        tensor = self._file.tensor(self._name)
        if not self._checked:
            if checksum(InMemory(tensor)) != self._crc32:
                raise TraceError(
                    f"the trace's tensor {self._name!r} is not what was written (its checksum differs). "
                    "Copy the file again, or record it again."
                )
            self._checked = True
        return tensor[start:stop] if tensor.ndim else tensor

    def chunks(self) -> Iterator[memoryview]:
        """See `Stored`."""
        yield from InMemory(self.read()).chunks()
