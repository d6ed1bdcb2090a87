"""Who may ask the viewer what."""

from __future__ import annotations

import http.client
import os
import re
import signal
import socket
import subprocess
import sys
import urllib.parse
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from processes import started
from sightline import Trace
from sightline.cli._run import run

pytest.importorskip("uvicorn", reason="the viewer's packages are not installed: pip install sightline[view]")

Serve = Callable[..., str]


class Answer:
    def __init__(self, response: http.client.HTTPResponse) -> None:
        self.status, self.body = response.status, response.read()
        self.headers = {name.lower(): value for name, value in response.getheaders()}

    @property
    def text(self) -> str:
        return self.body.decode()


def ask(address: str, path: str = "", method: str = "GET", **headers: str) -> Answer:
    parts = urllib.parse.urlsplit(address)
    connection = http.client.HTTPConnection("127.0.0.1", parts.port, timeout=60)
    try:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        connection.request(method, path if path.startswith("/") else parts.path + path, headers=named)
        return Answer(connection.getresponse())
    finally:
        connection.close()


@pytest.fixture(scope="module")
def address(serving: Serve, small: Path, damaged: Path) -> str:
    return serving(small, damaged)


def test_the_page_and_its_files(address: str) -> None:
    page = ask(address)
    assert page.status == 200
    assert page.headers["content-type"].startswith("text/html")
    for name in re.findall(r'(?:src|href)="([^"]+)"', page.text):
        assert ask(address, name).status == 200, name


def test_the_page_is_served_before_torch_is_imported(small: Path) -> None:
    program = (
        "import sys, http.client, threading, urllib.parse\n"
        "import sightline.viewer.server as server\n"
        "from sightline.viewer import serve\n"
        "go = threading.Event()\n"
        "opened = server._opened\n"
        "server._opened = lambda paths: (go.wait(60), opened(paths))[1]\n"  # as if the import took long
        "found = []\n"
        "def ready(address):\n"
        "    threading.Thread(target=ask, args=(urllib.parse.urlsplit(address),), daemon=True).start()\n"
        "def get(parts, name):\n"
        "    c = http.client.HTTPConnection('127.0.0.1', parts.port, timeout=60)\n"
        "    c.request('GET', parts.path + name)\n"
        "    return c.getresponse().status\n"
        "def ask(parts):\n"
        "    import os, signal\n"
        "    found.append([get(parts, ''), get(parts, 'viewer.js'), 'torch' in sys.modules])\n"
        "    go.set()\n"
        "    found.append([get(parts, 'traces'), 'torch' in sys.modules])\n"
        "    print(found, flush=True)\n"
        "    os.kill(os.getpid(), signal.SIGINT)\n"
        f"try: serve([{str(small)!r}], ready)\n"
        "except KeyboardInterrupt: pass\n"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=120, env=environment, check=False
    )
    assert done.stdout.strip() == "[[200, 200, False], [200, True]]", done.stderr


def test_numbers_over_http(address: str, small: Path) -> None:
    answer = ask(address, "t/0/1/0/row/123")
    assert answer.status == 200
    found = torch.frombuffer(bytearray(answer.body), dtype=torch.float32)
    torch.testing.assert_close(found, Trace.load(small).matrix(1, 0)[0, 0, 123, :], rtol=1e-4, atol=1e-7)
    tile = ask(address, "t/0/0/1/2/1/2")
    rows, columns, known = map(int, tile.headers["x-sightline-tile"].split())
    assert (rows, columns, known) == (700 - 512, 256, 700 - 512)
    assert len(tile.body) == rows * columns * 4


def test_every_answer_carries_the_policy(address: str) -> None:
    for answer in (ask(address), ask(address, "traces"), ask(address, "/"), ask(address, "", "POST")):
        policy = answer.headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
        assert "frame-ancestors 'none'" in policy
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["cross-origin-resource-policy"] == "same-origin"
        assert answer.headers["referrer-policy"] == "no-referrer"


def test_the_token_is_needed_and_is_random(address: str, serving: Serve, small: Path) -> None:
    token = urllib.parse.urlsplit(address).path.strip("/")
    assert len(token) >= 22
    assert ask(address, "traces").status == 200
    for path in ("/", "/traces", "/x/traces", f"/{token[:-1]}/traces", f"/{token}x/traces"):
        assert ask(address, path).status == 404, path
    assert serving(small).rsplit("/", 2)[1] != token


@pytest.mark.parametrize("host", ["evil.example", "evil.example:PORT", "127.0.0.1", "127.0.0.1:1", "[::1]:PORT", ""])
def test_other_hosts_are_refused(address: str, host: str) -> None:
    port = str(urllib.parse.urlsplit(address).port)
    assert ask(address, "traces", Host=f"localhost:{port}").status == 200
    assert ask(address, "traces", Host=host.replace("PORT", port)).status == 421


def test_other_origins_and_sites_are_refused(address: str) -> None:
    own = address.split("/" + urllib.parse.urlsplit(address).path.strip("/"))[0]
    assert ask(address, "traces", Origin=own, Sec_Fetch_Site="same-origin").status == 200
    for origin in ("http://evil.example", "null", own.replace("http:", "https:"), own + "0"):
        assert ask(address, "traces", Origin=origin).status == 403, origin
    for site in ("cross-site", "same-site"):
        assert ask(address, "traces", Sec_Fetch_Site=site, Sec_Fetch_Mode="no-cors").status == 403
        assert ask(address, "", Sec_Fetch_Site=site, Sec_Fetch_Mode="navigate").status == 200


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS"])
def test_it_only_shows(address: str, method: str) -> None:
    assert ask(address, "traces", method).status == 405


@pytest.mark.parametrize(
    "path",
    [
        "../../../etc/passwd", "..%2f..%2fetc%2fpasswd", "static/viewer.js", "%2e%2e/server.py",
        "viewer.js/../server.py", "t/0/text/..%2f..%2fpyproject.toml", "/etc/passwd",
    ],
)  # fmt: skip
def test_no_other_file_can_be_had(address: str, path: str) -> None:
    answer = ask(address, path)
    assert answer.status in (404, 422)
    assert "root:" not in answer.text
    assert "import" not in answer.text


@pytest.mark.parametrize(
    ("path", "says"),
    [
        ("t/9/heads", "trace 9"),
        ("t/0/0/7/0/0/0", "head 7"),
        ("t/0/0/0/0/5/0", "tile 5, 0"),
        ("t/0/0/0/row/700", "row 700"),
        ("t/0/0/0/0/0/0?batch=x", "entry of the batch"),
        ("t/1/heads", "no whole safetensors file"),
        ("t/1/0/0/0/0/0", "no whole safetensors file"),
    ],
)
def test_what_is_not_there_is_said(address: str, path: str, says: str) -> None:
    answer = ask(address, path)
    assert answer.status == 422
    assert answer.headers["content-type"].startswith("text/plain")
    assert says in answer.text


def test_a_trace_whose_numbers_are_damaged_is_told(serving: Serve, small: Path, tmp_path: Path) -> None:
    bent = bytearray(small.read_bytes())
    bent[-40_000:-39_000] = bytes(1_000)
    (tmp_path / "bent").write_bytes(bent)
    address = serving(tmp_path / "bent")
    said = [ask(address, f"t/0/{layer}/{head}/0/0/0") for layer in range(2) for head in range(2)]
    assert any(answer.status == 422 and "checksum differs" in answer.text for answer in said)


def test_the_command(small: Path) -> None:
    command = [sys.executable, "-m", "sightline.cli", "view", str(small), "--no-browser"]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    with started(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment) as process:
        assert process.stdout is not None
        line = process.stdout.readline()
        address = line.removeprefix("Open ").strip()
        assert re.fullmatch(r"http://127\.0\.0\.1:\d+/[\w-]{22,}/", address), line
        assert ask(address, "traces").status == 200
        port = urllib.parse.urlsplit(address).port
        assert port is not None
        for other in {info[4][0] for info in socket.getaddrinfo(socket.gethostname(), None, socket.AF_INET)}:
            if not str(other).startswith("127."):
                with pytest.raises(OSError), socket.create_connection((str(other), port), 2):
                    pass
        process.send_signal(signal.SIGINT)
        assert process.wait(20) == 130
        assert "Traceback" not in process.communicate()[1]


def test_what_is_wrong_is_said(small: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    assert run(["view", "missing", "--no-browser"]) == 2
    assert "there is no such file" in capfd.readouterr().err
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        assert run(["view", str(small), "--no-browser", "--port", str(taken.getsockname()[1])]) == 2
    assert "Choose another" in capfd.readouterr().err
    monkeypatch.setattr("sightline.viewer.serving.find_spec", lambda name: None)
    assert run(["view", str(small), "--no-browser"]) == 2
    assert 'pip install "sightline[view]"' in capfd.readouterr().err
