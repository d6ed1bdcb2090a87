"""The viewer over HTTP: its page, and the numbers that the page asks for. On this machine's loopback address alone.

The page and its files are served at once; torch is imported and the traces are opened meanwhile, in a thread.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from importlib.resources import files
from typing import TYPE_CHECKING

import anyio
from anyio.to_thread import run_sync
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp

from .page import PAGE
from .security import Guard

if TYPE_CHECKING:
    from .replies import Reply

__all__ = ["application"]

_STATIC = {"viewer.js": "text/javascript", "viewer.css": "text/css", "icon.svg": "image/svg+xml"}
"""All the files that are served."""


def application(paths: Sequence[str], token: str) -> ASGIApp:
    """The viewer of these traces, under /token/. Nothing but these traces and the viewer's own files can be had."""
    server = _Server(ThreadPoolExecutor(1, "sightline-viewer-opens").submit(_opened, paths))
    routes = [
        Route("/", server.page),
        *(Route(f"/{name}", server.static) for name in _STATIC),
        Route("/{asked:path}", server.answer),
    ]
    app = Starlette(routes=[Route(f"/{token}{route.path}", route.endpoint) for route in routes])
    return Guard(app, token)


def _opened(paths: Sequence[str]) -> Callable[[str], Reply]:
    """The traces opened, and what answers from them."""
    from .desk import Desk  # imports torch: a second and more
    from .replies import reply

    desk = Desk(paths)
    return lambda asked: reply(desk, asked)


class _Server:
    """The endpoints. What is computed is computed one thing at a time, each on all cores, in the order it was asked."""

    def __init__(self, replies: Future[Callable[[str], Reply]]) -> None:
        self._replies = replies
        self._turn = anyio.Lock()

    async def page(self, request: Request) -> Response:
        return Response(PAGE, media_type="text/html")

    async def static(self, request: Request) -> Response:
        name = request.url.path.rsplit("/", 1)[1]
        content = files("sightline.viewer").joinpath("static", name).read_bytes()
        return Response(content, media_type=_STATIC[name])

    async def answer(self, request: Request) -> Response:
        """The answer in its turn; nothing where the page has gone on and doesn't wait any more."""
        asked = f"{request.path_params['asked']}?{request.url.query}"
        async with self._turn:
            if await request.is_disconnected():
                return Response(status_code=499)
            found = await run_sync(lambda: self._replies.result()(asked))
        headers = {"X-Sightline-Tile": found.shape} if found.shape else None
        return Response(found.body, found.status, headers, found.type)
