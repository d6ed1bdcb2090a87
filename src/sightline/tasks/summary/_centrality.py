"""Which sentences of a document the sentences after them attend to: one reading, nothing is written.

With P^{ℓh} the attention matrix of head h of layer ℓ, L the last third of the layers, and σ(i) the sentence of token i,

    c_t = Σ_{ℓ∈L} Σ_h Σ_{i: σ(i) ≠ t} Σ_{j: σ(j) = t} P^{ℓh}_ij        i over tokens of a sentence
    score_t = c_t / mean of c over the sentences of the window

A sentence's attention to itself does not count, nor does the window's first token, the sink that heads rest on. A score
of 1 is what a sentence receives on average. As the model is causal, earlier sentences have more that can look at them:
that is kept on purpose, since texts say early what they are about.

The document is read in chunks against the model's cache, in windows of at most `WINDOW` tokens. Of each chunk n × m of
P a `SegmentMass` is taken, n × (sentences of the window), and summed at once: O(chunk · sentences) numbers are held,
however long the document. A sentence of two windows has the larger of its scores: in one of them little comes after it.

Chosen among twelve formulas, each with all, the first, the middle and the last third of the layers, by the words that
what they pick shares with the abstracts of 24 Python Enhancement Proposals whose bodies it was picked from. On 58 other
documents (30 such proposals, 28 papers of Qasper) it shares more than random sentences do, and somewhat more than the
first ones and than those that are central by tf-idf: R1 .323 against .291, .302 and .305 (`benchmarks.summary`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from ...errors import ModelError
from ...functional import Observed
from ...models import Progress
from ...reader import Reader
from ...recording.call import Call
from ...recording.choice import matches
from ...reductions import Reduction, SegmentMass
from ...sentences import Span
from .._chat import text_tokens
from .._windows import units, windows

__all__ = ["WINDOW", "central", "mass_received"]

WINDOW = 4096
"""Tokens read at once, where the model's context does not hold fewer."""


def central(
    network: Any, tokenizer: Any, document: str, limit: int | None, tell: Progress
) -> tuple[list[tuple[Span, float]], list[Span]]:
    """The sentences of a document with their scores, in order, and the windows that were read.

    A sentence longer than half a window counts as several. Raises ModelError for a model that cannot be listened to.
    """
    tokens, places = text_tokens(tokenizer, document)
    # The first token is no part of the text where the tokenizer has one that begins it.
    begin = [] if tokenizer.bos_token_id is None else [int(tokenizer.bos_token_id)]
    room = max(2, min(WINDOW, limit or WINDOW) - len(begin))
    spans, firsts = units(document, places, room // 2)
    scores = [0.0] * len(spans)
    runs = windows(firsts, len(tokens), room, room // 8)
    stops = [*firsts[1:], len(tokens)]
    total = sum(stops[run[-1]] - firsts[run[0]] for run in runs)
    done = 0
    for run in runs:
        start, stop = firsts[run[0]], stops[run[-1]]
        owners = [-1] * (stop - start)
        for number, unit in enumerate(run):
            for at in range(firsts[unit], stops[unit]):
                if places[at].start < spans[unit].end:
                    owners[at - start] = number
        received = mass_received(
            network,
            [*begin, *tokens[start:stop]],
            [*[-1] * len(begin), *owners],
            len(run),
            lambda more, before=done: tell("reading", min(before + more, total), total),
        )
        mean = float(received.mean()) or 1.0  # a single sentence receives nothing from others
        for unit, mass in zip(run, received.tolist(), strict=True):
            scores[unit] = max(scores[unit], mass / mean)
        done += stop - start
    stretches = [Span(spans[run[0]].start, spans[run[-1]].end) for run in runs]
    return list(zip(spans, scores, strict=True)), stretches


def mass_received(
    network: Any,
    tokens: Sequence[int],
    owners: Sequence[int],
    sentences: int,
    progress: Callable[[int], None] | None = None,
) -> Tensor:
    """c_t of the module's formula for one window, [sentences] in float64.

    owners: the sentence of each token, −1 for none. Raises ModelError where no layer of the last third was heard.
    """
    # Imported late: Transformers is optional.
    from ...integrations.transformers import listening

    gatherer = _Gatherer(owners, sentences, network.config.get_text_config(decoder=True).num_hidden_layers)
    reader = Reader(network)
    with listening(network, gatherer):
        reader.read(tokens, progress)
    if not gatherer.heard:
        raise ModelError(
            f"{type(network).__name__} was asked which sentences it attends to; its attention modules are not "
            "numbered, so that the last third of its layers is not known. Use another model."
        )
    return gatherer.total


class _Gatherer:
    """A listener that sums what each sentence receives from the others, chunk by chunk."""

    def __init__(self, owners: Sequence[int], sentences: int, layers: int) -> None:
        self._rows = torch.tensor(list(owners))
        self._keys = torch.tensor([-1, *owners[1:]])
        self._sentences = sentences
        self._layers = range(layers * 2 // 3, layers)
        self.total = torch.zeros(sentences, dtype=torch.float64)
        self.heard = False

    def reductions(self, call: Call) -> Mapping[str, Reduction]:
        if not any(matches(layer, call.name) for layer in self._layers):
            return {}
        ids = self._keys[call.key_start : call.key_start + call.matrix.shape[-1]]
        return {"mass": SegmentMass(ids[None].to(call.value.device), self._sentences)}

    def received(self, call: Call, observed: Observed) -> None:
        if not any(matches(layer, call.name) for layer in self._layers):
            return
        n, m = call.matrix.shape[-2:]
        end = call.key_start + m
        rows = self._rows[end - n : end]
        inside = rows >= 0
        mass = observed["mass"][0].sum(0, dtype=torch.float64).cpu()[inside]
        mass.scatter_(1, rows[inside][:, None], 0.0)
        self.total += mass.sum(0)
        self.heard = True
