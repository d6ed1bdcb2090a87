"""How results show themselves in a notebook: what was written, and what it rests on, with the numbers."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from .. import _html

if TYPE_CHECKING:
    from .answering import Answer
    from .citation import Citation
    from .generation import Generation
    from .summary import Summary
    from .translation import Translation

__all__ = ["answer", "generation", "summary", "translation"]

_MOST = 40
"""Sentences, or tokens with sources, that are shown; the report of a result shows all."""


def answer(result: Answer) -> str:
    """The answer, and its citations."""
    support = result.support
    said = (
        ""
        if result.supported or not result.text
        else f"{result.verdict} (support {support.strength:.3g} nats, drop {support.document_drop:.3g} nats)"
    )
    return _html.box(
        _html.text(result.text or "(the model gave no answer)", "font-size:1.15em;font-weight:600"),
        _html.text(said, "font-weight:600") if said else "",
        _cited(result.citations),
        _html.text(_cost(result)),
    )


def summary(result: Summary) -> str:
    """Each sentence with its citations; or the excerpts."""
    parts: list[str] = []
    for sentence in result.sentences[:_MOST]:
        mark = " (not supported)" if sentence.supported is False else ""
        parts += [_html.text(f"{sentence.text}{mark}", "font-weight:600"), _cited(sentence.citations)]
    excerpts = result.excerpts[:_MOST]
    most = max((excerpt.score for excerpt in excerpts), default=0)
    parts.append(_html.bars((e.text, e.score / most, (f"score {e.score:.3g}", f"line {e.line}")) for e in excerpts))
    return _html.box(*parts, _rest(result.sentences or result.excerpts), _html.text(_cost(result)))


def translation(result: Translation) -> str:
    """Each sentence, with the one that it translates."""
    parts = [
        _html.text(sentence.text, "font-weight:600")
        + "".join(_html.text(source.text, "opacity:.8") for source in sentence.sources)
        for sentence in result.sentences[:_MOST]
    ]
    return _html.box(*parts, _rest(result.sentences), _html.text(_cost(result)))


def generation(result: Generation) -> str:
    """The text, and of its tokens where the model looked."""
    looked = [unit for unit in result.units if unit.sources]
    rows = [
        (repr(u.text)[1:-1], u.sources[0].share, [f"{s.text} {s.share:.3g} ({s.where})" for s in u.sources])
        for u in looked[:_MOST]
    ]
    return _html.box(_html.text(result.text), _html.bars(rows), _rest(looked), _html.text(_cost(result)))


def _cited(citations: Iterable[Citation]) -> str:
    found = list(citations)
    most = max((citation.drop for citation in found), default=0)
    return _html.bars(
        (
            citation.text,
            max(0.0, citation.drop / most) if most > 0 else 0.0,
            (f"drop {citation.drop:.3g} nats", f"relevance {citation.relevance:.3g}", f"line {citation.line}"),
        )
        for citation in found
    )


def _rest(parts: Sequence[object]) -> str:
    return _html.text(f"… and {len(parts) - _MOST:,} more") if len(parts) > _MOST else ""


def _cost(result: Answer | Generation | Summary | Translation) -> str:
    return f"{result.model} · {result.seconds:.3g} s · peak memory {result.peak_bytes / 1e9:.3g} GB"
