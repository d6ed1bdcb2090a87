"""Relevance of keys: gradient-weighted attention, summed over layers, heads and the rows that predict an answer.

With P the attention matrix of one head, v its values, O = P v its output and dO = ∂ log p(answer | prompt) / ∂O,

    c_j = Σ_layers Σ_heads Σ_i max(0, P_ij · (dO_i · v_j))         i over the rows that predict the answer's tokens

The model is causal, so dO at those rows depends on those rows alone: the answer's T tokens are run once more, with
gradients, against the key-value cache of the prompt, which is a constant. No backward pass over the prompt, and no
matrix is stored: O(layers · (N + T²)) memory instead of O(layers · heads · N²).

Source: the positive part of attention times its gradient is Chefer, Gur & Wolf (2021), "Generic attention-model
explainability", equation 5, here summed over layers instead of multiplied through them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from ..functional import Observed
from ..reader import Reader
from ..recording import Call, Kind
from ..reductions import Received, Reduction
from ..relevance import relevance


def key_relevance(reader: Reader, prompt: Sequence[int], answer: Sequence[int]) -> tuple[Tensor, float]:
    """c_j of every token j of the prompt, [p] in float64, and log p(answer | prompt) in nats.

    The reader has read at least prompt[:-1], and holds exactly that afterwards. O(T · N) time per head and layer.
    """
    # Imported late: Transformers is optional.
    from ..integrations.transformers import listening

    reader.rewind(len(prompt) - 1)
    gatherer = Gatherer(len(prompt), "decoder")
    with listening(reader.model, gatherer):
        total, leaf = reader.differentiable_log_prob(prompt[-1], answer)
    # The hooks do the work. Asking for the gradient of the leaf alone spares that of the parameters.
    torch.autograd.grad(total, leaf)
    return gatherer.total[0], float(total.detach())


class Gatherer:
    """A listener that sums relevance over the calls of a kind, as their gradients come: `total` [batch, keys].

    Keys are the first `keys`, of each sequence of a batch.
    """

    def __init__(self, keys: int, kind: Kind, batch: int = 1) -> None:
        self.total = torch.zeros(batch, keys, dtype=torch.float64)
        self.kind: Kind = kind

    def reductions(self, call: Call) -> Mapping[str, Reduction]:
        return {}

    def received(self, call: Call, observed: Observed) -> None:
        if call.kind != self.kind:
            return

        def add(gradient: Tensor) -> None:
            with torch.no_grad():
                field = relevance(call.matrix, call.value.detach(), gradient, {"received": Received()}, part="positive")
            columns = field["received"].sum(1, dtype=torch.float64).cpu()
            held = self.total[:, call.key_start : call.key_start + columns.shape[1]]
            held += columns[:, : held.shape[1]]

        observed.output.register_hook(add)
