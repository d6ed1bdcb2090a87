"""Every error Sightline raises on purpose.

    SightlineError
    ├── ShapeError      a tensor does not fit the others
    ├── SpecError       a mask, bias, reduction or option contradicts itself or the tensors
    ├── Unsupported     no backend (or not the named one) can do what was asked; `.refusals` says why
    ├── InputError      a document, question or other input of a task cannot be used
    ├── ModelError      a model's name, files or architecture cannot be used
    └── TraceError      a trace file is malformed

One grammar for all messages: what you asked; what is true; what to do.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence


class SightlineError(Exception):
    """Base of all errors raised on purpose."""


class ShapeError(SightlineError, ValueError):
    """A tensor's shape, dtype or device does not fit the others."""


class SpecError(SightlineError, ValueError):
    """A mask, bias, reduction or option contradicts itself or the tensors it is used with."""


class Unsupported(SightlineError, NotImplementedError):
    """No backend can do what was asked, or the named one cannot.

    `refusals` maps each backend that was asked to its reasons.
    """

    def __init__(self, message: str, refusals: Mapping[str, Sequence[str]] | None = None) -> None:
        super().__init__(message)
        self.refusals: dict[str, list[str]] = {k: list(v) for k, v in (refusals or {}).items()}


class InputError(SightlineError, ValueError):
    """An input of a task cannot be used: missing, empty, not text, too long."""


class ModelError(SightlineError, ValueError):
    """A model cannot be used: unknown name, unreadable files, unsupported architecture."""


class TraceError(SightlineError, ValueError):
    """A trace file is malformed."""
