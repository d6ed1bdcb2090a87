"""Which sentences a question attends to: the choice among those that a search by words left.

With P^{ℓh} the attention matrix of head h of layer ℓ, Q the rows of the question and of what the chat template puts
after it, and O the rows of the order before the question ("Using only the text above, …"), sentence t scores

    a_t = Σ_ℓ Σ_h [ mean over i∈Q of Σ_{j∈t} P^{ℓh}_ij − mean over i∈O of Σ_{j∈t} P^{ℓh}_ij ]

The rows O come before the question, so what they attend to is what is looked at whatever is asked: names, first
sentences, sinks. Only these rows are listened to; their weights are reduced to one number for each sentence as they are
computed. O(N) memory; time: reading the text once.

Source: after Chen, Gutiérrez & Su (2025), "Attention in large language models yields efficient zero-shot re-rankers",
who subtract the attention of a query without content in a second reading.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch

from ...evidence import owners
from ...functional import Observed
from ...reader import Reader
from ...recording.call import Call
from ...reductions import Reduction, SegmentMass
from ...sentences import Span
from .._prompt import Prompt

__all__ = ["attended"]


def attended(
    network: Any, prompt: Prompt, spans: Sequence[Span], progress: Callable[[int], None] | None = None
) -> list[float]:
    """a_t of the module's formula for each span of the prompt's document; spans are in order and do not overlap.

    Raises ModelError for a model that cannot be listened to.
    """
    # Imported late: Transformers is optional.
    from ...integrations.transformers import listening

    last = max((at for at, place in enumerate(prompt.places) if place is not None), default=-1)
    tokens = prompt.tokens
    asked = prompt.asked
    reader = Reader(network)
    reader.read(tokens[: last + 1], progress)
    found: list[torch.Tensor] = []
    ids = torch.tensor([-1 if owner is None else owner for owner in owners(prompt.places, spans)])
    for start, stop in ((last + 1, asked), (asked, len(tokens))):
        gatherer = _Gatherer(ids, len(spans))
        with listening(network, gatherer):
            reader.read(tokens[start:stop])
        found.append(gatherer.total / max(1, stop - start))
    return (found[1] - found[0]).tolist()


class _Gatherer:
    """A listener that sums what each sentence gets from all rows, heads and layers."""

    def __init__(self, ids: torch.Tensor, count: int) -> None:
        self._ids, self._count = ids, count
        self.total = torch.zeros(count, dtype=torch.float64)

    def reductions(self, call: Call) -> Mapping[str, Reduction]:
        ids = self._ids[call.key_start : call.key_start + call.matrix.shape[-1]]
        return {"mass": SegmentMass(ids[None].to(call.value.device), self._count)}

    def received(self, call: Call, observed: Observed) -> None:
        self.total += observed["mass"].sum((0, 1, 2), dtype=torch.float64).cpu()
