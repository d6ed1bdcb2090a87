"""What stands out in a trace: which tokens receive most, what each head does, the strongest single weights."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from .call import Kind
from .record import Record
from .trace import Trace

__all__ = ["LOCAL", "Head", "Pair", "heads", "pairs", "received", "sinks"]

LOCAL = 8
"""Positions behind a query, its own included, that count as near."""

_TINY = 1e-300
"""Keeps 0 / 0 from being NaN."""


@dataclass(frozen=True)
class Head:
    """One head over all its rows and calls. What was not recorded is None.

    entropy: mean over rows, in nats. sink: share of its attention that its most-received key gets, and sink_key that
    key's position. local: share of rows whose largest weight is on one of the `LOCAL` nearest positions. retrieval:
    share of rows whose largest weight is farther back, on a token that is the same as the one that comes next: the head
    looks at what is about to be copied (as retrieval heads do, Wu et al. 2024, §2).
    """

    module: str
    kind: Kind
    head: int
    entropy: float | None
    sink: float | None
    sink_key: int | None
    local: float | None
    retrieval: float | None


@dataclass(frozen=True)
class Pair:
    """One weight: from a query position to a key position, of batch entry 0. query is None where it is not known."""

    module: str
    kind: Kind
    head: int
    query: int | None
    key: int
    weight: float


def received(trace: Trace, kind: Kind) -> Tensor | None:
    """The share of all attention of this kind that each position gets, [positions], over heads, layers and the batch.

    None where `Received` was not recorded of such calls.
    """
    total = torch.zeros(max((call.key_positions.stop for call in _calls(trace, kind)), default=0), dtype=torch.float64)
    there = False
    for call in _calls(trace, kind):
        found = _result(trace, call, "Received")
        if found is not None:
            total[call.key_positions.start : call.key_positions.stop] += found.double().sum((0, 1))
            there = True
    return total / total.sum().clamp(min=_TINY) if there else None


def sinks(trace: Trace, kind: Kind) -> list[int]:
    """Positions that get a tenth of all attention of this kind, and four times what they would if all got the same."""
    share = received(trace, kind)
    if share is None:
        return []
    return [i for i, part in enumerate(share.tolist()) if part >= max(0.1, 4 / share.shape[0])]


def heads(trace: Trace) -> list[Head]:
    """Every recorded head, in order of modules and heads."""
    found: list[Head] = []
    for module, calls in trace.items():
        kind = calls[0].kind
        entropy = _mean_entropy(trace, calls)
        share, keys = _sink(trace, calls)
        local, retrieval = _looks(trace, calls, trace.tokens.ids if trace.tokens and kind == "decoder" else None)
        found += [
            Head(module, kind, head, *said)
            for head, *said in zip(calls[0].heads, entropy, share, keys, local, retrieval, strict=True)
        ]
    return found


def pairs(trace: Trace, count: int) -> list[Pair]:
    """The `count` largest weights of the trace, leaving out what a token gives to itself and to sinks. From `Peak`."""
    best: list[Pair] = []
    for kind in ("encoder", "decoder", "cross"):
        skipped = torch.tensor(sinks(trace, kind), dtype=torch.int64)
        for call in _calls(trace, kind):
            peak = _result(trace, call, "Peak")
            if peak is None:
                continue
            values, keys = peak.value[0], peak.key[0]  # [H, n]
            positions = keys + call.key_positions.start
            out = (keys < 0) | torch.isin(positions, skipped)
            if kind != "cross" and call.query_positions is not None:
                out |= positions == torch.arange(call.query_positions.start, call.query_positions.stop)
            top = values.masked_fill(out, -1).flatten().topk(min(count, values.numel()))
            for weight, at in zip(top.values.tolist(), top.indices.tolist(), strict=True):
                row, i = divmod(at, values.shape[1])
                query = None if call.query_positions is None else call.query_positions[i]
                if weight > 0:
                    best.append(Pair(call.module, kind, call.heads[row], query, int(positions[row, i]), weight))
        best = sorted(best, key=lambda pair: -pair.weight)[:count]
    return best


def _calls(trace: Trace, kind: Kind) -> Iterator[Record]:
    return (call for module in trace for call in trace[module] if call.kind == kind)


def _result(trace: Trace, call: Record, reduction: str) -> Any:
    """The call's result of the first reduction of this type; None where there is none."""
    for name, described in trace.reductions.items():
        if described.get("type") == reduction and name in call and described.get("weights") is None:
            return call[name]
    return None


def _mean_entropy(trace: Trace, calls: tuple[Record, ...]) -> list[float | None]:
    found = [entropy for call in calls if (entropy := _result(trace, call, "Entropy")) is not None]
    if not found:
        return [None] * len(calls[0].heads)
    rows = sum(entropy.shape[0] * entropy.shape[2] for entropy in found)
    total = torch.stack([entropy.double().sum((0, 2)) for entropy in found]).sum(0)
    return [part / rows for part in total.tolist()]


def _sink(trace: Trace, calls: tuple[Record, ...]) -> tuple[list[float | None], list[int | None]]:
    """Of each head, the share of its attention that its most-received key gets, and that key's position."""
    h, stop = len(calls[0].heads), max(call.key_positions.stop for call in calls)
    total, there = torch.zeros(h, stop, dtype=torch.float64), False
    for call in calls:
        found = _result(trace, call, "Received")
        if found is not None:
            total[:, call.key_positions.start : call.key_positions.stop] += found.double().sum(0)
            there = True
    if not there:
        return [None] * h, [None] * h
    most = total.max(1)
    share = most.values / total.sum(1).clamp(min=_TINY)
    return share.tolist(), most.indices.tolist()


def _looks(
    trace: Trace, calls: tuple[Record, ...], ids: Tensor | None
) -> tuple[list[float | None], list[float | None]]:
    """Of each head the shares of rows whose largest weight lies near, and farther back on what comes next."""
    h = len(calls[0].heads)
    rows, near, copied, known = torch.zeros(h), torch.zeros(h), torch.zeros(h), torch.zeros(h)
    for call in calls:
        peak = _result(trace, call, "Peak")
        if peak is None or call.query_positions is None:
            continue
        query = torch.arange(call.query_positions.start, call.query_positions.stop)
        key = peak.key + call.key_positions.start  # [b, H, n]
        live = peak.key >= 0
        close = live & (key > query - LOCAL) & (key < query + LOCAL)
        rows += live.sum((0, 2))
        near += close.sum((0, 2))
        if ids is None or ids.shape[0] != key.shape[0]:
            continue
        follows = query + 1 < ids.shape[1]
        coming = ids[:, (query + 1).clamp(max=ids.shape[1] - 1)][:, None]  # [b, 1, n]
        seen = ids[:, None].expand(-1, h, -1).gather(2, key.clamp(0, ids.shape[1] - 1))
        known += (live & follows).sum((0, 2))
        copied += (live & follows & ~close & (seen == coming)).sum((0, 2))
    return _shares(near, rows), _shares(copied, known)


def _shares(part: Tensor, whole: Tensor) -> list[float | None]:
    return [a / b if b else None for a, b in zip(part.tolist(), whole.tolist(), strict=True)]
