"""Sightline: attention computed exactly at any length, and where it looked, without ever storing the N×N matrix.

Importing it takes milliseconds: a name is fetched when it is first used, and torch with it.
"""

import sys as _sys
from importlib import import_module as _import
from types import ModuleType as _Module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .backends import BackendInfo, backends
    from .biases import Alibi, DenseBias, RelativeBias
    from .errors import InputError, ModelError, ShapeError, SightlineError, SpecError, TraceError, Unsupported
    from .functional import Observed, attention, observe
    from .integrations import record
    from .masks import Causal, DenseMask, Intervals, Lengths, Packed, Prefix, Window
    from .matrix import AttentionMatrix
    from .partial import Partial, merge
    from .recording import Tokens, Trace
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

    __version__: str

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

_HOMES = {
    "backends": ("BackendInfo", "backends"),
    "biases": ("Alibi", "DenseBias", "RelativeBias"),
    "errors": ("InputError", "ModelError", "ShapeError", "SightlineError", "SpecError", "TraceError", "Unsupported"),
    "functional": ("Observed", "attention", "observe"),
    "integrations": ("record",),
    "masks": ("Causal", "DenseMask", "Intervals", "Lengths", "Packed", "Prefix", "Window"),
    "matrix": ("AttentionMatrix",),
    "partial": ("Partial", "merge"),
    "recording": ("Tokens", "Trace"),
    "reductions": (
        *("BlockMass", "BlockMax", "ColumnMax", "ColumnMoment", "Entries", "Entropy", "LogSumExp", "Peak", "Peaks"),
        *("Received", "Reduction", "RowMoment", "Rows", "SegmentMass", "TopK"),
    ),
    "relevance": ("relevance", "rollout"),
}
"""Modules, with the public names that are fetched from each."""

_HOME = {name: home for home, names in _HOMES.items() for name in names}

_MODULES = {*_HOMES, "ops", "request", "scores"}
"""Modules that can be reached through the package without importing them by name."""


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version

        value: Any = version("sightline")
    elif name in _HOME:
        value = getattr(_import(f".{_HOME[name]}", __name__), name)
    elif name in _MODULES:
        return _import(f".{name}", __name__)
    else:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


class _Package(_Module):
    """Python binds a module in its package when it is imported. Two are named as the function in them that is public:
    `sightline.backends` and `sightline.relevance` are the functions, whoever imports the modules, and when.
    """

    def __setattr__(self, name: str, value: object) -> None:
        function = _HOME.get(name) == name and isinstance(value, _Module)
        super().__setattr__(name, getattr(value, name) if function else value)


_sys.modules[__name__].__class__ = _Package
