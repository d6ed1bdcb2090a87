"""The traces that are shown, and every number that a page asks of them. One caller at a time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from torch import Tensor

from ..errors import SpecError, TraceError
from ..recording import Record, Trace
from . import describe, tiles
from .geometry import Pyramid
from .head import Head
from .shelf import Shelf
from .survey import Survey
from .tiles import Maps, Tile

__all__ = ["At", "Desk", "Opened"]

_TILES, _HEADS, _SURVEYS = 32 << 20, 160 << 20, 140 << 20
"""Bytes of each that are kept, one in any case: two heads of 131,072 tokens and the survey of one."""

_PATIENCE = 0.1
"""Seconds for which a tile waits for a survey to come along: that of a head of 8,000 tokens is done by then."""


class Opened:
    """A trace, by its file or in memory, or why it cannot be shown."""

    def __init__(self, source: str | Path | Trace) -> None:
        self.name = (source.model or "a trace") if isinstance(source, Trace) else Path(source).name
        self.error: str | None = None
        self._trace: Trace | None = None
        try:
            self._trace = source if isinstance(source, Trace) else Trace.load(source)
            self._trace.tokens  # noqa: B018 read now, so that a damaged file is told at once
        except TraceError as error:
            self.error = str(error)

    @property
    def trace(self) -> Trace:
        """Raises TraceError where the file is malformed."""
        if self._trace is None:
            raise TraceError(self.error or "")
        return self._trace

    @cached_property
    def heads(self) -> dict[str, Any]:
        """See `describe.heads`."""
        return describe.heads(self.trace)


@dataclass(frozen=True)
class At:
    """One head of one call: numbers of the trace, of the module in it, the model's number of the head."""

    trace: int
    layer: int
    head: int
    call: int = 0
    batch: int = 0


class Desk:
    """What the viewer shows of some traces. What is asked for and is not there raises SpecError."""

    def __init__(self, sources: Sequence[str | Path | Trace]) -> None:
        self._opened = [Opened(source) for source in sources]
        self._heads: Shelf[At, Head] = Shelf(_HEADS, lambda head: head.nbytes)
        self._surveys: Shelf[At, Survey] = Shelf(_SURVEYS, lambda survey: survey.nbytes)
        self._maps: Shelf[At, Maps | None] = Shelf(64, lambda _: 1)  # they lie in the file, which is mapped
        self._tiles: Shelf[tuple[At, int, int, int], Tile] = Shelf(_TILES, lambda tile: tile.nbytes)

    # -- what there is

    def traces(self) -> list[dict[str, Any]]:
        """Every trace with its modules, or with what is wrong with it."""
        return [self._described(opened) for opened in self._opened]

    def _described(self, opened: Opened) -> dict[str, Any]:
        if opened.error is not None:
            return {"name": opened.name, "error": opened.error}
        trace = opened.trace
        return {
            "name": opened.name,
            "model": trace.model,
            "tokens": None if trace.tokens is None else len(trace.tokens),
            "source": None if trace.source is None else len(trace.source),
            "modules": describe.modules(trace),
        }

    def opened(self, trace: int) -> Opened:
        """Raises SpecError where there is no such trace."""
        return _nth(self._opened, trace, "trace")

    def pieces(self, trace: int, which: str, batch: int) -> list[str]:
        """The text of `tokens` or `source`, cut at its tokens."""
        of = self.opened(trace).trace
        tokens = {"tokens": of.tokens, "source": of.source}.get(which)
        if tokens is None or not 0 <= batch < len(tokens.strings):
            raise SpecError(f"the text {which!r} of entry {batch} was asked for; the trace has none.")
        return describe.pieces(tokens, batch)

    def heads(self, trace: int) -> dict[str, Any]:
        """See `describe.heads`."""
        return self.opened(trace).heads

    def thumbnails(self, trace: int, layer: int) -> Tensor | None:
        """See `describe.thumbnails`; of the module's first call."""
        return describe.thumbnails(self.opened(trace).trace, self._record(At(trace, layer, 0)), 0)

    # -- one head

    def pyramid(self, at: At) -> Pyramid:
        """The levels of a head's map."""
        _, _, n, m = self._record(at).shape
        return Pyramid(n, m)

    def tile(self, at: At, z: int, x: int, y: int) -> Tile:
        """A tile; far-out ones of a head that was recorded without maps may be known in part."""
        pyramid = self.pyramid(at)
        place = pyramid.place(z, x, y)
        self._check(at)

        def make() -> Tile:
            if tiles.directly(place, pyramid):
                return tiles.computed(self._head(at), place)
            maps = self._maps.get(at, lambda: self._recorded(at))
            if maps is not None and maps.block <= place.block:
                return tiles.from_maps(maps, place)
            return tiles.surveyed(self.survey(at, _PATIENCE), place)

        key = (at, z, x, y)
        tile = self._tiles.get(key, make)
        if not tile.complete:
            self._tiles.drop(key)
        return tile

    def survey(self, at: At, seconds: float) -> Survey:
        """The survey of a head, gone on with for about this long."""
        self._check(at)
        survey = self._surveys.get(at, lambda: Survey(*self._record(at).shape[2:]))
        if not survey.complete:
            survey.advance(self._head(at), seconds)
        return survey

    def tracks(self, at: At) -> tuple[Tensor, Tensor] | None:
        """Attention received [m] and entropy [n] in nats; None where they were not recorded and are not known yet."""
        self._check(at)
        record, trace = self._record(at), self.opened(at.trace).trace
        received = describe.track(trace, record, "Received", at.head, at.batch)
        entropy = describe.track(trace, record, "Entropy", at.head, at.batch)
        if received is None or entropy is None:
            survey = self.survey(at, _PATIENCE)
            if not survey.complete:
                return None
            received = survey.received.float() if received is None else received
            entropy = survey.entropy if entropy is None else entropy
        return received, entropy

    def row(self, at: At, i: int) -> Tensor:
        """The weights of one query over all keys, [m]."""
        self._check(at)
        head = self._head(at)
        return head.row(_nth(range(head.matrix.shape[2]), i, "row"))

    def column(self, at: At, j: int) -> Tensor:
        """The weights of one key over all queries, [n]."""
        self._check(at)
        head = self._head(at)
        return head.column(_nth(range(head.matrix.shape[3]), j, "column"))

    # -- within

    def _record(self, at: At) -> Record:
        trace = self.opened(at.trace).trace
        name = _nth(list(trace), at.layer, "module")
        return _nth(trace[name], at.call, f"call of {name}")

    def _check(self, at: At) -> None:
        record = self._record(at)
        if at.head not in record.heads:
            raise SpecError(f"head {at.head} of {record.module} was asked for; it was not recorded. Choose another.")
        _nth(range(record.shape[0]), at.batch, "entry of the batch")

    def _head(self, at: At) -> Head:
        return self._heads.get(at, lambda: Head.of(self._record(at), at.head, at.batch))

    def _recorded(self, at: At) -> Maps | None:
        return tiles.recorded_maps(self.opened(at.trace).trace, self._record(at), at.head, at.batch)


def _nth(values: Sequence[Any], at: int, what: str) -> Any:
    if not 0 <= at < len(values):
        raise SpecError(f"{what} {at} was asked for; there are {len(values)}, counted from 0. Choose one of them.")
    return values[at]
