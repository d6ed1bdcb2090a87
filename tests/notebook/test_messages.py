"""A map in a notebook answers what its page asks: a message in, the library's numbers out."""

from __future__ import annotations

import json
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
import torch

import sightline.notebook
from sightline import SpecError, Trace, Unsupported
from sightline.notebook import explore
from sightline.viewer.head import shrunk
from viewer import worlds

Told = Callable[[Any], Any]


def numbers(body: bytes) -> torch.Tensor:
    return torch.frombuffer(bytearray(body), dtype=torch.float32)


@pytest.mark.parametrize("loaded", [True, False])
def test_a_tile_is_the_librarys_weights(loaded: bool, small: Path, told: Told) -> None:
    tell, _ = told(explore(Trace.load(small) if loaded else small))
    P = Trace.load(small).matrix(1, 0)[0, 0, :, :]
    ((content, body),) = tell(id="7 1", asked="t/0/1/0/2/1/2?call=0&batch=0")
    assert content == {"id": "7 1", "status": 200, "shape": "188 256 188"}
    torch.testing.assert_close(numbers(body).view(188, 256), P[512:700, 256:512], rtol=1e-4, atol=1e-7)
    content, body = tell(id="7 2", asked="t/0/1/0/0/0/0")[-1]
    assert content == {"id": "7 2", "status": 200, "shape": "175 175 175"}
    mass, largest = numbers(body).view(2, 175, 175)
    torch.testing.assert_close(mass, shrunk(P, 4, torch.sum), rtol=1e-4, atol=1e-7)
    torch.testing.assert_close(largest, shrunk(P, 4, torch.amax), rtol=1e-4, atol=1e-7)
    other = numbers(tell(id="7 3", asked="t/0/0/1/0/0/0")[-1][1])
    assert not torch.allclose(other, numbers(body), rtol=1e-2)


def test_rows_tracks_and_text(small: Path, told: Told) -> None:
    tell, _ = told(explore(small))
    P = Trace.load(small).matrix(0, 1)[0, 0, :, :]
    torch.testing.assert_close(numbers(tell(asked="t/0/0/1/row/40")[-1][1]), P[40], rtol=1e-4, atol=1e-7)
    torch.testing.assert_close(numbers(tell(asked="t/0/0/1/column/9")[-1][1]), P[:, 9], rtol=1e-4, atol=1e-7)
    received, entropy = numbers(tell(asked="t/0/0/1/tracks")[-1][1]).view(2, 700)
    torch.testing.assert_close(received, P.sum(0), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(entropy, -torch.special.xlogy(P, P).sum(1), rtol=1e-4, atol=1e-5)
    assert json.loads(tell(asked="t/0/text/tokens")[-1][1])[32] == " <script>document.title='broken'</script>"
    assert json.loads(tell(asked="traces")[-1][1])[0]["tokens"] == 700


@pytest.mark.parametrize(
    ("asked", "status", "says"),
    [
        ("t/0/9/0/0/0/0", 422, "module 9"),
        ("t/0/0/0/row/700", 422, "row 700"),
        ("t/0/0/0/row/0?batch=x", 422, "entry of the batch -1"),
        ("t/0/0/0/row/-1", 404, "nothing here"),
        ("../pyproject.toml", 404, "nothing here"),
        (None, 404, "nothing here"),
    ],
)
def test_what_is_not_there_is_said(asked: str | None, status: int, says: str, small: Path, told: Told) -> None:
    tell, _ = told(explore(small))
    ((content, body),) = tell(id="1", asked=asked)
    assert content["status"] == status
    assert says in body.decode()


def test_a_defect_is_told_and_the_next_is_answered(
    small: Path, told: Told, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    tell, _ = told(explore(small))

    def fails(*_: Any) -> None:
        raise ZeroDivisionError("by a defect")

    with monkeypatch.context() as broken:
        broken.setattr("sightline.viewer.desk.Desk.row", fails)
        content, body = tell(id="1", asked="t/0/0/0/row/3")[-1]
    assert (content["status"], body) == (500, b"Unexpected ZeroDivisionError: by a defect")
    assert "in fails" in caplog.text  # the traceback
    assert tell(id="2", asked="t/0/0/0/row/3")[-1][0]["status"] == 200


def test_several_traces_and_one_that_is_damaged(small: Path, tmp_path: Path, told: Told) -> None:
    (tmp_path / "bent").write_bytes(b"\x20\0\0\0\0\0\0\0" + b"{" * 40)
    widget = explore(small, tmp_path / "bent", Trace.load(small), height=400)
    tell, _ = told(widget)
    first, bent, third = json.loads(tell(asked="traces")[-1][1])
    assert (first["name"], third["name"]) == ("small.safetensors", "a synthetic model")
    assert "no whole safetensors file" in bent["error"]
    assert widget.height == 400
    assert repr(widget) == "<Explorer of 3 traces>"


def test_what_is_shown_where_widgets_do_not_run(small: Path, told: Told) -> None:
    widget = explore(small)
    told(widget)
    bundle = widget._repr_mimebundle_()
    assert bundle is not None
    assert "application/vnd.jupyter.widget-view+json" in bundle[0]
    assert bundle[0]["text/html"] == Trace.load(small)._repr_html_()
    tags: list[str] = []

    class Tags(HTMLParser):
        def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
            tags.append(tag)

    Tags().feed(bundle[0]["text/html"])
    assert "img" not in tags or "script" not in tags
    assert "&lt;script&gt;" in bundle[0]["text/html"]
    assert "script" not in tags


def test_a_trace_made_in_this_process_is_shown_as_it_is(told: Told, tmp_path: Path) -> None:
    trace = worlds.loaded(worlds.recorded(tmp_path / "t", 60, layers=1, heads=1))
    tell, _ = told(explore(trace))
    (tmp_path / "t").unlink()
    body = tell(asked="t/0/0/0/row/5")[-1][1]
    torch.testing.assert_close(numbers(body), trace.matrix(0, 0)[0, 0, 5, :], rtol=1e-4, atol=1e-7)


def test_what_is_wrong_is_said(small: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SpecError, match="no trace was given"):
        explore()
    monkeypatch.setattr(sightline.notebook, "find_spec", lambda name: None)
    with pytest.raises(Unsupported, match=r'pip install "sightline\[notebook\]"'):
        explore(small)
