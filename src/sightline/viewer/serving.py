"""From traces to an address, until it is interrupted."""

from __future__ import annotations

import socket
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path

from ..errors import InputError, Unsupported

__all__ = ["check", "serve"]


def check(paths: Sequence[str]) -> None:
    """Raise InputError where a file is not there, Unsupported where the packages that serve are not installed."""
    for path in paths:
        if not Path(path).expanduser().is_file():
            raise InputError(f"the trace {path!r} was to be shown; there is no such file. Name one that was recorded.")
    missing = [name for name in ("starlette", "uvicorn") if find_spec(name) is None]
    if missing:
        raise Unsupported(
            f"the viewer was asked for; it needs the package {' and '.join(missing)}, which is not installed. "
            'Install it with: pip install "sightline[view]"'
        )


def serve(paths: Sequence[str], ready: Callable[[str], None], *, port: int = 0) -> None:
    """Serve these traces on 127.0.0.1 until interrupted; `ready` gets the address once it answers.

    port 0 is any that is free. Raises InputError and Unsupported as `check` does, and InputError where the port is
    taken.
    """
    check(paths)
    import uvicorn

    from .security import new_token
    from .server import application

    token = new_token()
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind(("127.0.0.1", port))
    except OSError as error:
        listener.close()
        raise InputError(
            f"the viewer was to answer on port {port}; that failed: {error.strerror}. Choose another, or none."
        ) from error
    address = f"http://127.0.0.1:{listener.getsockname()[1]}/{token}/"

    class Server(uvicorn.Server):
        async def startup(self, sockets: list[socket.socket] | None = None) -> None:
            await super().startup(sockets=sockets)
            ready(address)

    config = uvicorn.Config(
        application(paths, token),
        log_config=None,
        log_level="critical",  # what goes wrong the page says; an answer that Ctrl-C cuts short is nothing to say
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_graceful_shutdown=1,
        ws="none",
    )
    Server(config).run(sockets=[listener])
