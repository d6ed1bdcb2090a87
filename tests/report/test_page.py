"""The page: one file, whose texts are data and whose policy lets nothing in."""

from __future__ import annotations

import json
import re
from base64 import b64encode
from dataclasses import replace
from hashlib import sha256
from html.parser import HTMLParser
from pathlib import Path

import pytest
import torch

import sightline as sl
from report.worlds import EVIL, FERRY, PROMPT, SOURCE, a_generation, a_summary, a_trace, a_translation, an_answer
from sightline.report import Attention, Fact, Head, Links, Maps, Report, Text, report
from sightline.report.adapters.trace import fitting
from sightline.report.page import LIMIT
from sightline.sentences import Span


class Tags(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.inside: dict[str, str] = {}
        self.last = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs
        self.last = dict(attrs).get("type") or tag

    def handle_endtag(self, tag: str) -> None:
        self.last = ""

    def handle_data(self, data: str) -> None:
        self.inside[self.last] = self.inside.get(self.last, "") + data


def parsed(html: str) -> Tags:
    found = Tags()
    found.feed(html)
    return found


@pytest.fixture(scope="module")
def page() -> str:
    return report(an_answer(), FERRY, title=f"Why {EVIL}?").html()


def test_texts_with_tags_are_data(page: str) -> None:
    found = parsed(page)
    assert found.tags.count("script") == 2
    assert EVIL not in page
    data = json.loads(found.inside["application/json"])
    assert EVIL in data["documents"][0]["text"]
    assert data["title"] == f"Why {EVIL}?"
    assert found.inside["title"] == f"Why {EVIL}? – Sightline"


def test_the_policy_allows_these_scripts_and_styles_alone(page: str) -> None:
    found = parsed(page)
    (policy,) = [v for k, v in found.attributes if k == "content" and v and "default-src" in v]
    for kind, text in (("script", found.inside["module"]), ("style", found.inside["style"])):
        digest = b64encode(sha256(text.encode()).digest()).decode()
        assert f"{kind}-src 'sha256-{digest}'" in policy
    assert policy.startswith("default-src 'none'")
    assert "unsafe" not in policy
    assert "http" not in policy


def test_nothing_is_loaded_from_elsewhere(page: str) -> None:
    found = parsed(page)
    assert not [k for k, _ in found.attributes if k in ("src", "href", "srcset", "action")]
    assert not re.search(r"@import|url\(\s*['\"]?(?!data:)", found.inside["style"])


def test_a_page_is_saved_whole_or_not_at_all(tmp_path: Path) -> None:
    made = report(an_answer(), FERRY)
    made.save(tmp_path / "out.html")
    assert (tmp_path / "out.html").read_text("utf-8") == made.html()
    with pytest.raises(sl.InputError, match="failed"):
        made.save(tmp_path / "no" / "out.html")


def test_a_notebook_shows_the_page_in_a_frame_that_cannot_reach_it(page: str) -> None:
    html = report(an_answer(), FERRY, title=f"Why {EVIL}?")._repr_html_()
    found = parsed(html)
    assert found.tags == ["iframe"]
    attributes = dict(found.attributes)
    assert attributes["srcdoc"] == page
    assert "allow-same-origin" not in (attributes["sandbox"] or "")


def test_a_document_of_8000_tokens_stays_small() -> None:
    # 32,000 characters are about 8,000 tokens of English; a translation says most of each word.
    line, times = a_translation(), 32_000 // len(SOURCE)
    source, target = "\n".join([SOURCE] * times), "\n".join([line.text] * times)

    def moved(i: int) -> list[object]:
        a, b = i * (len(line.text) + 1), i * (len(SOURCE) + 1)
        return [
            replace(
                s,
                start=s.start + a,
                end=s.end + a,
                sources=tuple(replace(x, start=x.start + b, end=x.end + b) for x in s.sources),
                words=tuple(
                    replace(
                        w,
                        start=w.start + a,
                        end=w.end + a,
                        sources=tuple(replace(x, start=x.start + b, end=x.end + b) for x in w.sources),
                    )
                    for w in s.words
                ),
            )
            for s in line.sentences
        ]

    whole = replace(line, text=target, sentences=tuple(s for i in range(times) for s in moved(i)))
    made = report(whole, source)
    assert len(made.units) == 6 * times
    assert len(made.html().encode()) < LIMIT


def test_a_trace_of_8000_tokens_and_270_heads_stays_small() -> None:
    n, heads = 8192, 270
    torch.manual_seed(0)
    shares = torch.rand(1 + heads, 64, 64).pow(4).tril()  # nothing to be gained by deflating what is random
    keys = (torch.rand(n, 8) * torch.arange(1, n + 1)[:, None]).long()

    class Endless:
        def by_head(self, k: int) -> object:
            return (Links(i, keys[:, :k], torch.rand(n, k)) for i in range(40))

    known = tuple(Head(f"m.{i // 9}", i // 9, i % 9, 1.5, 0.3, 0.5, 0.1) for i in range(heads))
    links = fitting(Endless(), known[:40], Links(None, keys, torch.rand(n, 8)))  # type: ignore[arg-type]
    assert 1 < len(links) < 41
    text = "abc " * n
    words = tuple(Span(4 * i, 4 * i + 3) for i in range(n))
    both = Text(text, {"token": tuple(Span(4 * i, 4 * i + 4) for i in range(n)), "word": words, "paragraph": words})
    attention = Attention(
        "decoder", known, Maps(128, 128, shares), links, "weight", torch.rand(n), torch.rand(n), (0,),
        {"queries": {}, "keys": {}}, None,
    )  # fmt: skip
    made = Report("trace", "long", both, (both,), (), ("weight",), (Fact("model", "m"),), attention)
    assert len(made.html().encode()) < LIMIT


@pytest.mark.parametrize(
    "value",
    [
        an_answer(text=EVIL),
        replace(a_summary(), sentences=(replace(a_summary().sentences[0], text=EVIL),)),
        a_summary(excerpts=True),
        replace(a_translation(), sentences=(replace(a_translation().sentences[0], text=EVIL),)),
        replace(a_generation(), text=EVIL),
    ],
    ids=lambda value: type(value).__name__,
)
def test_results_show_themselves_in_a_notebook_and_run_nothing(value: sl.Trace) -> None:
    html = value._repr_html_()
    assert "script" not in parsed(html).tags
    if type(value).__name__ != "Summary" or value.sentences:  # type: ignore[attr-defined]
        assert "&lt;script&gt;" in html
    assert "a model · 12.3 s · peak memory 1.23 GB" in html


def test_numbers_in_a_notebook_are_the_results() -> None:
    html = an_answer()._repr_html_()
    assert "drop 5.43 nats" in html
    assert "relevance 0.512" in html


def test_a_trace_and_a_matrix_show_a_picture_and_say_what_it_is() -> None:
    for value in (a_trace(), sl.AttentionMatrix(torch.randn(1, 2, 100, 8), torch.randn(1, 2, 100, 8))):
        html = value._repr_html_()
        (source,) = [v for k, v in parsed(html).attributes if k == "src"]
        assert source is not None
        assert source.startswith("data:image/png;base64,")
        assert "queries down" in html
    assert "<img" not in sl.AttentionMatrix(torch.zeros(1, 1, 2**16, 1), torch.zeros(1, 1, 2**16, 1))._repr_html_()


def test_prompt_is_the_document_of_a_generation() -> None:
    assert PROMPT in report(a_generation(), PROMPT).html()
