"""The module that a notebook loads, in a real browser, with a model as anywidget hands it over."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from sightline import Trace
from sightline.notebook import explore
from viewer.reading import same

STUB = """async (given) => {
  const heard = {};
  const state = { ...given.state };
  window.model = {
    get: (name) => state[name],
    set: (name, value) => { state[name] = value; },
    save_changes: () => { window.saved = state.view; },
    on: (event, call) => { (heard[event] ??= []).push(call); },
    off: (event, call) => { heard[event] = (heard[event] ?? []).filter((other) => other !== call); },
    send: async (content) => {
      for (const [answer, body] of await window.kernel(content)) {
        // As a front end does: a view into a larger buffer.
        const bytes = Uint8Array.from(atob("AAAA" + body), (c) => c.charCodeAt(0));
        for (const call of heard["msg:custom"] ?? []) call(answer, [new DataView(bytes.buffer, 3)]);
      }
    },
  };
  const url = URL.createObjectURL(new Blob([given.esm], { type: "text/javascript" }));
  const { default: widget } = await import(url);
  window.gone = [0, 1].slice(0, given.views).map(() => {
    const el = document.body.appendChild(document.createElement("div"));
    return widget.render({ model: window.model, el });
  });
}"""


@pytest.fixture
def shown(browser: Any, told: Callable[[Any], Any]) -> Iterator[Callable[..., Any]]:
    """Show a widget in a page, as often as `views` says; its kernel is this process, or is `gone` and never answers."""
    pages: list[Any] = []

    def show(widget: Any, views: int = 1, gone: bool = False) -> Any:
        tell, sent = told(widget)

        def kernel(content: dict[str, Any]) -> list[Any]:
            sent.clear()
            return [] if gone else [[answer, b64encode(body).decode()] for answer, body in tell(**content)]

        page = browser.new_context(viewport={"width": 1280, "height": 800}).new_page()
        pages.append(page)
        page.heard = []
        page.on("pageerror", lambda error: page.heard.append(str(error)))
        page.on("console", lambda message: page.heard.append(message.text))
        page.on("request", lambda request: page.heard.append(request.url) if "http" in request.url[:4] else None)
        page.expose_function("kernel", kernel)
        page.set_content("<!doctype html><title>A notebook</title><p>before</p>")
        state = {name: getattr(widget, name) for name in ("_page", "view", "height")}
        page.evaluate(STUB, {"esm": widget._esm, "state": state, "views": views})
        page.frames[-1].wait_for_selector("text=Opening" if gone else ".field canvas", timeout=60_000)
        return page

    yield show
    for page in pages:
        assert page.heard == []
        page.context.close()


def weighed(frame: Any) -> str:
    for _ in range(200):
        found = frame.text_content("[data-testid=weight]") if frame.locator("[data-testid=weight]").count() else "…"
        if found != "…":
            return found
        frame.wait_for_timeout(50)
    raise AssertionError("the weight never came")


def test_a_single_weight_is_the_librarys(shown: Callable[..., Any], small: Path) -> None:
    widget = explore(small)
    widget.view = "at=0.1.0&query=200&key=180"
    page = shown(widget)
    frame = page.frames[-1]
    P = Trace.load(small).matrix(1, 0)[0, 0, :, :]
    assert float(P[200, 180]) > 0
    same(weighed(frame), float(P[200, 180]))
    for key in ("Enter", "ArrowDown"):  # as close as numbers can be read, then to the next query
        frame.locator(".field").press(key)
    frame.locator("[data-testid=readout]").get_by_text("query 201").wait_for()
    same(weighed(frame), float(P[201, 180]))
    page.wait_for_timeout(600)
    box = frame.locator(".field").bounding_box()
    assert box["height"] > 300
    page.mouse.move(box["x"] + 114 + (box["width"] - 115) / 2, box["y"] + 60 + (box["height"] - 61) / 2)
    same(frame.text_content("[data-testid=hover]"), float(P[200, 180]))
    saved = page.evaluate("window.saved")
    assert "at=0.1.0" in saved
    assert "query=201" in saved


def test_markup_in_a_text_is_text_and_the_frame_reaches_nothing_outside(shown: Callable[..., Any], small: Path) -> None:
    page = shown(explore(small))
    frame = page.frames[-1]
    token = frame.locator(".panel").first.locator("[data-token='32']")
    token.wait_for()
    assert token.text_content() == " <script>document.title='broken'</script>"
    assert frame.locator("#app script").count() == 0
    assert page.title() == "A notebook"
    assert page.locator("iframe").get_attribute("sandbox") == "allow-scripts allow-downloads"
    reached = "() => { try { return window.parent.document.title } catch { return 'nothing' } }"
    assert frame.evaluate(reached) == "nothing"


def test_two_views_of_a_widget_hear_their_own_answers(shown: Callable[..., Any], small: Path) -> None:
    widget = explore(small)
    widget.view = "at=0.0.1&query=300&key=280"
    page = shown(widget, views=2)
    P = Trace.load(small).matrix(0, 1)
    assert len(page.frames) == 3
    for frame in page.frames[1:]:
        frame.wait_for_selector(".field canvas")
        same(weighed(frame), float(P[0, 0, 300, 280]))
    page.evaluate("window.gone.forEach((gone) => gone())")
    assert page.locator("iframe").count() == 0


def test_a_kernel_that_never_answers_is_told(shown: Callable[..., Any], small: Path) -> None:
    frame = shown(explore(small), gone=True).frames[-1]
    assert not frame.get_by_text("start it again").count()
    frame.get_by_text("start it again").wait_for(timeout=30_000)


def test_a_file_that_cannot_be_shown_says_why(shown: Callable[..., Any], small: Path, tmp_path: Path) -> None:
    (tmp_path / "bent <b>").write_bytes(b"\x20\0\0\0\0\0\0\0" + b"{" * 40)
    frame = shown(explore(small, tmp_path / "bent <b>")).frames[-1]
    frame.wait_for_selector(".broken")
    assert "no whole safetensors file" in frame.text_content(".broken")
    assert frame.locator(".broken b").count() == 0
