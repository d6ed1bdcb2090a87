"""The binary format that Marian writes its models in, read.

Little-endian throughout: a version (1) and a count; for each tensor the lengths in bytes of its name and data, its type
and its rank; the names, each ended by NUL; the shapes; padding; the data. Quantised matrices hold int8 values, and one
float32 scale behind them: weight = value / scale. They are stored transposed, but for the embeddings.

Source: Marian (marian-nmt), `io::binary`, and the int8 types of its fork for browsers; checked on models of that fork.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, NoReturn

import torch
from torch import Tensor

from ...errors import ModelError

__all__ = ["MarianFile", "read_file"]

_VERSION = 1
_ALIGNMENT = 256
"""Bytes that the data of a tensor is padded to; the settings, which are text, need not be."""

_INT8, _FLOAT32, _QUANTISED = 0x0101, 0x0404, 0x4101
_SIZES: Mapping[int, int] = {_INT8: 1, _FLOAT32: 4, _QUANTISED: 1}
_SCALE = 4
"""Bytes of the scale behind quantised values."""

_MOST_TENSORS, _LONGEST_NAME, _HIGHEST_RANK = 1 << 16, 1 << 10, 8
"""Beyond these a header is taken for damaged before anything is allocated for it."""

_SETTINGS = "special:model.yml"
_ACTIVATIONS = "_QuantMultA"
"""Names that end so hold the scales of int8 activations, which float32 arithmetic has no use for."""

_EMBEDDINGS = "Wemb"


@dataclass(frozen=True)
class MarianFile:
    """Tensors by Marian's names, in float32, matrices [in, out]; and the settings the model was trained with."""

    tensors: Mapping[str, Tensor]
    settings: Mapping[str, str]


class _Header(NamedTuple):
    name_length: int
    type: int
    rank: int
    bytes: int


class _Reader:
    """The bytes of a file and how far they are read. Reading past the end is a ModelError."""

    def __init__(self, path: Path, data: bytearray) -> None:
        self.path, self.data, self.at = path, data, 0

    def take(self, length: int) -> memoryview:
        end = self.at + length
        if end > len(self.data):
            self.refuse(f"it ends at byte {len(self.data):,}, where more was announced")
        piece = memoryview(self.data)[self.at : end]
        self.at = end
        return piece

    def numbers(self, code: str, count: int) -> tuple[int, ...]:
        layout = f"<{count}{code}"
        return struct.unpack(layout, self.take(struct.calcsize(layout)))

    def refuse(self, why: str) -> NoReturn:
        raise ModelError(
            f"{self.path} was to be read as a Marian model; {why}. Give a binary model file (model….bin) as Marian "
            "writes it, and fetch it again if it is damaged."
        )


def read_file(path: Path) -> MarianFile:
    """Read a Marian model file. Raises ModelError for a file that is missing, damaged, or of another format."""
    try:
        data = bytearray(path.read_bytes())
    except OSError as error:
        raise ModelError(
            f"{path} was to be read as a Marian model; it cannot be read: {error.strerror or error}. Check the path."
        ) from error
    file = _Reader(path, data)
    tensors: dict[str, Tensor] = {}
    settings = ""
    for name, shape, header in _contents(file):
        if name == _SETTINGS:
            settings = bytes(file.take(header.bytes)).rstrip(b"\0").decode("utf-8", "replace")
        elif name.endswith(_ACTIVATIONS):
            file.take(header.bytes)
        elif name in tensors:
            file.refuse(f"it holds {name!r} twice")
        else:
            tensors[name] = _tensor(file, name, shape, header)
    if file.at != len(data):
        file.refuse(f"it goes on after its last tensor, by {len(data) - file.at:,} bytes")
    return MarianFile(tensors, _parse(settings))


def _contents(file: _Reader) -> list[tuple[str, tuple[int, ...], _Header]]:
    """Name, shape and header of every tensor; the reader then stands at the first one's data."""
    version, count = file.numbers("Q", 2)
    if version != _VERSION:
        file.refuse(f"its version is {version}, and this reads version {_VERSION}")
    if count > _MOST_TENSORS:
        file.refuse(f"it announces {count:,} tensors")
    headers = [_Header(*file.numbers("Q", 4)) for _ in range(count)]
    for header in headers:
        if header.type not in _SIZES:
            file.refuse(f"it holds numbers of type {header.type:#06x}; float32 and int8 are understood")
        if not 1 < header.name_length <= _LONGEST_NAME or header.rank > _HIGHEST_RANK:
            file.refuse("its header is damaged")
    names = [_name(file, header.name_length) for header in headers]
    shapes = [file.numbers("i", header.rank) for header in headers]
    for name, shape, header in zip(names, shapes, headers, strict=True):
        if any(size < 1 for size in shape) or header.bytes not in _sizes(header.type, math.prod(shape)):
            file.refuse(f"{name!r} has {header.bytes:,} bytes for the shape {list(shape)}")
    (padding,) = file.numbers("Q", 1)
    file.take(padding)
    return list(zip(names, shapes, headers, strict=True))


def _name(file: _Reader, length: int) -> str:
    name = bytes(file.take(length))
    if name[-1] or not name[:-1].isascii() or not name[:-1].decode("ascii").isprintable():
        file.refuse("the name of a tensor in it is damaged")
    return name[:-1].decode("ascii")


def _sizes(kind: int, count: int) -> tuple[int, int]:
    """The bytes that so many numbers may take: exactly, or padded."""
    exact = count * _SIZES[kind] + (_SCALE if kind == _QUANTISED else 0)
    return exact, -(-exact // _ALIGNMENT) * _ALIGNMENT


def _tensor(file: _Reader, name: str, shape: tuple[int, ...], header: _Header) -> Tensor:
    """A tensor's data in float32."""
    data, count = file.take(header.bytes), math.prod(shape)
    if header.type == _FLOAT32:
        return torch.frombuffer(data, dtype=torch.float32, count=count).reshape(shape).clone()
    if header.type != _QUANTISED or len(shape) != 2:
        file.refuse(f"{name!r} should hold weights; it is of type {header.type:#06x} and rank {len(shape)}")
    (scale,) = struct.unpack_from("<f", data, count)
    if not math.isfinite(scale) or scale <= 0:
        file.refuse(f"{name!r} has the scale {scale}")
    values = torch.frombuffer(data, dtype=torch.int8, count=count).to(torch.float32) / scale
    rows, columns = shape
    return values.reshape(rows, columns) if name == _EMBEDDINGS else values.reshape(columns, rows).T.contiguous()


def _parse(text: str) -> dict[str, str]:
    """The settings. Marian writes them as YAML without nesting; of a list on lines of its own "" is left."""
    found: dict[str, str] = {}
    for line in text.splitlines():
        key, colon, value = line.partition(":")
        if colon and key == key.strip() and not key.startswith(("-", "#")):
            found[key] = value.strip().strip("\"'")
    return found
