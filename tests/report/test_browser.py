"""The page in a browser: what a reader does, and that every number on it is the library's."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import pytest

from report.conftest import Open
from report.worlds import EVIL, FERRY, PROMPT, SOURCE, a_generation, a_summary, a_trace, a_translation, an_answer
from sightline.evidence import owners
from sightline.recording import overview
from sightline.report import Level, Report, report

AXE = Path(__file__).parents[2] / "web/node_modules/axe-core/axe.min.js"


def number(text: str) -> float:
    """A number as it is shown, in its own unit: percents are shares."""
    plain = text.replace("−", "-").replace(",", "").split()[0]
    return float(plain.removesuffix("%")) / (100 if plain.endswith("%") else 1)


def same(text: str, exact: float) -> bool:
    """Whether what is shown is the number, to three significant digits."""
    unit = 10.0 ** (math.floor(math.log10(abs(exact))) - 2) if exact else 1e-12
    return abs(number(text) - exact) <= 0.5 * unit * 1.01


def piece(page: Any, text: str) -> Any:
    return page.locator("[role=option][data-piece]").get_by_text(text, exact=True).first


def sources(page: Any) -> list[tuple[str, dict[str, str]]]:
    """What the list of sources says: text, and each measure as it is shown."""
    return [
        (
            item.locator(".words").inner_text(),
            {b.get_attribute("data-measure"): b.inner_text() for b in item.locator("b[data-measure]").all()},
        )
        for item in page.locator("ol li").all()
    ]


def marked(page: Any) -> list[str]:
    """The marks in the documents, in order of their numbers, without those numbers."""
    found = page.locator("mark")
    texts = found.evaluate_all(
        "marks => marks.map(m => [+m.dataset.source, "
        "[...m.childNodes].filter(n => n.nodeType === 3).map(n => n.data).join('')])"
    )
    return [text for _, text in sorted(texts)]


def test_clicking_a_word_shows_its_sources_with_their_numbers(show: Open) -> None:
    page = show(report(a_translation(), SOURCE))
    piece(page, "O").click()
    assert [text for text, _ in sources(page)] == ["The", "cat"]
    assert all(same(said["weight"], w) for (_, said), w in zip(sources(page), (0.7123, 0.2), strict=True))
    assert marked(page) == ["The", "cat"]
    piece(page, "Sonha").click()
    assert marked(page) == ["dreams", "It"]
    assert "61.0%" in page.locator("mark").filter(has_text="dreams").inner_text()


def test_what_is_clicked_scrolls_into_view(show: Open) -> None:
    long = "Nothing of interest happens here.\n" * 300 + FERRY
    moved = an_answer(citations=tuple(_moved(c, len(long) - len(FERRY)) for c in an_answer().citations))
    page = show(report(moved, long))
    page.locator("[role=region]").evaluate("pane => pane.scrollTop = 0")
    assert not _seen(page, "mark >> nth=0")
    piece(page, "In eggs.").click()
    assert _seen(page, '[data-source="0"]')


def _moved(citation: Any, by: int) -> Any:
    return replace(citation, start=citation.start + by, end=citation.end + by)


def _seen(page: Any, selector: str) -> bool:
    box, pane = page.locator(selector).first.bounding_box(), page.locator("[role=region]").bounding_box()
    return pane["y"] <= box["y"] < pane["y"] + pane["height"]


def test_every_number_of_an_answer_is_the_librarys(show: Open) -> None:
    result = an_answer()
    page = show(report(result, {"ferry.md": FERRY}))
    shown = sources(page)
    assert [text for text, _ in shown] == [c.text for c in result.citations]
    for (_, said), citation in zip(shown, result.citations, strict=True):
        for name in ("drop", "direct_drop", "relevance"):
            assert same(said[name], getattr(citation, name)), name
    facts = dict(zip(page.locator("dt").all_inner_texts(), page.locator("dd").all_inner_texts(), strict=True))
    assert same(facts["time"], result.seconds)
    assert same(facts["drop without the document"], result.support.document_drop)
    assert same(facts["peak memory"], result.peak_bytes / 1e9)
    assert not same(facts["time"], result.seconds * 1.001 + 0.05)  # the comparison can fail


def test_the_slider_goes_from_words_to_paragraphs(show: Open) -> None:
    page = show(report(an_answer(), FERRY))
    slider = page.locator("input[type=range]")
    slider.focus()
    slider.press("Home")
    assert slider.get_attribute("aria-valuetext") == "word"
    piece(page, "Goats").click()
    assert marked(page) == ["Fares are paid in eggs.", "Goats travel free."]  # nothing finer was measured
    slider.press("End")
    assert slider.get_attribute("aria-valuetext") == "paragraph"
    # One paragraph holds both sentences: shares add up, of drops the largest counts.
    ((text, said),) = sources(page)
    assert text == "Fares are paid in eggs. Goats travel free."
    assert same(said["relevance"], 0.512345 + 0.0434)
    assert same(said["drop"], 5.43219)


def test_words_of_a_generation_are_the_mean_of_their_tokens(show: Open) -> None:
    page = show(report(a_generation(), PROMPT))
    piece(page, "Hello").click()
    found = dict(sources(page))
    assert same(found["hello"]["share"], (0.6 + 0.3) / 2)
    assert same(found["Hello"]["share"], 0.25 / 2)  # its first token, which is of this word
    page.get_by_role("button", name="token", exact=True).click()
    piece(page, "lo").click()
    assert same(dict(sources(page))["hello"]["share"], 0.3)


def test_a_sentence_that_is_not_supported_says_so(show: Open) -> None:
    page = show(report(a_summary(), FERRY))
    piece(page, "Fares are eggs.").click()
    assert page.get_by_text("Not supported").count() == 0
    piece(page, "Goats are free.").click()
    assert page.get_by_text("Not supported").count() == 1


def test_text_with_tags_is_text(show: Open) -> None:
    page = show(report(an_answer(text=f"It is {EVIL}.", citations=()), FERRY, title=EVIL))
    assert EVIL in page.locator("[role=region]").inner_text()
    assert page.locator("h1").inner_text() == EVIL
    assert page.evaluate("window.hurt") is None


def test_the_policy_stops_other_scripts(show: Open) -> None:
    page = show(report(an_answer(), FERRY))
    stopped: list[str] = []
    page.on("requestfailed", lambda request: stopped.append(f"{request.url} {request.failure}"))
    page.evaluate("""() => {
        const script = document.createElement("script");
        script.textContent = "window.hurt = 1";
        document.body.append(script);
        fetch("https://example.com").catch(() => {});
        document.body.append(Object.assign(new Image(), {src: "https://example.com/x.png"}));
    }""")
    page.wait_for_timeout(200)
    assert page.evaluate("window.hurt") is None
    said = [said for said in page.heard if "Content Security Policy" in said]
    assert all(any(what in each for each in said) for what in ("inline script", "connect", "img-src"))
    assert stopped == ["https://example.com/x.png csp"]


@pytest.fixture(scope="module")
def trace() -> Any:
    return a_trace()


@pytest.fixture(scope="module")
def traced(trace: Any) -> Report:
    return report(trace)


def test_nothing_is_asked_of_a_network_and_nothing_goes_wrong(show: Open, traced: Report) -> None:
    page = show(traced)
    for level in ("word", "sentence", "paragraph"):
        page.get_by_role("button", name=level, exact=True).click()
    page.locator(".thumb").nth(3).click()
    assert [said for said in page.heard if not said.startswith(("file://", "data:", "blob:"))] == []
    assert len([said for said in page.heard if said.startswith("file://")]) == 1


@pytest.mark.parametrize("level", ["word", "sentence", "paragraph"])
def test_parts_of_a_trace_have_the_mean_weight_of_their_tokens(
    level: Level, show: Open, trace: Any, traced: Report
) -> None:
    page = show(traced)
    page.locator("select").select_option(label="layer 1, head 2")
    if page.locator("input[type=checkbox]").count():
        page.locator("input[type=checkbox]").check()
    page.get_by_role("button", name=level, exact=True).click()
    text, spans, tokens = traced.produced.text, traced.produced.levels[level], traced.produced.levels["token"]
    owner = owners(tokens, spans)
    at = max(range(len(spans)), key=lambda i: (owner.count(i), i))
    page.locator(f'[data-piece="{at}"]').click()
    rows = [i for i, part in enumerate(owner) if part == at]
    assert len(rows) > {"word": 0, "sentence": 8, "paragraph": 20}[level]
    p = trace.matrix(1, head=2).dense()[0, 0].double()
    exact: dict[str, float] = {}
    for row in rows:
        top = p[row].topk(4)
        for weight, key in zip(top.values.tolist(), top.indices.tolist(), strict=True):
            part = owner[key]
            place = tokens[key] if part is None else spans[part]
            name = " ".join(text[slice(*place)].split())[:40] or "(blank)"
            exact[f"{name} {key if part is None else part}"] = exact.get(
                f"{name} {key if part is None else part}", 0.0
            ) + weight / len(rows)
    best = sorted(exact.items(), key=lambda item: -item[1])
    found = sources(page)
    assert len(found) == min(12, sum(weight > 0 for weight in exact.values()))
    for (said, numbers), (name, weight) in zip(found, best, strict=False):
        assert name.startswith(said[:40])
        assert same(numbers["weight"], weight)


def test_a_cell_of_the_map_is_read_with_the_keys(show: Open, trace: Any, traced: Report) -> None:
    page = show(traced)
    page.locator(".thumb").nth(5).click()  # layer 1, head 1
    assert traced.attention is not None
    assert traced.attention.maps is not None
    rows, cols = traced.attention.maps.rows, traced.attention.maps.cols
    page.locator(".map").focus()
    for key in ["ArrowDown"] * 3 + ["ArrowRight"] * 2:
        page.keyboard.press(key)
    exact = trace.matrix(1, head=1)[0, 0, 3 * rows : 4 * rows, 2 * cols : 3 * cols].sum(1).mean()
    assert (
        f"queries {3 * rows}–{4 * rows - 1} give keys {2 * cols}–{3 * cols - 1}" in page.locator("#cell").inner_text()
    )
    assert same(page.locator("[data-share]").inner_text(), float(exact))
    page.keyboard.press("Enter")
    assert page.locator(".region").count() >= 1
    entropy = traced.attention.heads[5].entropy
    assert entropy is not None
    assert same(page.locator(".facts b").first.inner_text(), entropy)


def test_numbers_of_a_head_are_those_of_the_overview(show: Open, trace: Any, traced: Report) -> None:
    page = show(traced)
    heads = overview.heads(trace)
    for at in (5, 2):
        head = heads[at]
        layer = int(head.module.split(".")[2])
        page.locator(f'.thumb[aria-label="layer {layer}, head {head.head}"]').click()
        exact = {
            "mean entropy": head.entropy,
            "largest receiver": head.sink,
            "local": head.local,
            "retrieval": head.retrieval,
        }
        facts = page.locator(".facts span").all()
        assert len(facts) == len(exact)
        for fact in facts:
            (value,) = [value for name, value in exact.items() if fact.inner_text().startswith(name)]
            assert value is not None
            assert same(fact.locator("b").inner_text(), value), fact.inner_text()


def test_the_entropy_track_is_read_with_the_keys(show: Open, traced: Report) -> None:
    page = show(traced)
    attention = traced.attention
    assert attention is not None
    assert attention.maps is not None
    assert attention.entropy is not None
    page.get_by_role("slider", name="mean entropy").focus()
    for _ in range(3):
        page.keyboard.press("ArrowRight")
    rows = attention.maps.rows
    shown = page.get_by_text(f"of tokens {2 * rows}–{3 * rows - 1}").locator("b").inner_text()
    assert same(shown, float(attention.entropy[2 * rows : 3 * rows].nanmean()))


def test_scores_of_excerpts_are_the_results(show: Open) -> None:
    result = a_summary(excerpts=True)
    page = show(report(result, FERRY))
    for excerpt in result.excerpts:
        piece(page, excerpt.text).click()
        assert same(dict(sources(page))[excerpt.text]["score"], excerpt.score)


def test_places_are_shown_where_there_are_no_weights(show: Open) -> None:
    made = report(a_trace(keep="reductions"))
    assert made.attention is not None
    page = show(made)
    page.locator("select").select_option(label="layer 0, head 1")
    page.get_by_role("button", name="token", exact=True).click()
    if page.locator("input[type=checkbox]").count():
        page.locator("input[type=checkbox]").check()
    page.locator('[data-piece="30"]').click()
    (links,) = [links for links in made.attention.links if links.head == 1]
    exact = [w for w in links.weights[30].tolist() if w > 0]
    found = sources(page)
    assert len(found) == len(exact) > 0
    assert all(set(said) == {"places"} and same(said["places"], 0.2) for _, said in found)


def test_tracks_are_read_with_the_keys(show: Open, traced: Report) -> None:
    page = show(traced)
    attention = traced.attention
    assert attention is not None
    assert attention.maps is not None
    assert attention.received is not None
    page.get_by_role("slider", name="share of all attention").focus()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowRight")
    cols = attention.maps.cols
    said = page.get_by_text(f"that goes to tokens {cols}–{2 * cols - 1}").locator("b").inner_text()
    assert same(said, float(attention.received[cols : 2 * cols].sum()))


def test_everything_can_be_done_with_the_keyboard(show: Open) -> None:
    page = show(report(a_translation(), SOURCE))
    page.locator("[role=option][tabindex='0']").first.focus()
    page.keyboard.press("End")
    assert page.locator("[role=option][aria-selected=true]").inner_text() == "Sonha"
    assert marked(page) == ["dreams", "It"]
    page.keyboard.press("Enter")
    assert page.locator("mark.chosen").inner_text().startswith("It")
    page.keyboard.press("ArrowLeft")
    assert page.locator("[role=option][aria-selected=true]").inner_text() == "dorme"
    page.keyboard.press("Home")
    assert page.locator("[role=option][aria-selected=true]").inner_text() == "O"
    assert page.evaluate("document.activeElement.getAttribute('role')") == "option"


def test_heads_are_chosen_with_the_keyboard(show: Open, traced: Report) -> None:
    page = show(traced)
    page.locator(".thumb[tabindex='0']").focus()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowDown")
    chosen = page.locator(".thumb[aria-selected=true]").get_attribute("aria-label")
    assert page.locator(".attention h3[aria-live]").inner_text().lower() == chosen


def test_strength_shows_without_colour(show: Open) -> None:
    page = show(report(an_answer(), FERRY))
    styles = page.locator("mark").evaluate_all("marks => marks.map(m => getComputedStyle(m).textDecorationStyle)")
    assert sorted(styles) == ["dashed", "double"]
    assert page.locator("mark sup").all_inner_texts() == ["1\u00a05.43 nats", "2\u00a00.988 nats"]


def test_light_and_dark(show: Open) -> None:
    paper = "getComputedStyle(document.body).backgroundColor"
    light, dark = show(report(an_answer(), FERRY)), show(report(an_answer(), FERRY), scheme="dark")
    assert light.evaluate(paper) != dark.evaluate(paper)
    light.get_by_role("button", name="Dark").click()
    assert light.evaluate(paper) == dark.evaluate(paper)


@pytest.mark.parametrize("label", ["Save the evidence", "Save the heads", "Save the map", "Save this track"])
def test_every_picture_is_saved_as_png_and_svg(label: str, show: Open, traced: Report, tmp_path: Path) -> None:
    page = show(traced)
    for kind, start in (("PNG", b"\x89PNG\r\n\x1a\n"), ("SVG", b"<svg xmlns=")):
        with page.expect_download() as waiting:
            page.get_by_title(f"{label} as {'a' if kind == 'PNG' else 'an'} {kind} picture").first.click()
        waiting.value.save_as(tmp_path / "picture")
        content = (tmp_path / "picture").read_bytes()
        assert content.startswith(start)
        assert len(content) > 2000
        assert waiting.value.suggested_filename.endswith(kind.lower())


def test_the_evidence_picture_has_the_numbers(show: Open, tmp_path: Path) -> None:
    page = show(report(an_answer(text=f"{EVIL} & eggs"), FERRY, title=EVIL))
    with page.expect_download() as waiting:
        page.get_by_title("Save the evidence as an SVG picture").click()
    waiting.value.save_as(tmp_path / "picture.svg")
    content = (tmp_path / "picture.svg").read_text("utf-8")
    assert "drop 5.43 nats" in content
    assert "<script" not in content
    assert EVIL in "".join(ET.fromstring(content).itertext())


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 390])
@pytest.mark.parametrize("kind", ["answer", "translation", "trace"])
def test_axe_finds_no_serious_problem(kind: str, width: int, scheme: str, show: Open, traced: Report) -> None:
    if not AXE.exists():
        pytest.skip("axe-core is not installed: run `npm ci` in web/")
    made = {"answer": lambda: report(an_answer(), FERRY), "translation": lambda: report(a_translation(), SOURCE)}
    page = show(made.get(kind, lambda: traced)(), width=width, scheme=scheme)
    page.evaluate(AXE.read_text("utf-8"))
    problems = page.evaluate("axe.run().then(r => r.violations.map(v => [v.impact, v.id, v.nodes.map(n => n.html)]))")
    assert [problem for problem in problems if problem[0] in ("serious", "critical")] == []


@pytest.mark.parametrize(("width", "height"), [(1280, 720), (390, 844), (1720, 1000)])
def test_it_fits(width: int, height: int, show: Open, traced: Report) -> None:
    page = show(traced, width=width, height=height)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    produced = page.locator("[role=listbox]").first.bounding_box()
    assert produced["height"] > 60
    if width >= 1280:
        documents = page.locator("[role=region]").bounding_box()
        assert documents["y"] + documents["height"] <= height
        assert documents["x"] >= produced["x"] + produced["width"]


def test_a_text_of_8000_tokens_answers_to_a_click(show: Open) -> None:
    document = FERRY + "The goat said nothing, and nobody asked it anything at all. " * 550
    result = an_answer()
    page = show(report(result, document))
    piece(page, "In eggs.").click()
    assert [text for text, _ in sources(page)] == [c.text for c in result.citations]
