"""Who may ask the viewer: a page that it served itself, on this machine, under an address that nobody can guess.

A page of another site that is open in the same browser can send requests to this machine too. It knows no token; and
were it to learn one, its requests carry another Origin, or another Host where it comes by a name of its own that leads
here (DNS rebinding).
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping

from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

__all__ = ["HEADERS", "Guard", "new_token"]

HEADERS: Mapping[str, str] = {
    "Content-Security-Policy": "; ".join(
        (
            "default-src 'none'",
            "script-src 'self'",
            "style-src 'self'",
            "img-src 'self' blob:",
            "connect-src 'self'",
            "base-uri 'none'",
            "form-action 'none'",
            "frame-ancestors 'none'",
        )
    ),
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}
"""What every answer carries: scripts and styles of this server alone, no framing, nothing kept on disk."""


def new_token() -> str:
    """128 random bits, as they stand in an address."""
    return secrets.token_urlsafe(16)


class Guard:
    """Lets GET and HEAD through to `app` where Host, Origin and the address's first part are right."""

    def __init__(self, app: ASGIApp, token: str) -> None:
        self._app, self._token = app, token.encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        if scope["type"] != "http":
            raise RuntimeError("the viewer answers HTTP alone")

        async def sending(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [
                    *message.get("headers", []),
                    *((name.lower().encode(), value.encode()) for name, value in HEADERS.items()),
                ]
            await send(message)

        refusal = self._refusal(Request(scope))
        await (refusal or self._app)(scope, receive, sending)

    def _refusal(self, request: Request) -> Response | None:
        server = request.scope.get("server")
        port = server[1] if server else None
        hosts = {f"127.0.0.1:{port}", f"localhost:{port}"}
        if request.headers.getlist("host") not in [[host] for host in hosts]:
            return PlainTextResponse("This viewer answers to 127.0.0.1 and localhost alone.\n", 421)
        origin, site = request.headers.get("origin"), request.headers.get("sec-fetch-site", "none")
        if origin not in (None, *(f"http://{host}" for host in hosts)):
            return PlainTextResponse("Only the viewer's own pages may ask it.\n", 403)
        # Following a link from elsewhere is fine (the whole page goes there); being read by another page is not.
        if site not in ("none", "same-origin") and request.headers.get("sec-fetch-mode") != "navigate":
            return PlainTextResponse("Only the viewer's own pages may ask it.\n", 403)
        if request.method not in ("GET", "HEAD"):
            return PlainTextResponse("The viewer only shows.\n", 405, {"Allow": "GET, HEAD"})
        first = request.url.path.removeprefix("/").split("/", 1)[0]
        if not secrets.compare_digest(first.encode(), self._token):
            return PlainTextResponse("There is nothing here. Open the address that `sightline view` printed.\n", 404)
        return None
