"""Reductions: everything one may do with an attention matrix that is never stored."""

from ._law import BY_HEAD, Additive, Phase, Reduction, RowFold, RowWise, Settled, Sweep, Tile, by_head
from .blocks import BlockMass, BlockMax
from .columns import ColumnMax, ColumnMoment, Received
from .rows import Entropy, LogSumExp, RowMoment, SegmentMass
from .selection import Entries, Peak, Peaks, Rows, TopK

__all__ = [
    "BY_HEAD",
    "Additive",
    "BlockMass",
    "BlockMax",
    "ColumnMax",
    "ColumnMoment",
    "Entries",
    "Entropy",
    "LogSumExp",
    "Peak",
    "Peaks",
    "Phase",
    "Received",
    "Reduction",
    "RowFold",
    "RowMoment",
    "RowWise",
    "Rows",
    "SegmentMass",
    "Settled",
    "Sweep",
    "Tile",
    "TopK",
    "by_head",
]
