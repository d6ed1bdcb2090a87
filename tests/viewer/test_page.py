"""The page in a real browser: every number that it shows is the library's, and every view can be shared."""

from __future__ import annotations

import re
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sightline import Entropy, Received, Trace, Window
from viewer import worlds
from viewer.reading import middle, open_at, pixels, pointed_at, said, same, settled, wait, weighed

Serve = Callable[..., str]
AXE = Path(__file__).parents[2] / "web" / "node_modules" / "axe-core" / "axe.min.js"
LONG = 131_072


@pytest.fixture(scope="module")
def address(serving: Serve, small: Path) -> str:
    return serving(small)


@pytest.fixture(scope="module")
def long(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """131,072 tokens; each sees 256, so that recording it is quick. Pooled while recording to 4,096 × 4,096 blocks."""
    path = tmp_path_factory.mktemp("traces") / "long.safetensors"
    return worlds.recorded(path, LONG, layers=1, heads=1, d=32, mask=Window(255, 0), maps=32)


def test_zooming_to_a_single_weight_shows_its_number(page: Any, address: str, small: Path) -> None:
    open_at(page, address)
    x, y = middle(page)
    page.mouse.move(x - 40, y + 30)
    page.wait_for_selector("[data-testid=hover-mass]")
    for _ in range(12):
        page.mouse.wheel(0, -400)
        page.wait_for_timeout(30)
    settled(page)
    page.mouse.move(x - 39, y + 31)
    number = page.text_content("[data-testid=hover]")
    row, column = pointed_at(page)
    P = Trace.load(small).matrix(0, 0)
    assert float(P[0, 0, row, column]) > 0
    same(number, float(P[0, 0, row, column]))
    page.mouse.click(x - 39, y + 31)
    same(weighed(page), float(P[0, 0, row, column]))
    settled(page)
    assert (said(page)["query"], said(page)["key"]) == (str(row), str(column))


@pytest.mark.parametrize(("scale", "block"), [(0.6, 2), (0.9, 2), (5, 1)])
def test_cells_show_mass_mean_and_max(page: Any, address: str, small: Path, scale: float, block: int) -> None:
    open_at(page, address, f"at=0.1.1&x=300&y=340&scale={scale}")
    x, y = middle(page)
    page.mouse.move(x + 1, y + 1)
    P = Trace.load(small).matrix(1, 1)[0, 0, :, :]
    if block == 1:
        page.wait_for_selector("[data-testid=hover]")
        row, column = pointed_at(page)
        same(page.text_content("[data-testid=hover]"), float(P[row, column]))
        return
    page.wait_for_selector("[data-testid=hover-mass]")
    numbers = re.findall(r"queries (\d+)–(\d+), keys (\d+)–(\d+)", page.text_content(".hovered"))[0]
    i0, i1, j0, j1 = map(int, numbers)
    assert (i1 - i0 + 1, j1 - j0 + 1) == (block, block)
    cell = P[i0 : i1 + 1, j0 : j1 + 1]
    same(page.text_content("[data-testid=hover-mass]"), float(cell.sum()))
    same(page.text_content("[data-testid=hover-mean]"), float(cell.mean()))
    same(page.text_content("[data-testid=hover-max]"), float(cell.max()))


def test_a_word_shows_where_it_looked(page: Any, address: str, small: Path) -> None:
    open_at(page, address)
    page.locator(".panel").first.locator("[data-token='40']").click()
    page.wait_for_selector("[data-testid=source-weight]")
    row = Trace.load(small).matrix(0, 0)[0, 0, 40, :]
    top = row.topk(6)
    shown = page.locator("[data-testid=source-weight]").all_text_contents()
    for text, value in zip(shown, top.values.tolist(), strict=True):
        same(text, value)
    source = page.locator(".panel").nth(1).locator(f"[data-token='{int(top.indices[0])}']")
    source.wait_for()
    assert "lit" in (source.get_attribute("class") or "")
    assert source.get_attribute("aria-selected") == "true"
    weakest = page.locator(".panel").nth(1).locator("[data-token='41']")  # a key that the mask hides
    assert "lit" not in (weakest.get_attribute("class") or "")


def test_changing_head_and_layer(page: Any, address: str, small: Path) -> None:
    open_at(page, address, "at=0.0.0&query=200&key=180")
    before = pixels(page)
    same(weighed(page), float(Trace.load(small).matrix(0, 0)[0, 0, 200, 180]))
    page.get_by_label("The next head").click()
    settled(page)
    assert said(page)["at"] == "0.0.1.0.0"
    same(weighed(page), float(Trace.load(small).matrix(0, 1)[0, 0, 200, 180]))
    assert pixels(page) != before
    page.select_option("[data-testid=layer]", "1")
    settled(page)
    same(weighed(page), float(Trace.load(small).matrix(1, 1)[0, 0, 200, 180]))


def test_sinks_are_hidden_and_shown(page: Any, address: str) -> None:
    open_at(page, address, "at=0.0.0&query=200&key=180")
    page.wait_for_selector("[data-testid=sinks]:not(:disabled)")
    settled(page)
    before, asked = pixels(page), []
    first = page.locator("ol .at").first.text_content()
    assert first == "0"
    page.on("request", lambda request: asked.append(request.url))
    page.uncheck("[data-testid=sinks]")
    settled(page)
    assert said(page)["sinks"] == "hidden"
    assert pixels(page) != before
    assert page.locator("ol .at").first.text_content() != "0"
    page.check("[data-testid=sinks]")
    settled(page)
    assert pixels(page) == before
    page.get_by_text("Linear", exact=True).click()
    page.get_by_text("Max", exact=True).click()
    settled(page)
    assert pixels(page) != before
    assert not [url for url in asked if "/t/" in url], "a way of looking asked for numbers again"


def test_a_shared_address_shows_the_same(page: Any, address: str, browser: Any) -> None:
    open_at(page, address, "at=0.1.0&x=210&y=240&scale=9&measure=max&colours=linear&top=1&query=241&key=209&find=gulls")
    page.keyboard.press("s")
    settled(page)
    shared, picture = page.url, pixels(page)
    other = browser.new_context(viewport={"width": 1280, "height": 720}).new_page()
    open_at(other, *shared.split("#"))
    assert pixels(other) == picture
    assert said(other) == said(page)
    assert weighed(other) == weighed(page)
    other.context.close()


def test_a_picture_to_keep(page: Any, address: str) -> None:
    open_at(page, address)
    with page.expect_download() as waiting:
        page.click("[data-testid=png]")
    content = Path(waiting.value.path()).read_bytes()
    assert content[:8] == b"\x89PNG\r\n\x1a\n"
    width, height = struct.unpack(">II", content[16:24])
    assert width > 1200
    assert height > 800
    assert len(content) > 20_000, "an empty picture"
    assert waiting.value.suggested_filename == "small-model.layers.0.self_attn-head0.png"


def test_finding_words(page: Any, address: str) -> None:
    open_at(page, address)
    page.keyboard.press("/")
    page.keyboard.type("went inland")
    page.keyboard.press("Enter")
    wait(page, "document.querySelector('search .count')?.textContent.startsWith('1 of')")
    chosen = page.locator(".panel").first.locator("[aria-selected=true]")
    assert chosen.text_content() == " went"
    count = int(page.text_content("search .count").split(" of ")[1])
    assert count == sum(worlds.WORDS[i % 34 : i % 34 + 2] == ["went", "inland"] for i in range(700))


def test_markup_in_a_text_is_text(page: Any, address: str) -> None:
    open_at(page, address, "find=script")
    token = page.locator(".panel").first.locator("[data-token='32']")
    assert token.text_content() == " <script>document.title='broken'</script>"
    assert page.locator("#app script").count() == 0
    assert "broken" not in page.title()


@pytest.mark.parametrize("which", ["small", "cross"])
def test_the_tracks_of_what_is_chosen_are_told(
    which: str, page: Any, serving: Serve, request: pytest.FixtureRequest
) -> None:
    path: Path = request.getfixturevalue(which)  # recorded, and looked over by the viewer
    open_at(page, serving(path), "at=0.0.1&query=200&key=180")
    page.wait_for_selector("[data-testid=entropy]")
    P = Trace.load(path).matrix(0, 1)
    entropy, received = P.reduce({"it": Entropy()})["it"][0, 0], P.reduce({"it": Received()})["it"][0, 0]
    same(page.text_content("[data-testid=entropy]"), float(entropy[200]))
    same(page.text_content("[data-testid=received]"), float(received[180]))
    assert abs(float(entropy[201]) / float(entropy[200]) - 1) > 0.01  # another would be told apart
    assert abs(float(received[181]) / float(received[180]) - 1) > 0.01


def test_numbers_written_into_cells_are_the_weights(page: Any, address: str, small: Path) -> None:
    page.add_init_script(
        "window.painted = new Map(); const fill = CanvasRenderingContext2D.prototype.fillText;"
        "CanvasRenderingContext2D.prototype.fillText = function (text, x, y, ...more) {"
        "  if (this.font.startsWith('11px') && this.textAlign === 'center') window.painted.set(`${x} ${y}`, text);"
        "  return fill.call(this, text, x, y, ...more); };"
    )
    open_at(page, address, "at=0.1.1&x=300.5&y=340.5&scale=60")
    page.wait_for_timeout(300)
    painted = page.evaluate("[...window.painted].map(([at, text]) => [...at.split(' ').map(Number), text])")
    x, y = middle(page)
    box = page.locator(".field").bounding_box()
    P = Trace.load(small).matrix(1, 1)[0, 0, :, :]
    cells = 0
    for left, top, text in painted:
        column = 300 + (left - (x - box["x"])) / 60
        row = 340 + (top - (y - box["y"])) / 60
        if not (
            re.fullmatch(r"[\d.e-]+", text) and abs(row - round(row)) < 0.02 and abs(column - round(column)) < 0.02
        ):
            continue  # positions along the axes are no weights
        same(text, float(P[round(row), round(column)]))
        cells += 1
    assert cells > 40


def test_the_heads_in_order(page: Any, address: str, small: Path) -> None:
    from sightline.recording import overview

    open_at(page, address)
    page.click("[data-testid=grid]")
    page.wait_for_selector(".card canvas")
    heads = overview.heads(Trace.load(small))
    orders = {"entropy": 1, "flat": -1, "sink": -1, "local": -1, "retrieval": -1}
    for order, sign in orders.items():
        page.select_option("dialog select", order)
        key = "entropy" if order == "flat" else order
        wanted = sorted(heads, key=lambda head, key=key, sign=sign: sign * getattr(head, key))
        names = page.locator(".card .name").all_text_contents()
        assert names == [f"layers.{head.module.split('.')[2]} · {head.head}" for head in wanted]
        for shown, head in zip(page.locator(".card .number").all_text_contents(), wanted, strict=True):
            same(re.findall(r"[\d.e-]+", shown)[0], getattr(head, key) * (1 if key == "entropy" else 100))
    page.select_option("dialog select", "local")
    wanted = sorted(heads, key=lambda head: -head.local)
    page.locator(".card").nth(2).click()
    settled(page)
    assert said(page)["at"] == f"0.{wanted[2].module.split('.')[2]}.{wanted[2].head}.0.0"


def test_keys_alone_suffice(page: Any, address: str, small: Path) -> None:
    open_at(page, address, "at=0.0.0&x=100&y=120&scale=60&query=120&key=100")
    page.focus(".field")
    for key in ("ArrowDown", "ArrowRight", "ArrowRight", "]"):
        page.keyboard.press(key)
    settled(page)
    assert (said(page)["query"], said(page)["key"], said(page)["at"]) == ("121", "102", "0.0.1.0.0")
    same(weighed(page), float(Trace.load(small).matrix(0, 1)[0, 0, 121, 102]))
    page.keyboard.press("0")
    settled(page)
    assert "scale" not in said(page)


def test_several_traces_beside_one_another(page: Any, serving: Serve, small: Path, cross: Path, damaged: Path) -> None:
    open_at(page, serving(small, cross, damaged))
    wait(page, "document.querySelectorAll('.field canvas').length === 2")
    settled(page)
    assert said(page)["at"] == "0.0.0.0.0~1.0.0.0.0"
    page.get_by_role("button", name="Compare").click()
    page.wait_for_selector(".broken")
    assert "no whole safetensors file" in page.text_content(".broken")
    assert "damaged <b>.safetensors" in page.text_content(".broken h2")
    assert page.locator(".broken b").count() == 0


def test_a_malformed_trace_has_an_error_page(page: Any, serving: Serve, damaged: Path) -> None:
    page.goto(serving(damaged))
    page.wait_for_selector(".broken h2")  # what is being opened looks alike, without a heading
    assert "no whole safetensors file" in page.text_content(".broken")


def test_cross_attention_without_maps_or_tracks(page: Any, serving: Serve, cross: Path) -> None:
    open_at(page, serving(cross), "at=0.0.1&query=100&key=250")
    same(weighed(page), float(Trace.load(cross).matrix(0, 1)[0, 0, 100, 250]))
    assert page.locator("optgroup").get_attribute("label") == "Cross-attention"


def test_a_hundred_and_thirty_thousand_tokens(page: Any, serving: Serve, long: Path) -> None:
    open_at(page, serving(long))
    row, column = 98_765, 98_700
    P = Trace.load(long).matrix(0, 0)
    page.evaluate(f"location.hash = 'at=0.0.0&x={column}.5&y={row}.5&scale=60&query={row}&key={column}'")
    settled(page)
    same(weighed(page), float(P[0, 0, row, column]))
    x, y = middle(page)
    page.mouse.move(x, y)
    same(page.text_content("[data-testid=hover]"), float(P[0, 0, row, column]))
    page.focus(".field")
    page.keyboard.press("0")
    settled(page)
    for down in range(-8, 9):  # a band of one pixel holds all the weights
        page.mouse.move(x, y + down / 4)
        if page.text_content("[data-testid=hover-mass]") != "0":
            break
    numbers = re.findall(r"queries ([\d,]+)–([\d,]+), keys ([\d,]+)–([\d,]+)", page.text_content(".hovered"))[0]
    i0, i1, j0, j1 = (int(n.replace(",", "")) for n in numbers)
    cell = P[0, 0, i0 : i1 + 1, j0 : j1 + 1]
    assert float(cell.sum()) > 0
    same(page.text_content("[data-testid=hover-mass]"), float(cell.double().sum()))
    same(page.text_content("[data-testid=hover-max]"), float(cell.max()))
    page.locator(".panel").first.evaluate("panel => panel.querySelector('.text').scrollTop = 1e6")
    settled(page)
    assert page.locator("[data-token]").count() < 4_000, "a long text is in the page as a whole"


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_no_serious_barrier(browser: Any, address: str, scheme: str) -> None:
    if not AXE.exists():
        pytest.skip("axe-core is not installed: run npm ci in web/")
    page = browser.new_context(viewport={"width": 1280, "height": 720}, color_scheme=scheme).new_page()
    open_at(page, address, "query=200&key=180&find=gulls")
    page.evaluate(AXE.read_text(encoding="utf-8"))
    page.evaluate("() => { const b = document.createElement('img'); b.id = 'control'; document.body.append(b) }")
    found = violations(page)
    assert [rule for rule, _ in found] == ["image-alt"], found  # a barrier that was put there is found, and no other
    page.evaluate("document.getElementById('control').remove()")
    page.click("[data-testid=grid]")
    page.wait_for_selector(".card .number")
    assert violations(page) == []
    page.context.close()


def violations(page: Any) -> list[tuple[str, str]]:
    found = page.evaluate("axe.run({ resultTypes: ['violations'] })")["violations"]
    return [(v["id"], v["nodes"][0]["html"][:200]) for v in found if v["impact"] in ("serious", "critical")]


@pytest.mark.parametrize(("width", "height"), [(390, 844), (1280, 720)])
def test_it_fits(browser: Any, address: str, width: int, height: int) -> None:
    page = browser.new_context(viewport={"width": width, "height": height}, has_touch=width < 500).new_page()
    open_at(page, address, "query=200&key=180")
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    box = page.locator(".field").bounding_box()
    assert box["width"] >= 0.6 * width
    assert box["height"] >= 0.5 * height
    for track in ("entropy", "received"):
        number = page.locator(f"[data-testid={track}]").bounding_box()
        assert 0 <= number["x"] < number["x"] + number["width"] <= width
    if width < 500:
        page.locator(".panel").nth(1).scroll_into_view_if_needed()
        assert page.locator(".panel").nth(1).is_visible()
    page.context.close()
