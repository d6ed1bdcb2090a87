"""What a report says of a trace is what the definition says of its matrices."""

from __future__ import annotations

import pytest
import torch

from report.worlds import a_trace
from sightline.errors import SpecError
from sightline.recording import Tokens
from sightline.report import Attention, report
from sightline.report._text import text_of
from tiny_model import DOCUMENT


def shown(**options: object) -> tuple[Attention, torch.Tensor]:
    """The report's attention, and every weight [heads, n, n]."""
    trace = a_trace(**options)  # type: ignore[arg-type]
    found = report(trace).attention
    assert found is not None
    return found, torch.cat([trace.matrix(layer).dense()[0] for layer in (0, 1)]).double()


def test_maps_are_the_mean_share_that_blocks_get() -> None:
    attention, p = shown()
    assert attention.maps is not None
    rows, cols = attention.maps.rows, attention.maps.cols
    for r, c in [(0, 0), (3, 1), (7, 7), (2, 6)]:
        exact = p[:, r * rows : (r + 1) * rows, c * cols : (c + 1) * cols].sum(2).mean(1)
        torch.testing.assert_close(attention.maps.shares[1:, r, c], exact, rtol=1e-5, atol=1e-8)
        torch.testing.assert_close(attention.maps.shares[0, r, c], exact.mean(), rtol=1e-5, atol=1e-8)


def test_maps_are_computed_from_what_was_kept_where_none_were_recorded() -> None:
    recorded, _ = shown()
    attention, p = shown(observe="entropy")
    assert attention.maps is not None
    assert attention.maps.shares.shape[0] == 1 + p.shape[0]
    assert attention.links == ()
    whole = attention.maps.shares.sum(2)
    torch.testing.assert_close(whole, torch.ones_like(whole), rtol=1e-5, atol=0)
    nothing = report(a_trace(keep="reductions", observe="entropy")).attention
    assert nothing is not None
    assert nothing.maps is None
    assert recorded.maps is not None


def test_links_are_the_largest_weights() -> None:
    attention, p = shown()
    assert attention.measure == "weight"
    assert [links.head for links in attention.links] == [None, *range(8)]
    for links in attention.links[1:]:
        exact = p[links.head].topk(4, dim=1).values
        torch.testing.assert_close(links.weights.double(), exact * (links.keys >= 0), rtol=1e-5, atol=1e-7)
        there = p[links.head].gather(1, links.keys.clamp(min=0))
        torch.testing.assert_close(links.weights.double(), there * (links.keys >= 0), rtol=1e-5, atol=1e-7)


def test_links_of_all_heads_are_the_mean_of_what_is_listed() -> None:
    attention, p = shown()
    listed = torch.zeros_like(p).scatter(2, p.topk(5, dim=2).indices, p.topk(5, dim=2).values).mean(0)
    together = attention.links[0]
    torch.testing.assert_close(
        together.weights.double(), listed.topk(8, dim=1).values, rtol=1e-5, atol=1e-8
    )  # fmt: skip
    assert bool((together.keys[10:] >= 0).all())


def test_without_queries_and_keys_links_have_places_and_no_weights() -> None:
    trace = a_trace(keep="reductions")
    attention = report(trace).attention
    assert attention is not None
    assert attention.measure == "places"
    assert report(trace).measures == ("places",)
    one = attention.links[1]
    assert one.weights[20].tolist() == pytest.approx([0.2] * 4)
    lists = torch.cat([trace[name][0]["top5"][0] for name in trace])  # [heads, n, 5]
    row = torch.zeros(lists.shape[1]).index_add(0, lists[:, 30].flatten(), torch.ones(40)) / 40
    torch.testing.assert_close(attention.links[0].weights[30], row.topk(8).values)


def test_tracks_are_means_and_shares() -> None:
    attention, p = shown()
    assert attention.entropy is not None
    assert attention.received is not None
    torch.testing.assert_close(attention.entropy, -torch.special.xlogy(p, p).sum(2).mean(0), rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(attention.received, p.sum((0, 1)) / p.sum(), rtol=1e-5, atol=1e-9)


def test_a_token_is_where_it_stands_and_steps_come_after_the_text() -> None:
    made = report(a_trace(new_tokens=3))
    text, tokens = made.produced.text, made.produced.levels["token"]
    assert "".join(text[s.start : s.end] for s in tokens) == text
    assert text.startswith(DOCUMENT[:40])
    assert made.attention is not None
    last = made.attention.links[0].keys[len(tokens) - 2]
    assert bool((last >= 0).any())
    # The last token written was never read: it has no row.
    assert made.attention.links[0].keys[-1].tolist() == [-1] * 8
    assert made.attention.maps is not None


def tokens_of(text: str | None, *strings: str) -> Tokens:
    return Tokens(torch.zeros(1, len(strings), dtype=torch.int64), (strings,), None if text is None else (text,))


def test_tokens_without_places_are_looked_for_in_the_text() -> None:
    found, outside = text_of(tokens_of("The old\nlight, ok", "The", " old", "light", ",", "ok", "</s>"))
    assert [found.text[s.start : s.end] for s in found.levels["token"]] == ["The", "old", "light", ",", "ok", ""]
    assert outside == {5: "</s>"}


@pytest.mark.parametrize("text", [None, "something else", "The old and more"])
def test_tokens_that_are_not_in_the_text_are_joined(text: str | None) -> None:
    found, outside = text_of(tokens_of(text, "The", " old"))
    assert found.text == "The old"
    assert found.levels["token"] == ((0, 3), (3, 7))
    assert outside == {}


def test_a_kind_that_was_not_recorded_and_a_trace_without_tokens_are_refused() -> None:
    trace = a_trace()
    with pytest.raises(SpecError, match="recorded was decoder"):
        report(trace, kind="cross")
    trace.tokens = None
    with pytest.raises(SpecError, match="holds no tokens"):
        report(trace)
