"""What a page asks, and the answer's bytes: the same over HTTP and over a notebook's messages.

traces                          every trace, as JSON
t/TRACE/text/WHICH              the text of `tokens` or `source`, cut at its tokens, as JSON
t/TRACE/heads                   numbers of every head, as JSON
t/TRACE/LAYER/thumbnails        64 × 64 numbers for each head of a module
t/TRACE/LAYER/HEAD/…            of one head, with ?call=…&batch=…, by default 0:
    survey                      go on with looking over the whole of it; how far that is, as JSON
    tracks                      attention received [m], then entropy [n] in nats
    row/I   column/J            the weights of one query [m], of one key [n]
    Z/X/Y                       a tile: sums of its cells, then, where a cell has several weights, their maxima
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qs, urlsplit

import msgspec
from torch import Tensor

from ..errors import SightlineError
from ..recording._bytes import plain, raw
from .desk import At, Desk

__all__ = ["Reply", "reply"]

_log = logging.getLogger(__name__)

_SURVEYING = 0.25
"""Seconds that one request goes on with a survey."""


@dataclass(frozen=True)
class Reply:
    """An answer. `status` is one of HTTP's: 200, 204 for what is not known (yet), 404, 422 and 500 (a defect), which
    have the reason as text.

    Numbers are little-endian float32, one tensor after the other; `shape` says of a tile how many rows and columns of
    cells it has, and how many rows are known.
    """

    status: int
    type: str = "text/plain; charset=utf-8"
    body: bytes = b""
    shape: str = ""


def reply(desk: Desk, asked: str) -> Reply:
    """The answer to a path with its query, such as "t/0/3/1/row/17?call=2"."""
    parts = urlsplit(asked)
    said = parse_qs(parts.query)
    for pattern, answer in _ANSWERS:
        found = pattern.fullmatch(parts.path)
        if found:
            where = {name: int(value) if value.isdecimal() else value for name, value in found.groupdict().items()}
            try:
                return answer(desk, {**where, "call": _number(said, "call"), "batch": _number(said, "batch")})
            except SightlineError as error:
                return Reply(422, body=str(error).encode())
            except Exception as error:  # a defect: the page says it and goes on, the log has where it happened
                _log.exception("%s could not be answered", asked)
                return Reply(500, body=f"Unexpected {type(error).__name__}: {error}".encode())
    return Reply(404, body=b"There is nothing here.\n")


def _thumbnails(desk: Desk, said: dict[str, Any]) -> Reply:
    found = desk.thumbnails(said["trace"], said["layer"])
    return Reply(204) if found is None else _numbers([found])


def _survey(desk: Desk, said: dict[str, Any]) -> Reply:
    survey = desk.survey(_at(said), _SURVEYING)
    return _json({"done": survey.done, "of": survey.n})


def _tracks(desk: Desk, said: dict[str, Any]) -> Reply:
    found = desk.tracks(_at(said))
    return Reply(204) if found is None else _numbers(found)


def _tile(desk: Desk, said: dict[str, Any]) -> Reply:
    tile = desk.tile(_at(said), said["z"], said["x"], said["y"])
    planes = [tile.mass] if tile.largest is tile.mass else [tile.mass, tile.largest]
    rows, columns = tile.mass.shape
    return _numbers(planes, f"{rows} {columns} {tile.known}")


_ANSWERS: tuple[tuple[re.Pattern[str], Callable[[Desk, dict[str, Any]], Reply]], ...] = tuple(
    (re.compile(re.sub(r"(?<!P)<(\w+)>", r"(?P<\1>[0-9]{1,9})", path), re.ASCII), answer)
    for path, answer in (
        ("traces", lambda desk, said: _json(desk.traces())),
        (r"t/<trace>/text/(?P<which>[a-z]+)", lambda desk, s: _json(desk.pieces(s["trace"], s["which"], s["batch"]))),
        ("t/<trace>/heads", lambda desk, said: _json(desk.heads(said["trace"]))),
        ("t/<trace>/<layer>/thumbnails", _thumbnails),
        ("t/<trace>/<layer>/<head>/survey", _survey),
        ("t/<trace>/<layer>/<head>/tracks", _tracks),
        ("t/<trace>/<layer>/<head>/row/<i>", lambda desk, said: _numbers([desk.row(_at(said), said["i"])])),
        ("t/<trace>/<layer>/<head>/column/<j>", lambda desk, said: _numbers([desk.column(_at(said), said["j"])])),
        ("t/<trace>/<layer>/<head>/<z>/<x>/<y>", _tile),
    )
)


def _at(said: dict[str, Any]) -> At:
    return At(said["trace"], said["layer"], said["head"], said["call"], said["batch"])


def _number(said: dict[str, list[str]], name: str) -> int:
    """A number of the query, by default 0; what is no number is −1, which nothing has."""
    text = said.get(name, ["0"])[0]
    return int(text) if text.isascii() and text.isdecimal() and len(text) < 10 else -1


def _json(value: Any) -> Reply:
    return Reply(200, "application/json", msgspec.json.encode(value))


def _numbers(tensors: Sequence[Tensor], shape: str = "") -> Reply:
    body = b"".join(bytes(raw(plain(tensor.float()))) for tensor in tensors)
    return Reply(200, "application/octet-stream", body, shape)
