"""Which parts of a prompt an answer came from: a short list by relevance, put in order, then measured.

Three numbers for each span S of the document, each dearer and truer than the one before. With N the prompt's tokens and
T the answer's:

    relevance       gradient-weighted attention of the answer's rows, one small backward pass       3 T token steps
    direct drop     log p(answer) − log p(answer | the answer's rows may not attend to S)           T token steps each
    measured drop   log p(answer | document) − log p(answer | document without S), read again       up to N + T each

Relevance makes the short list where there are more spans than fit on it, the direct drop puts it in order, and what is
shown is measured; where nothing measured costs much, some more is measured before it is shown. The direct drop leaves
out what S gave to the tokens after it, which the answer reads instead; the measured drop leaves out nothing. Neither
adds up where two spans hold the same fact: `fitted_drops` do, for more time. `document_drop` is the direct drop of the
whole document; `Support` joins it with what the model itself says of whether the document tells.

`Row` is the relevance for one token as it is produced. For a model with an encoder, `source_relevance` and
`source_direct_drops` say which tokens of the source its output came from, over cross-attention.

No attention matrix is stored: O(N) memory.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from ..reader import Reader
from ..sentences import Span
from ._cross import source_direct_drops, source_relevance
from ._drops import direct_drops, document_drop, measured_drop, to_read
from ._fitted import fitted_drops
from ._ranking import SHORTLIST, Ranking, ranked
from ._relevance import Gatherer, key_relevance
from ._row import Row
from ._sentence_support import SENTENCE_SUPPORT, rests_on_document
from ._spans import owners, span_relevance
from ._support import SUPPORT, Check, Support, affirmed, find_support, refusal

__all__ = [
    "CLEAR",
    "SECOND_ROUND",
    "SENTENCE_SUPPORT",
    "SHORTLIST",
    "SUPPORT",
    "Check",
    "Evidence",
    "Gatherer",
    "Ranking",
    "Row",
    "Support",
    "affirmed",
    "direct_drops",
    "document_drop",
    "find_evidence",
    "find_support",
    "fitted_drops",
    "key_relevance",
    "measured_drop",
    "owners",
    "ranked",
    "refusal",
    "rests_on_document",
    "source_direct_drops",
    "source_relevance",
    "span_relevance",
    "to_read",
]

Tokens = Sequence[int]

CLEAR = 2.0
"""Nats. A drop that is as large is not one of many that are alike, and direct drops have found it."""

SECOND_ROUND = 5
"""Spans to measure after the first where none of those has a clear drop."""


@dataclass(frozen=True)
class Evidence:
    """A span of the document and what it was found to do for the answer.

    relevance: its share, 0 … 1, of the direct drops above 0 of all spans on the short list.
    drop: measured, in nats: log p(answer | document) − log p(answer | document without the span).
    direct_drop: in nats, the same with the span only hidden from the rows that predict the answer.
    Both drops are below 0 where the answer is likelier without the span.
    """

    span: Span
    relevance: float
    drop: float
    direct_drop: float


def find_evidence(
    reader: Reader,
    prompt: Tokens,
    places: Sequence[Span | None],
    spans: Sequence[Span],
    answer: Tokens,
    without: Callable[[Span], Tokens],
    *,
    top: int,
    shortlist: int = SHORTLIST,
    second_round: int = 0,
    log_prob: float | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> list[Evidence]:
    """Up to `top` spans in the order of measured drop: the first of a short list by direct drop, as in `ranked`.

    Where none of these has a drop of `CLEAR` nats, the next `second_round` of the list are measured too, and the best
    of all are found. The short list is never shorter than `top`; of just `top` spans, all are measured. The reader has
    read at least prompt[:-1]; what it holds of it afterwards is less. `places` is where each token of the prompt lies
    in the document, None outside; `without` makes the prompt whose document lacks a span; `log_prob` is as in
    `direct_drops`. `progress` hears how many of all tokens that measuring reads are done, in each round anew.
    """
    if top < 1 or not spans:
        return []
    ranking = ranked(reader, prompt, places, spans, answer, shortlist=max(top, shortlist), log_prob=log_prob)
    listed = list(ranking.direct)
    whole_text = reader.fork() if second_round and len(listed) > top else None  # measuring forgets the end of the text

    def measured(reader: Reader, numbers: Sequence[int]) -> dict[int, float]:
        shortened = {i: (spans[i], without(spans[i])) for i in numbers}
        return _measured(reader, prompt, shortened, answer, ranking.log_prob, progress)

    drops = measured(reader, listed[:top])
    if whole_text is not None and max(drops.values()) < CLEAR:
        drops |= measured(whole_text, listed[top : top + second_round])
    whole = sum(max(0.0, drop) for drop in ranking.direct.values())
    found = [
        Evidence(spans[i], max(0.0, ranking.direct[i]) / whole if whole > 0 else 0.0, drop, ranking.direct[i])
        for i, drop in drops.items()
    ]
    return sorted(found, key=lambda e: -e.drop)[:top]


def _measured(
    reader: Reader,
    prompt: Tokens,
    shortened: dict[int, tuple[Span, Tokens]],
    answer: Tokens,
    baseline: float,
    progress: Callable[[int, int], None] | None,
) -> dict[int, float]:
    """The measured drop of each span, given with the prompt that lacks it."""
    # From the end of the document to its start: each rewind then keeps all that the next measurement can use.
    order = sorted(shortened, key=lambda i: -shortened[i][0].start)
    todo = [to_read(prompt, shortened[i][1]) for i in order]
    tell = progress or _nothing
    drops: dict[int, float] = {}
    for at, i in enumerate(order):
        done, total = sum(todo[:at]), sum(todo)
        tell(done, total)
        drops[i] = measured_drop(reader, prompt, shortened[i][1], answer, baseline, _shifted(tell, done, total))
        tell(done + todo[at], total)
    return drops


def _shifted(progress: Callable[[int, int], None], done: int, total: int) -> Callable[[int], None]:
    return lambda more: progress(done + more, total)


def _nothing(done: int, total: int) -> None:
    """Progress that nobody listens to."""
