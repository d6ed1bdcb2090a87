"""Who listens to which module of which model."""

from __future__ import annotations

import threading
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar

from torch import nn

from ..functional import Observed
from ..recording import Call, Listener
from ..reductions import Reduction


class Session:
    """One listener and the modules, by identity, that it listens to."""

    def __init__(self, model: nn.Module, listener: Listener) -> None:
        self.listener = listener
        self.names: dict[nn.Module, str] = {module: name for name, module in model.named_modules()}


_all: tuple[Session, ...] = ()
_lock = threading.Lock()
_of_this_context: ContextVar[tuple[Session, ...]] = ContextVar("sightline_sessions", default=())


@contextmanager
def session(model: nn.Module, listener: Listener) -> Generator[None]:
    """Deliver the calls of this model's modules to the listener, inside the block."""
    global _all
    new = Session(model, listener)
    with _lock:
        _all = (*_all, new)
    _of_this_context.set((*_of_this_context.get(), new))
    try:
        yield
    finally:
        # Not a token's reset: that fails where a generator or a fixture is closed in another context than it began in.
        _of_this_context.set(tuple(s for s in _of_this_context.get() if s is not new))
        with _lock:
            _all = tuple(s for s in _all if s is not new)


def sessions_of(module: nn.Module) -> list[Session]:
    """The sessions that a call of this module is delivered to.

    Those begun in the calling context; two threads that record the same model each get their own calls. Where the
    calling context began none, as in the worker thread that runs `generate` behind a streamer, all of them.
    """
    if not _all:
        return []
    mine = [s for s in _of_this_context.get() if module in s.names]
    return mine or [s for s in _all if module in s.names]


def deliver(
    calls: Sequence[tuple[Session, Call]],
    own: Mapping[str, Reduction],
    compute: Callable[[Mapping[str, Reduction]], Observed],
) -> Observed:
    """One pass for all who ask: each session is handed the reductions of its listener, the caller those in `own`."""
    asked = [own, *(s.listener.reductions(call) for s, call in calls)]
    together = {f"{i}:{name}": r for i, reductions in enumerate(asked) for name, r in reductions.items()}
    seen = compute(together)
    mine, *theirs = (Observed(seen.output, {name: seen[f"{i}:{name}"] for name in rs}) for i, rs in enumerate(asked))
    for (s, call), part in zip(calls, theirs, strict=True):
        s.listener.received(call, part)
    return mine
