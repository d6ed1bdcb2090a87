"""From Transformers' description of a mask to Sightline's: one key interval per query row.

Transformers describes a mask by a function of indices (batch, head, query, key) → admitted, and a 2-D tensor of real
(not padding) tokens. Causal, sliding, chunked and packed masks admit, in each row, one run of keys, which is all that
`Intervals` stores. The function is evaluated in blocks of rows, in linear memory, and every entry is checked, so a
pattern that is not a run is noticed rather than approximated.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers.masking_utils import bidirectional_mask_function, causal_mask_function, sdpa_mask

from ..errors import Unsupported
from ..masks import Causal, DenseMask, Intervals, Mask

_BLOCK_ENTRIES = 1 << 21
"""Entries of the mask evaluated at once: a few tens of MB while the function runs."""

_DENSE_ENTRIES = 1 << 24
"""A mask whose rows are not intervals is kept whole up to this size, 16 MiB, and refused above it."""


@dataclass(frozen=True)
class MaskSpec:
    """What Transformers says about a mask.

    Row i is the query at position `q_offset + i`, column j the key at `k_offset + j`. `function(b, head, q, k)` takes
    positions as index tensors that broadcast (or, with `use_vmap`, as scalars); it does not depend on the head.
    `causal` says that it was asked for as a causal mask, whatever was then laid over it.
    `padding` [b, positions] is True for real tokens; positions past its end are not real.
    """

    batch: int
    n: int
    m: int
    q_offset: int
    k_offset: int
    function: Callable[..., Any]
    causal: bool
    padding: Tensor | None
    use_vmap: bool
    device: torch.device


@dataclass(frozen=True)
class Lowered:
    """A mask [b|1, 1, n, m] in Sightline's terms (None admits all), and the positions of its first row and column.

    `query_start` is None where the mask does not place the queries among the keys: cross-attention. `causal` is False
    for attention in both directions.
    """

    mask: Mask | None
    query_start: int | None
    key_start: int
    causal: bool


def lower(spec: MaskSpec, device: torch.device) -> Lowered:
    """Work the mask out, exactly. Raises Unsupported where rows are not intervals and the mask is too large to keep."""
    mask = _combine(spec, device)
    placed = spec.function is not bidirectional_mask_function or spec.n == spec.m
    return Lowered(mask, spec.q_offset if placed else None, spec.k_offset, spec.causal)


def _combine(spec: MaskSpec, device: torch.device) -> Mask | None:
    """Pattern and padding together, in the simplest terms that say the same."""
    real = _real_keys(spec)
    lo, hi = torch.zeros(1, spec.n, dtype=torch.int64), torch.full((1, spec.n), spec.m)
    if spec.function is causal_mask_function:
        first = spec.q_offset - spec.k_offset + 1
        if real is None and first + spec.n - 1 == spec.m:
            return None if spec.n == 1 else Causal()
        hi = torch.arange(first, first + spec.n).clamp(0, spec.m)[None]
    elif spec.function is not bidirectional_mask_function:
        scanned = _scan(spec)
        if scanned is None:
            return _dense(spec, device)
        lo, hi = scanned
    elif real is None:
        return None
    if real is None:
        return _intervals(lo, hi, device)
    runs = _runs(real)
    if runs is None:
        return _intervals(lo, hi, device) & DenseMask(real[:, None, None, :].to(device))
    first, count = runs
    return _intervals(torch.maximum(lo, first[:, None]), torch.minimum(hi, (first + count)[:, None]), device)


def _intervals(lo: Tensor, hi: Tensor, device: torch.device) -> Intervals:
    empty = hi <= lo
    ends = [t.masked_fill(empty, 0).to(device, torch.int32) for t in (lo, hi)]
    return Intervals(*ends)


def _real_keys(spec: MaskSpec) -> Tensor | None:
    """[b, m] boolean, on the CPU: which keys are tokens and not padding. None where all are."""
    if spec.padding is None:
        return None
    padding = spec.padding.to("cpu", torch.bool)
    missing = max(0, spec.k_offset + spec.m - padding.shape[-1])
    real = torch.nn.functional.pad(padding, (0, missing))[:, spec.k_offset : spec.k_offset + spec.m]
    return None if bool(real.all()) else real


def _runs(admitted: Tensor) -> tuple[Tensor, Tensor] | None:
    """First index and length of the one run of True in each row [..., m]; None where a row has more than one run."""
    bits = admitted.contiguous().view(torch.uint8)
    count = bits.sum(-1, dtype=torch.int32).to(torch.int64)
    first = bits.max(-1).indices  # of equal values the first; several times as fast as argmax
    last = bits.shape[-1] - 1 - bits.flip(-1).max(-1).indices
    if bool(((last - first + 1 != count) & (count > 0)).any()):
        return None
    return first, count


def _rows(spec: MaskSpec, start: int, stop: int) -> Tensor:
    """Rows start:stop of the pattern without padding, [b|1, rows, m] boolean, by Transformers' own dense mask."""
    block = sdpa_mask(
        batch_size=spec.batch,
        q_length=stop - start,
        kv_length=spec.m,
        q_offset=spec.q_offset + start,
        kv_offset=spec.k_offset,
        mask_function=spec.function,
        attention_mask=None,
        allow_is_causal_skip=False,
        use_vmap=spec.use_vmap,
        device=spec.device,
    )
    if block is None:  # only with a skip allowed; without a mask every key would be admitted
        raise Unsupported("Transformers left out a mask that was asked for in full. Please report this model.")
    block = block[:, 0]
    return block[:1] if block.stride(0) == 0 else block


def _scan(spec: MaskSpec) -> tuple[Tensor, Tensor] | None:
    """lo and hi [b|1, n] of every row of the pattern, each entry looked at; None where a row is not one interval."""
    step = max(1, _BLOCK_ENTRIES // (spec.batch * spec.m))
    ends: Tensor | None = None  # made once: small tensors kept between large ones leave holes in the heap
    for start in range(0, spec.n, step):
        stop = min(spec.n, start + step)
        runs = _runs(_rows(spec, start, stop))
        if runs is None:
            return None
        first, count = runs
        if ends is None:
            ends = torch.empty(2, first.shape[0], spec.n, dtype=torch.int64)
        ends[0, :, start:stop] = first
        ends[1, :, start:stop] = first + count
    return None if ends is None else (ends[0], ends[1])


def _dense(spec: MaskSpec, device: torch.device) -> Mask:
    """The whole pattern, padding included, where it is small. Raises Unsupported where it is not."""
    entries = spec.batch * spec.n * spec.m
    if entries > _DENSE_ENTRIES:
        raise Unsupported(
            f"the model's mask ({spec.batch}×{spec.n}×{spec.m}) admits, in some row, keys that are not one interval; "
            f"Sightline keeps such a mask whole, and only up to {_DENSE_ENTRIES:,} entries. Use a shorter input, or "
            "the model's own attention implementation."
        )
    step = max(1, _BLOCK_ENTRIES // (spec.batch * spec.m))
    blocks = [_rows(spec, start, min(spec.n, start + step)).cpu() for start in range(0, spec.n, step)]
    admitted = torch.cat(blocks, dim=1)[:, None]
    real = _real_keys(spec)
    if real is not None:
        admitted = admitted & real[:, None, None, :]
    return DenseMask(admitted.to(device))
