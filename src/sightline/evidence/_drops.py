"""Drops of an answer's log-probability: by hiding keys from the answer's rows, and by taking text away."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from ..reader import Reader
from ..sentences import Span
from ._spans import owners

Tokens = Sequence[int]


def direct_drops(
    reader: Reader,
    prompt: Tokens,
    places: Sequence[Span | None],
    spans: Sequence[Span],
    answer: Tokens,
    *,
    of: Sequence[int] | None = None,
    log_prob: float | None = None,
) -> list[float]:
    """The direct drop of each span, or of those numbered `of`, in nats.

        drop_direct(S) = log p(answer | prompt) − log p(answer | prompt, rows R may not attend to the keys of S)

    R are the T rows that predict the answer's tokens: that of the prompt's last token and those of all the answer's
    tokens but its last. In every layer and head, the weights of the rows R on the tokens of S are zero and the others
    are normalised again; every other row, every key and value, and every position stays as it is. So what later text
    has taken over from S still counts, and nothing of the prompt is read again. The rows R themselves are never hidden.

    Tokens belong to spans as in `span_relevance`: spans are in order and do not overlap. The reader has read at least
    prompt[:-1], and holds exactly that afterwards. O(spans · T · N) time per head and layer, O(N) memory. `log_prob`
    is log p(answer | prompt) where it is known, as it is of an answer just written; else it is computed too.
    """
    wanted = range(len(spans)) if of is None else of
    baseline, others = hiding_spans(reader, prompt, places, spans, answer, wanted, log_prob)
    return [baseline - other for other in others]


def hiding_spans(
    reader: Reader,
    prompt: Tokens,
    places: Sequence[Span | None],
    spans: Sequence[Span],
    answer: Tokens,
    of: Sequence[int],
    log_prob: float | None = None,
) -> tuple[float, list[float]]:
    """log p(answer | prompt) in nats, and the same with each of the spans numbered `of` hidden: see `direct_drops`."""
    owner = torch.tensor([-1 if i is None else i for i in owners(places[: len(prompt) - 1], spans)])
    hidden = torch.tensor(list(of), dtype=owner.dtype)[:, None] == owner[None, :]
    return _hiding(reader, prompt, answer, hidden, log_prob)


def document_drop(
    reader: Reader,
    prompt: Tokens,
    places: Sequence[Span | None],
    answer: Tokens,
    *,
    log_prob: float | None = None,
) -> float:
    """The direct drop of the whole document, in nats: what the answer loses when its rows see none of it.

    Near 0, the answer would have been given without the document. Definition, cost and `log_prob` as in `direct_drops`,
    for one span. The reader has read at least prompt[:-1], and holds exactly that afterwards.
    """
    inside = torch.tensor([place is not None for place in places[: len(prompt) - 1]])
    baseline, (other,) = _hiding(reader, prompt, answer, inside[None], log_prob)
    return baseline - other


def measured_drop(
    reader: Reader,
    prompt: Tokens,
    shortened: Tokens,
    answer: Tokens,
    baseline: float,
    progress: Callable[[int], None] | None = None,
) -> float:
    """baseline − log p(answer | shortened), in nats, reading `shortened` only from where it leaves the prompt.

    The reader holds a beginning of the prompt, and a shorter one afterwards: what the two have in common.
    """
    # At least the last token is kept back: its row predicts the answer's first token.
    shared = min(_common(prompt, shortened), reader.length, len(shortened) - 1)
    reader.rewind(shared)
    return baseline - reader.log_prob(shortened[shared:], answer, progress)


def to_read(prompt: Tokens, shortened: Tokens) -> int:
    """The tokens that measuring reads again."""
    return len(shortened) - _common(prompt, shortened)


def _hiding(
    reader: Reader, prompt: Tokens, answer: Tokens, hidden: Tensor, log_prob: float | None
) -> tuple[float, list[float]]:
    """log p(answer), computed with the others where it is not known, and log p(answer | hidden), hidden: [s, p − 1]."""
    reader.rewind(len(prompt) - 1)
    if log_prob is not None:
        return log_prob, reader.log_probs_hiding(prompt[-1], answer, hidden)
    nothing = hidden.new_zeros(1, hidden.shape[1])
    baseline, *others = reader.log_probs_hiding(prompt[-1], answer, torch.cat([nothing, hidden]))
    return baseline, others


def _common(a: Tokens, b: Tokens) -> int:
    """How many tokens two sequences begin with in common."""
    return next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))
