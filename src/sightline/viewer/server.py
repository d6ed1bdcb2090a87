"""The viewer over HTTP: its page, and the numbers that the page asks for. On this machine's loopback address alone."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib.resources import files
from typing import Any

import anyio
import msgspec
from anyio.to_thread import run_sync
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp
from torch import Tensor

from ..errors import SightlineError
from ..recording._bytes import plain, raw
from .desk import At, Desk
from .page import PAGE
from .security import Guard

__all__ = ["application"]

_SURVEYING = 0.25
"""Seconds that one request goes on with a survey."""

_STATIC = {"viewer.js": "text/javascript", "viewer.css": "text/css", "icon.svg": "image/svg+xml"}
"""All the files that are served."""


def application(paths: Sequence[str], token: str) -> ASGIApp:
    """The viewer of these traces, under /token/. Nothing but these traces and the viewer's own files can be had."""
    server = _Server(paths)
    routes = [
        Route("/", server.page),
        *(Route(f"/{name}", server.static) for name in _STATIC),
        Route("/traces", server.traces),
        Route("/t/{trace:int}/text/{which}", server.text),
        Route("/t/{trace:int}/heads", server.heads),
        Route("/t/{trace:int}/{layer:int}/thumbnails", server.thumbnails),
        Route("/t/{trace:int}/{layer:int}/{head:int}/survey", server.survey),
        Route("/t/{trace:int}/{layer:int}/{head:int}/tracks", server.tracks),
        Route("/t/{trace:int}/{layer:int}/{head:int}/row/{i:int}", server.row),
        Route("/t/{trace:int}/{layer:int}/{head:int}/column/{j:int}", server.column),
        Route("/t/{trace:int}/{layer:int}/{head:int}/{z:int}/{x:int}/{y:int}", server.tile),
    ]
    app = Starlette(routes=[Route(f"/{token}{route.path}", route.endpoint) for route in routes])
    return Guard(app, token)


class _Server:
    """The endpoints. What is computed is computed one thing at a time, each on all cores, in the order it was asked."""

    def __init__(self, paths: Sequence[str]) -> None:
        self._paths = paths
        self._desk: Desk | None = None
        self._turn = anyio.Lock()

    async def _answer(self, request: Request, ask: Callable[[Desk], Response]) -> Response:
        """What `ask` makes of the desk, in its turn; nothing where the page has gone on and doesn't wait any more."""
        async with self._turn:
            if await request.is_disconnected():
                return Response(status_code=499)
            try:
                return await run_sync(lambda: ask(self._at_desk()))
            except SightlineError as error:
                return PlainTextResponse(str(error), 422)

    def _at_desk(self) -> Desk:
        if self._desk is None:
            self._desk = Desk(self._paths)
        return self._desk

    async def page(self, request: Request) -> Response:
        return Response(PAGE, media_type="text/html")

    async def static(self, request: Request) -> Response:
        name = request.url.path.rsplit("/", 1)[1]
        content = files("sightline.viewer").joinpath("static", name).read_bytes()
        return Response(content, media_type=_STATIC[name])

    async def traces(self, request: Request) -> Response:
        return await self._answer(request, lambda desk: _json(desk.traces()))

    async def text(self, request: Request) -> Response:
        trace, which, batch = request.path_params["trace"], request.path_params["which"], _query(request, "batch")
        return await self._answer(request, lambda desk: _json(desk.pieces(trace, which, batch)))

    async def heads(self, request: Request) -> Response:
        return await self._answer(request, lambda desk: _json(desk.heads(request.path_params["trace"])))

    async def thumbnails(self, request: Request) -> Response:
        trace, layer = request.path_params["trace"], request.path_params["layer"]

        def ask(desk: Desk) -> Response:
            found = desk.thumbnails(trace, layer)
            return Response(status_code=204) if found is None else _binary([found])

        return await self._answer(request, ask)

    async def survey(self, request: Request) -> Response:
        def ask(desk: Desk) -> Response:
            survey = desk.survey(_at(request), _SURVEYING)
            return _json({"done": survey.done, "of": survey.n})

        return await self._answer(request, ask)

    async def tracks(self, request: Request) -> Response:
        def ask(desk: Desk) -> Response:
            found = desk.tracks(_at(request))
            return Response(status_code=204) if found is None else _binary(found)

        return await self._answer(request, ask)

    async def row(self, request: Request) -> Response:
        return await self._answer(request, lambda desk: _binary([desk.row(_at(request), request.path_params["i"])]))

    async def column(self, request: Request) -> Response:
        return await self._answer(request, lambda desk: _binary([desk.column(_at(request), request.path_params["j"])]))

    async def tile(self, request: Request) -> Response:
        z, x, y = (request.path_params[name] for name in "zxy")

        def ask(desk: Desk) -> Response:
            tile = desk.tile(_at(request), z, x, y)
            planes = [tile.mass] if tile.largest is tile.mass else [tile.mass, tile.largest]
            rows, columns = tile.mass.shape
            shape = f"{rows} {columns} {tile.known}"
            return _binary(planes, {"X-Sightline-Tile": shape})

        return await self._answer(request, ask)


def _at(request: Request) -> At:
    at = request.path_params
    return At(at["trace"], at["layer"], at["head"], _query(request, "call"), _query(request, "batch"))


def _query(request: Request, name: str) -> int:
    """A number of the query, by default 0; what is no number is −1, which nothing has."""
    text = request.query_params.get(name, "0")
    return int(text) if text.isascii() and text.isdecimal() and len(text) < 10 else -1


def _json(value: Any) -> Response:
    return Response(msgspec.json.encode(value), media_type="application/json")


def _binary(tensors: Sequence[Tensor], headers: dict[str, str] | None = None) -> Response:
    """Little-endian float32, one tensor after the other."""
    content = b"".join(bytes(raw(plain(tensor.float()))) for tensor in tensors)
    return Response(content, media_type="application/octet-stream", headers=headers)
