"""Backends: who evaluates a request. Each is one module with the same few functions; none imports another.

A named backend never falls back. "auto" takes the first of `ORDER` that has no refusal.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, cast

from torch import Tensor

from ..errors import SpecError, Unsupported
from ..partial import Partial
from ..request import Gradients, Needs, Request
from . import cpu, dense, tiled


class Backend(Protocol):
    """What a backend's module provides."""

    NAME: str

    def absent(self) -> list[str]:
        """Why it can serve no request at all on this machine; empty if it can run here."""
        ...

    def runs_on(self) -> list[str]:
        """What it computes with on this machine, best first."""
        ...

    def refusals(self, request: Request) -> list[str]:
        """Why it cannot serve the request; empty if it can."""
        ...

    def forward(self, request: Request) -> list[Tensor]:
        """The log-sum-exp [b, h, n], −inf for rows without keys, then every result in order."""
        ...


class FoldingBackend(Backend, Protocol):
    """A backend with linear memory: it also gives partial states, and gradients of its own."""

    #: Whether its gradients read results, which are kept for them then.
    READS_RESULTS: bool

    def settle(self, request: Request) -> Partial:
        """What the request's keys contribute to each row: its folds, not finished."""
        ...

    def backward(
        self,
        request: Request,
        lse: Tensor,
        results: Sequence[Tensor | None],
        grads: Sequence[Tensor | None],
        needs: Needs,
    ) -> Gradients:
        """The gradients of Σ results · grads. results: the linear ones as wide as sums, if it reads any."""
        ...


#: Written in differentiable operations: PyTorch differentiates them itself, to any order, and traces through them.
COMPOSITE: dict[str, Backend] = {dense.NAME: cast(Backend, dense)}
#: Behind an operator, in the order "auto" tries them.
ORDER: dict[str, FoldingBackend] = {
    cpu.NAME: cast(FoldingBackend, cpu),
    tiled.NAME: cast(FoldingBackend, tiled),
}


@dataclass(frozen=True)
class BackendInfo:
    """name; available: whether it can run here; reasons: why not; runs_on: what it computes with here, best first."""

    name: str
    available: bool
    reasons: tuple[str, ...] = ()
    runs_on: tuple[str, ...] = ()


def backends() -> list[BackendInfo]:
    """Every backend, whether it can run on this machine, and why not. "auto" prefers them in this order."""
    infos: list[BackendInfo] = []
    for name, backend in {**ORDER, **COMPOSITE}.items():
        reasons = backend.absent()
        infos.append(BackendInfo(name, not reasons, tuple(reasons), tuple(backend.runs_on())))
    return infos


def choose(name: str, request: Request) -> str:
    """The backend to use for a request: the named one, or the first without refusals for "auto".

    Raises SpecError for an unknown name and Unsupported, with every refusal, when there is none.
    """
    known = {**ORDER, **COMPOSITE}
    if name != "auto" and name not in known:
        raise SpecError(f"backend={name!r} is not one of {', '.join(map(repr, known))} or 'auto'.")
    asked = ORDER if name == "auto" else {name: known[name]}
    refused: dict[str, list[str]] = {}
    for candidate, backend in asked.items():
        refused[candidate] = backend.refusals(request)
        if not refused[candidate]:
            return candidate
    reasons = "; ".join(f"{backend}: {', '.join(why)}" for backend, why in refused.items())
    hint = "Leave backend='auto' to let another one serve it." if name != "auto" else "No backend can serve it."
    raise Unsupported(f"backend={name!r} cannot serve this call. {reasons}. {hint}", refused)
