"""What a page must know of a trace before it shows any weight."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from ..recording import Kind, Tokens, Trace, overview
from ..recording.record import Record

__all__ = ["THUMB", "heads", "modules", "pieces", "thumbnails", "track"]

THUMB = 64
"""Pixels on a side of a head's thumbnail."""


def modules(trace: Trace) -> list[dict[str, Any]]:
    """Every module: its kind, heads, and of each call [batch, n, m, position of the first query, of the first key]."""
    return [
        {
            "name": name,
            "kind": calls[0].kind,
            "heads": list(calls[0].heads),
            "kept": calls[0].kept is not None,
            "calls": [
                [
                    call.shape[0],
                    call.shape[2],
                    call.shape[3],
                    None if call.query_positions is None else call.query_positions.start,
                    call.key_positions.start,
                ]
                for call in calls
            ],
        }
        for name, calls in trace.items()
    ]


def pieces(tokens: Tokens, batch: int) -> list[str]:
    """The text cut at its tokens: joined again it is the text. Tokens that the text does not hold as they are called.

    A character that several tokens share stands with the first of them, and white space between tokens with the next.
    """
    strings = list(tokens.strings[batch])
    if tokens.texts is None or tokens.offsets is None:
        return strings
    text, seen = tokens.texts[batch], 0
    for i, (start, stop) in enumerate(tokens.offsets[batch].tolist()):
        if 0 <= start <= stop <= len(text):
            strings[i] = text[seen : max(seen, stop)]
            seen = max(seen, stop)
    return strings


def heads(trace: Trace) -> dict[str, Any]:
    """The numbers of `recording.overview` for every head, in order of modules and heads; and the sinks of each kind."""
    kinds: set[Kind] = {call.kind for calls in trace.values() for call in calls}
    return {
        "heads": [
            {
                "entropy": head.entropy,
                "sink": head.sink,
                "sink_key": head.sink_key,
                "local": head.local,
                "retrieval": head.retrieval,
            }
            for head in overview.heads(trace)
        ],
        "sinks": {kind: overview.sinks(trace, kind) for kind in sorted(kinds)},
    }


def track(trace: Trace, record: Record, reduction: str, head: int, batch: int) -> Tensor | None:
    """The recorded result of a reduction without operands, for one head: [n] or [m]; None where there is none."""
    for name, asked in trace.reductions.items():
        if asked.get("type") == reduction and name in record and asked.get("weights") is None:
            return record[name][batch, record.heads.index(head)].float()
    return None


def thumbnails(trace: Trace, record: Record, batch: int) -> Tensor | None:
    """A small map of each head, the share of a row's attention that a pixel holds at most: float32 [H, 64, 64].

    From the coarsest `BlockMass` that was recorded and is as fine; None where there is none.
    """
    found: list[tuple[int, str, int]] = []
    for name, asked in trace.reductions.items():
        rows, cols = asked.get("rows"), asked.get("cols")
        if asked.get("type") == "BlockMass" and name in record and isinstance(rows, int) and isinstance(cols, int):
            mass = record[name]
            found.append((abs(int(math.log2(max(1, mass.shape[-1]) / THUMB))), name, rows))
    if not found:
        return None
    _, name, rows = min(found)
    mass = record[name][batch].float()
    full = torch.full((mass.shape[1], 1), float(rows))
    full[-1] = record.shape[2] - rows * (mass.shape[1] - 1)
    share = mass / full
    return functional.adaptive_max_pool2d(share, THUMB)
