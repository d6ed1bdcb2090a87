"""A tile's numbers, from the cheapest place that has them exactly."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ..recording import Record, Trace
from .geometry import SIDE, Place, Pyramid
from .head import Head, shrunk
from .survey import BLOCK, Survey, block_of

__all__ = ["Maps", "Tile", "computed", "directly", "from_maps", "recorded_maps", "surveyed"]


@dataclass(frozen=True)
class Tile:
    """Sums and maxima of a tile's cells, float32 [rows, columns] each; of single weights both are the weight itself.

    `known` rows of cells hold them; what lies below is still to be found out, and 0.
    """

    mass: Tensor
    largest: Tensor
    known: int

    @property
    def complete(self) -> bool:
        """Whether all of it is known."""
        return self.known >= self.mass.shape[0]

    @property
    def nbytes(self) -> int:
        """What it holds in memory."""
        return self.mass.nbytes + self.largest.nbytes


@dataclass(frozen=True)
class Maps:
    """A whole matrix by blocks: sums and maxima, [⌈n/block⌉, ⌈m/block⌉] each, as they were recorded."""

    block: int
    mass: Tensor
    largest: Tensor


def recorded_maps(trace: Trace, record: Record, head: int, batch: int) -> Maps | None:
    """The finest `BlockMass` and `BlockMax` of this call that tiles can be pooled from; None where there are none."""
    sides: dict[int, dict[str, str]] = {}
    for name, asked in trace.reductions.items():
        rows, cols = asked.get("rows"), asked.get("cols")
        if asked.get("type") in ("BlockMass", "BlockMax") and name in record and isinstance(rows, int) and rows == cols:
            sides.setdefault(rows, {})[str(asked["type"])] = name
    usable = [side for side, names in sides.items() if len(names) == 2 and side >= 1 and side & (side - 1) == 0]
    if not usable:
        return None
    names, at = sides[min(usable)], record.heads.index(head)
    return Maps(min(usable), record[names["BlockMass"]][batch, at], record[names["BlockMax"]][batch, at])


def from_maps(maps: Maps, place: Place) -> Tile:
    """Pooled from a map whose blocks are no larger than the tile's."""
    i, j = _within(place.rows, maps.block), _within(place.keys, maps.block)
    by = place.block // maps.block
    mass = shrunk(maps.mass[i, j].float(), by, torch.sum).contiguous()
    return Tile(mass, shrunk(maps.largest[i, j].float(), by, torch.amax).contiguous(), mass.shape[0])


def computed(head: Head, place: Place) -> Tile:
    """From q, k and the log-sum-exp."""
    if place.block == 1:
        weights = head.weights(place.rows, place.keys).float()
        return Tile(weights, weights, weights.shape[0])
    mass, largest = head.pooled(place)
    return Tile(mass, largest, mass.shape[0])


def surveyed(survey: Survey, place: Place) -> Tile:
    """From what a survey has found so far."""
    tile = from_maps(Maps(survey.block, survey.mass, survey.largest), place)
    if survey.complete:
        return tile
    known = max(0, min(survey.done, place.rows.stop) - place.rows.start) // place.block
    return Tile(tile.mass, tile.largest, known)


def directly(place: Place, pyramid: Pyramid) -> bool:
    """Whether a tile is computed when it is looked at: its blocks are finer than any map's, or it holds few weights."""
    return place.block < block_of(pyramid) or len(place.rows) * len(place.keys) <= (BLOCK // 2 * SIDE) ** 2


def _within(span: range, block: int) -> slice:
    return slice(span.start // block, -(-span.stop // block))
