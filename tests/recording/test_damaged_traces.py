"""A damaged trace is a TraceError or, where the damage touched nothing, the right trace; never anything else."""

from __future__ import annotations

import json
import random
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from recording.worlds import parts, small_trace
from sightline.errors import TraceError
from sightline.recording import Trace

MUTATIONS = 1000


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    path = tmp_path_factory.mktemp("whole") / "trace.safetensors"
    small_trace().save(path)
    return path.read_bytes()


def everything(trace: Trace) -> list[Any]:
    """All that a trace says: every number, token and name."""
    trace.verify()
    found: list[Any] = [trace.model, dict(trace.reductions), trace.source]
    if trace.tokens is not None:
        found += [trace.tokens.ids.tolist(), trace.tokens.strings, trace.tokens.texts, trace.tokens.offsets]
    for name in trace:
        for call in trace[name]:
            found += [call.module, call.kind, call.shape, call.query_positions, call.key_positions, call.heads]
            found += [part for result in call.values() for part in parts(result)]
            if call.kept is not None:
                found.append(call.matrix().dense())
    return [(x.dtype, x.tolist()) if isinstance(x, torch.Tensor) else x for x in found]


def flip(data: bytearray, r: random.Random) -> None:
    data[r.randrange(len(data))] ^= 1 << r.randrange(8)


def flip_in_the_header(data: bytearray, r: random.Random) -> None:
    data[r.randrange(8 + int.from_bytes(data[:8], "little"))] ^= 1 << r.randrange(8)


def cut(data: bytearray, r: random.Random) -> None:
    del data[r.randrange(len(data)) :]


def drop(data: bytearray, r: random.Random) -> None:
    at = r.randrange(len(data))
    del data[at : at + r.randrange(1, 9)]


def insert(data: bytearray, r: random.Random) -> None:
    at = r.randrange(len(data) + 1)
    data[at:at] = r.randbytes(r.randrange(1, 9))


def overwrite(data: bytearray, r: random.Random) -> None:
    at, size = r.randrange(len(data)), r.randrange(1, 200)
    data[at : at + size] = r.randbytes(len(data[at : at + size]))


def swap(data: bytearray, r: random.Random) -> None:
    size = r.randrange(1, 40)
    a, b = r.randrange(len(data) - size), r.randrange(len(data) - size)
    data[a : a + size], data[b : b + size] = data[b : b + size], data[a : a + size]


DAMAGES: list[Callable[[bytearray, random.Random], None]] = [
    flip, flip_in_the_header, cut, drop, insert, overwrite, swap,
]  # fmt: skip


def test_damaged_files(whole: bytes, tmp_path: Path) -> None:
    path = tmp_path / "trace.safetensors"
    path.write_bytes(whole)
    right = everything(Trace.load(path))
    refused = 0
    for seed in range(MUTATIONS):
        r, data = random.Random(seed), bytearray(whole)
        DAMAGES[seed % len(DAMAGES)](data, r)
        path.write_bytes(data)
        try:
            assert everything(Trace.load(path)) == right, f"mutation {seed} changed what the trace says"
        except TraceError:
            refused += 1
    print(f"{refused} of {MUTATIONS} were refused, the others said what the whole trace says")
    assert refused > 0.9 * MUTATIONS


def forged(whole: bytes, change: Callable[[Any], None]) -> bytes:
    """The trace with a changed header and a checksum that is right for it."""
    size = int.from_bytes(whole[:8], "little")
    outer = json.loads(whole[8 : 8 + size])
    inner = json.loads(outer["__metadata__"]["sightline"])
    change(inner)
    text = json.dumps(inner)
    outer["__metadata__"] |= {"sightline": text, "sightline.crc32": f"{zlib.crc32(text.encode()):08x}"}
    header = json.dumps(outer).encode()
    return len(header).to_bytes(8, "little") + header + whole[8 + size :]


def places(value: Any) -> list[tuple[Any, Any]]:
    """Every (container, key) of a JSON value."""
    keys = value if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ()
    return [(value, key) for key in keys] + [place for key in keys for place in places(value[key])]


def test_forged_headers(whole: bytes, tmp_path: Path) -> None:
    """Someone's own header with a right checksum: refused with a TraceError, or read; nothing else is ever raised."""
    path = tmp_path / "trace.safetensors"
    refused = 0
    for seed in range(MUTATIONS):
        r = random.Random(seed)

        def change(header: Any, r: random.Random = r) -> None:
            container, key = r.choice(places(header))
            values = [None, -1, 0, 1, 3, 10**30, 1.5, "", "scores/0", "tokens/ids", [], {}, [[1]], {"a": "b"}, True]
            kind = r.randrange(4)
            if kind == 0:
                del container[key]
            elif kind == 1 and isinstance(container, dict):
                container[r.choice(["new", "version", "q"])] = r.choice(values)
            elif kind == 2:
                other, at = r.choice(places(header))
                container[key] = json.loads(json.dumps(other[at]))
            else:
                container[key] = r.choice(values)

        path.write_bytes(forged(whole, change))
        try:
            everything(Trace.load(path))
        except TraceError:
            refused += 1
    print(f"{refused} of {MUTATIONS} forged headers were refused")
    assert refused > 0.5 * MUTATIONS


def test_a_forged_header_can_be_right(whole: bytes, tmp_path: Path) -> None:
    """Negative control of the test above: a change that fits is read."""
    path = tmp_path / "trace.safetensors"
    path.write_bytes(forged(whole, lambda header: header.update(model="another")))
    assert Trace.load(path).model == "another"


def test_a_newer_version_is_named(whole: bytes, tmp_path: Path) -> None:
    path = tmp_path / "trace.safetensors"
    path.write_bytes(forged(whole, lambda header: header.update(version=2, new=1)))
    with pytest.raises(TraceError, match="of version 2; this sightline reads version 1"):
        Trace.load(path)


def test_a_damaged_tensor_is_noticed_when_it_is_read(whole: bytes, tmp_path: Path) -> None:
    """And not before: what is not asked for is not read."""
    path = tmp_path / "trace.safetensors"
    data = bytearray(whole)
    data[-1] ^= 1
    path.write_bytes(data)
    trace = Trace.load(path)
    with pytest.raises(TraceError, match="its checksum differs"):
        trace.verify()
