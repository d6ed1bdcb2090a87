"""Sightline: attention computed exactly at any length, and where it looked, without ever storing the N×N matrix."""

from importlib import import_module as _import
from importlib.metadata import version as _version
from typing import TYPE_CHECKING, Any

from .backends import BackendInfo, backends
from .biases import Alibi, DenseBias, RelativeBias
from .errors import InputError, ModelError, ShapeError, SightlineError, SpecError, TraceError, Unsupported
from .functional import Observed, attention, observe
from .masks import Causal, DenseMask, Intervals, Lengths, Packed, Prefix, Window
from .matrix import AttentionMatrix
from .partial import Partial, merge
from .reductions import (
    BlockMass,
    BlockMax,
    ColumnMax,
    ColumnMoment,
    Entries,
    Entropy,
    LogSumExp,
    Peak,
    Peaks,
    Received,
    Reduction,
    RowMoment,
    Rows,
    SegmentMass,
    TopK,
)
from .relevance import relevance, rollout

if TYPE_CHECKING:
    from .integrations import record as record
    from .recording import Tokens as Tokens
    from .recording import Trace as Trace

__version__ = _version("sightline")

__all__ = [
    "Alibi",
    "AttentionMatrix",
    "BackendInfo",
    "BlockMass",
    "BlockMax",
    "Causal",
    "ColumnMax",
    "ColumnMoment",
    "DenseBias",
    "DenseMask",
    "Entries",
    "Entropy",
    "InputError",
    "Intervals",
    "Lengths",
    "LogSumExp",
    "ModelError",
    "Observed",
    "Packed",
    "Partial",
    "Peak",
    "Peaks",
    "Prefix",
    "Received",
    "Reduction",
    "RelativeBias",
    "RowMoment",
    "Rows",
    "SegmentMass",
    "ShapeError",
    "SightlineError",
    "SpecError",
    "Tokens",
    "TopK",
    "Trace",
    "TraceError",
    "Unsupported",
    "Window",
    "__version__",
    "attention",
    "backends",
    "merge",
    "observe",
    "record",
    "relevance",
    "rollout",
]


# Fetched when they are first used: Transformers takes seconds to import, and reading files needs packages of its own.
_LATE = {"record": ".integrations", "Tokens": ".recording", "Trace": ".recording"}


def __getattr__(name: str) -> Any:
    if name in _LATE:
        return getattr(_import(_LATE[name], __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
