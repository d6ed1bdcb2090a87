"""Maps of every head, of blocks, from what was recorded or from the queries and keys that were kept."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from ..reductions import BlockMass
from ..reductions.blocks import pooled
from .places import placed
from .record import Record
from .trace import Trace

__all__ = ["Maps", "maps"]

_SIDES = (64, 32, 16)
"""Blocks along the longer side of a map, as many as there is room for."""


@dataclass(frozen=True)
class Maps:
    """shares [1 + heads, R, C] of blocks of rows × cols tokens; entry 0 is the mean of all heads.

    shares[·, r, c] is the part of the attention of query block r that goes to key block c: Σ P over the block / the
    number of its queries.
    """

    rows: int
    cols: int
    shares: Tensor = field(repr=False)


def maps(trace: Trace, modules: Sequence[str], queries: int, keys: int, room: int) -> Maps | None:
    """Every head's map of batch entry 0, heads in order of modules, after the mean of all; of at most `room` numbers.

    None where neither block masses nor queries and keys were recorded of all calls, or calls that begin inside a block.
    """
    heads = sum(len(trace[name][0].heads) for name in modules)
    side = next((side for side in _SIDES if (heads + 1) * side**2 <= room), _SIDES[-1])
    block = -(-max(queries, keys) // side)
    size = _recorded(trace)
    rows, cols = (block, block) if size is None else (_multiple(size[0], block), _multiple(size[1], block))
    found: list[Tensor] = []
    for name in modules:
        total = torch.zeros(len(trace[name][0].heads), -(-queries // rows), -(-keys // cols), dtype=torch.float64)
        for start, call in placed(trace, name):
            mass = _mass(trace, call, rows, cols, size)
            whole = start % rows == 0 or start % rows + call.shape[2] <= rows
            if mass is None or not whole or call.key_positions.start % cols:
                return None
            r, c = start // rows, call.key_positions.start // cols
            into = total[:, r : r + mass.shape[1], c : c + mass.shape[2]]
            into += mass[:, : into.shape[1], : into.shape[2]]  # a static cache has slots beyond the tokens
        found.append(total)
    shares = torch.cat(found)
    counts = torch.tensor([min(rows, queries - r * rows) for r in range(shares.shape[1])])
    # Sums in float32 may pass 1 by a rounding.
    shares = (shares / counts[:, None]).clamp(max=1)
    return Maps(rows, cols, torch.cat([shares.mean(0, keepdim=True), shares]))


def _multiple(size: int, least: int) -> int:
    """The smallest multiple of a recorded block that is large enough."""
    return -(-least // size) * size


def _recorded(trace: Trace) -> tuple[int, int] | None:
    """Rows and columns of the finest blocks that were recorded."""
    sizes = [(int(d["rows"]), int(d["cols"])) for d in trace.reductions.values() if d.get("type") == "BlockMass"]
    return min(sizes, default=None)


def _mass(trace: Trace, call: Record, rows: int, cols: int, size: tuple[int, int] | None) -> Tensor | None:
    """Σ P [heads, R, C] of batch entry 0 over blocks of rows × cols, in float64."""
    for name, said in trace.reductions.items():
        if said.get("type") == "BlockMass" and (said["rows"], said["cols"]) == size and name in call:
            mass = call[name][0].double()
            by_row = pooled(mass, -2, 0, rows // int(said["rows"]), torch.sum)
            return pooled(by_row, -1, 0, cols // int(said["cols"]), torch.sum)
    if call.kept is None:
        return None
    return call.matrix().reduce({"mass": BlockMass(rows, cols)})["mass"][0].double()
