from __future__ import annotations

import secrets
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from viewer import worlds


@pytest.fixture(scope="session")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """700 tokens, two layers of two heads, maps of 32 × 32 blocks."""
    return worlds.recorded(tmp_path_factory.mktemp("traces") / "small.safetensors", 700, maps=32)


@pytest.fixture(scope="session")
def cross(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """300 queries over 420 keys of another text, without maps and tracks."""
    path = tmp_path_factory.mktemp("traces") / "cross.safetensors"
    return worlds.recorded(path, 300, 420, kind="cross", layers=1, tracks=False)


@pytest.fixture(scope="session")
def damaged(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file that is no trace."""
    path = tmp_path_factory.mktemp("traces") / "damaged <b>.safetensors"
    path.write_bytes(b"\x20\0\0\0\0\0\0\0" + b"{" * 40)
    return path


@pytest.fixture(scope="session")
def serving() -> Iterator[Callable[..., str]]:
    """Serves traces as `sightline view` does, in a thread; gives the address."""
    pytest.importorskip("starlette", reason="the viewer's packages are not installed: pip install sightline[view]")
    uvicorn = pytest.importorskip("uvicorn", reason="the viewer's packages are not installed")
    from sightline.viewer.server import application

    running: list[tuple[Any, threading.Thread]] = []

    def serve(*paths: Path) -> str:
        token = secrets.token_urlsafe(16)
        listener = socket.socket()
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
        app = application([str(path) for path in paths], token)
        server = uvicorn.Server(uvicorn.Config(app, log_config=None, access_log=False, ws="none"))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
        thread.start()
        stop = time.monotonic() + 30
        while not server.started:
            assert time.monotonic() < stop, "the server did not start"
            time.sleep(0.01)
        running.append((server, thread))
        return f"http://127.0.0.1:{port}/{token}/"

    yield serve
    for server, _ in running:
        server.should_exit = True
    for _, thread in running:
        thread.join(10)


@pytest.fixture
def page(browser: Any) -> Iterator[Any]:
    """A page on which nothing may go wrong unseen."""
    context = browser.new_context(viewport={"width": 1280, "height": 720}, accept_downloads=True)
    opened, wrong = context.new_page(), []
    opened.on("pageerror", lambda error: wrong.append(str(error)))
    opened.on("console", lambda said: wrong.append(said.text) if said.type in ("error", "warning") else None)
    opened.set_default_timeout(30_000)
    opened.wrong = wrong
    yield opened
    context.close()
    assert not wrong
