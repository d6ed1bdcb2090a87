"""A `Trace` as a report: every token of a text, and the tokens that it looked at."""

from __future__ import annotations

import re
from collections.abc import Sequence

import torch

from ...errors import SpecError
from ...recording import Kind, Tokens, Trace, overview
from ...recording.maps import maps
from .._links import Sources
from .._text import text_of
from .._tracks import entropies
from ..attention import Attention, Head, Links, packed
from ..model import Fact, Report

__all__ = ["of_trace"]

_ROOM = 2_600_000
"""Bytes for the lists of sources, as they lie in the page; the rest of the five million is for maps and text."""

_NUMBERS = 1_300_000
"""Numbers in all maps: two bytes each, which deflate to about one and grow by a third in base64."""

_K = 8
_K_OF_HEAD = 4

_ORDER: tuple[Kind, ...] = ("cross", "decoder", "encoder")


def of_trace(trace: Trace, title: str, kind: Kind | None) -> Report:
    """The attention of one kind: where `kind` is None, cross-attention if there is any, else a decoder's.

    Of batch entry 0. Raises SpecError for a kind that was not recorded, and for a trace without tokens.
    """
    there: list[Kind] = [k for k in _ORDER if any(calls[0].kind == k for calls in trace.values())]
    chosen: Kind = kind or there[0]
    if chosen not in there:
        raise SpecError(
            f"a report of {chosen} attention was asked for; recorded was {' and '.join(there)}. Choose one of these."
        )
    rows, columns = _sides(trace, chosen)
    if rows is None or columns is None:
        raise SpecError(
            "a report of a trace was asked for; it holds no tokens, so there is no text to show. "
            "Pass tokens to Recorder.trace, or record with `sightline record`."
        )
    produced, outside = text_of(rows)
    document, beyond = text_of(columns)
    modules = [name for name in trace if trace[name][0].kind == chosen]
    attention = _attention(trace, chosen, modules, len(rows), len(columns), {"queries": outside, "keys": beyond})
    batch = rows.ids.shape[0]
    facts = [Fact("model", trace.model or "not named"), Fact("tokens", f"{len(columns):,}")]
    facts += [Fact("heads", f"{len(attention.heads):,} in {len(modules)} layers")]
    facts += [Fact("shown", f"sequence 1 of {batch}")] if batch > 1 else []
    return Report(
        kind="trace",
        title=title or f"Attention of {trace.model or 'a model'}",
        produced=produced,
        documents=(document,),
        units=(),
        measures=(attention.measure,),
        facts=tuple(facts),
        attention=attention,
    )


def _sides(trace: Trace, kind: Kind) -> tuple[Tokens | None, Tokens | None]:
    """The tokens of a matrix's rows and of its columns."""
    own, source = trace.tokens, trace.source or trace.tokens
    return {"encoder": (source, source), "decoder": (own, own), "cross": (own, source)}[kind]


def _attention(
    trace: Trace, kind: Kind, modules: Sequence[str], queries: int, keys: int, outside: dict[str, dict[int, str]]
) -> Attention:
    known = {(head.module, head.head): head for head in overview.heads(trace) if head.module in modules}
    layers = _layers(modules)
    heads = tuple(
        Head(name, layers[name], head, said.entropy, said.sink, said.local, said.retrieval)
        for name in modules
        for head in trace[name][0].heads
        for said in [known[name, head]]
    )
    sources = Sources(trace, modules, queries, keys)
    together = sources.all_heads(_K)
    links = fitting(sources, heads, together)
    received = overview.received(trace, kind)
    if received is not None and received.shape[0] < keys:
        received = torch.nn.functional.pad(received, (0, keys - received.shape[0]))
    sinks = tuple(overview.sinks(trace, kind))
    return Attention(
        kind=kind,
        heads=heads,
        maps=maps(trace, modules, queries, keys, _NUMBERS),
        links=links,
        measure=sources.measure,
        entropy=entropies(trace, modules, queries),
        received=None if received is None else received[:keys],
        sinks=sinks,
        outside=outside,
        first=_first(trace, heads, links),
    )


def fitting(sources: Sources, heads: Sequence[Head], together: Links | None) -> tuple[Links, ...]:
    """The lists of all heads together, then of as many heads as there is room for: most retrieval first."""
    if together is None:
        return ()
    room = _ROOM - sum(map(len, packed([together]).values()))
    found = {links.head: links for links in sources.by_head(_K_OF_HEAD)}
    order = sorted(range(len(heads)), key=lambda i: (-(heads[i].retrieval or 0), heads[i].local or 0))
    kept = [together]
    for number in order:
        size = sum(map(len, packed([found[number]]).values()))
        if size > room:
            break
        room -= size
        kept.append(found[number])
    return tuple(sorted(kept, key=lambda links: -1 if links.head is None else links.head))


def _first(trace: Trace, heads: Sequence[Head], links: Sequence[Links]) -> tuple[int, int] | None:
    """The query and the head of the strongest single weight, where the page has that head's sources."""
    there = {links.head for links in links}
    number = {(head.module, head.head): i for i, head in enumerate(heads)}
    for pair in overview.pairs(trace, 64):
        at = number.get((pair.module, pair.head))
        if pair.query is not None and at in there and at is not None:
            return pair.query, at
    return None


def _layers(modules: Sequence[str]) -> dict[str, int]:
    """The first number of each module's name, where they differ, else their places in order."""
    numbers = [re.search(r"(?:^|\.)(\d+)(?:\.|$)", name) for name in modules]
    found = [int(match[1]) for match in numbers if match is not None]
    return dict(zip(modules, found if len(set(found)) == len(modules) else range(len(modules)), strict=True))
