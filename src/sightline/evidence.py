"""Which parts of a prompt an answer came from: relevance, summed to spans, then measured.

Relevance is gradient-weighted attention. With P the attention matrix of one head, v its values, O = P v its output and
dO = ∂ log p(answer | prompt) / ∂O,

    c_j = Σ_layers Σ_heads Σ_i max(0, P_ij · (dO_i · v_j))         i over the rows that predict the answer's tokens

The model is causal, so dO at those rows depends on those rows alone: the answer's T tokens are run once more, with
gradients, against the key-value cache of the prompt, which is a constant. No backward pass over the prompt, and no
matrix is stored: O(layers · (N + T²)) memory instead of O(layers · heads · N²).

Relevance only makes a short list. What is shown is measured: the drop of log p(answer) when a span is taken out of the
text, which is then read again from there on.

Source: the positive part of attention times its gradient is Chefer, Gur & Wolf (2021), "Generic attention-model
explainability", equation 5, here summed over layers instead of multiplied through them.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from .functional import Observed
from .reader import Reader
from .recording.recorder import Call
from .reductions import Received, Reduction
from .relevance import relevance
from .sentences import Span

__all__ = ["Evidence", "find_evidence", "key_relevance", "measured_drop", "span_relevance"]

Tokens = Sequence[int]


@dataclass(frozen=True)
class Evidence:
    """A span of the document, its share of the document's relevance (0 … 1), and its measured drop in nats.

    drop = log p(answer | document) − log p(answer | document without the span), below 0 where that is likelier.
    """

    span: Span
    relevance: float
    drop: float


def find_evidence(
    reader: Reader,
    prompt: Tokens,
    places: Sequence[Span | None],
    spans: Sequence[Span],
    answer: Tokens,
    without: Callable[[Span], Tokens],
    *,
    top: int,
    progress: Callable[[int, int], None] | None = None,
) -> list[Evidence]:
    """The `top` spans by relevance, in the order of their measured drop.

    The reader has read at least prompt[:-1]; what it holds of it afterwards is less. `places` is where each token of
    the prompt lies in the document, None outside; `without` makes the prompt whose document lacks a span. `progress`
    hears how many of all tokens that measuring reads are done.
    """
    weights, baseline = key_relevance(reader, prompt, answer)
    scores = span_relevance(weights, places, spans)
    whole = sum(scores)
    best = sorted(range(len(spans)), key=lambda i: (-scores[i], spans[i]))[:top]
    shortened = {i: without(spans[i]) for i in best}
    # From the end of the document to its start: each rewind then keeps all that the next measurement can use.
    order = sorted(best, key=lambda i: -spans[i].start)
    drops: dict[int, float] = {}
    todo = [len(shortened[i]) - _common(prompt, shortened[i]) for i in order]
    tell = progress or _nothing
    for at, i in enumerate(order):
        done, total = sum(todo[:at]), sum(todo)
        tell(done, total)
        drops[i] = measured_drop(reader, prompt, shortened[i], answer, baseline, _shifted(tell, done, total))
        tell(done + todo[at], total)
    found = [Evidence(spans[i], scores[i] / whole if whole > 0 else 0.0, drops[i]) for i in best]
    return sorted(found, key=lambda e: -e.drop)


def key_relevance(reader: Reader, prompt: Tokens, answer: Tokens) -> tuple[Tensor, float]:
    """c_j of every token j of the prompt, [p] in float64, and log p(answer | prompt) in nats.

    The reader has read at least prompt[:-1], and holds exactly that afterwards. O(T · N) time per head and layer.
    """
    # Imported late: Transformers is optional.
    from .integrations.transformers import listening

    reader.rewind(len(prompt) - 1)
    gatherer = _Gatherer(len(prompt))
    with listening(reader.model, gatherer):
        total, leaf = reader.differentiable_log_prob(prompt[-1], answer)
    # The hooks do the work. Asking for the gradient of the leaf alone spares that of the parameters.
    torch.autograd.grad(total, leaf)
    return gatherer.total, float(total.detach())


def span_relevance(weights: Tensor, places: Sequence[Span | None], spans: Sequence[Span]) -> list[float]:
    """Σ c_j over the tokens of each span; a token across a border belongs to the span that holds most of it.

    `spans` are in order and do not overlap.
    """
    scores = [0.0] * len(spans)
    starts = [span.start for span in spans]
    for weight, place in zip(weights.tolist(), places, strict=True):
        if place is None:
            continue
        first, last = max(0, bisect_right(starts, place.start) - 1), bisect_left(starts, place.end)
        shared = [min(place.end, s.end) - max(place.start, s.start) for s in spans[first:last]]
        if shared and max(shared) > 0:
            scores[first + shared.index(max(shared))] += weight
    return scores


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
    reader.read(shortened[shared:-1], progress)
    drop = baseline - reader.log_prob(shortened[-1], answer)
    reader.rewind(shared)
    return drop


class _Gatherer:
    """A listener that sums the relevance of the first `keys` keys over the calls it hears, as their gradients come."""

    def __init__(self, keys: int) -> None:
        self.total = torch.zeros(keys, dtype=torch.float64)

    def reductions(self, call: Call) -> Mapping[str, Reduction]:
        return {}

    def received(self, call: Call, observed: Observed) -> None:
        def add(gradient: Tensor) -> None:
            with torch.no_grad():
                field = relevance(call.matrix, call.value.detach(), gradient, {"received": Received()}, part="positive")
            columns = field["received"].sum((0, 1), dtype=torch.float64).cpu()
            held = self.total[call.key_start : call.key_start + len(columns)]
            held += columns[: len(held)]

        observed.output.register_hook(add)


def _common(a: Tokens, b: Tokens) -> int:
    """How many tokens two sequences begin with in common."""
    return next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))


def _shifted(progress: Callable[[int, int], None], done: int, total: int) -> Callable[[int], None]:
    return lambda more: progress(done + more, total)


def _nothing(done: int, total: int) -> None:
    """Progress that nobody listens to."""
