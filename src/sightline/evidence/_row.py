"""Relevance for a token as it is produced: one row, against a cache that is a constant.

Token t is predicted by one row i of every attention matrix, that of the last token before it. With P_i the row of one
head, v its values, and dO_i = ∂ log p(t) / ∂O_i the gradient at that head's output,

    c_j = Σ_layers Σ_heads max(0, P_ij · (dO_i · v_j))          j over everything read: the prompt, and the text so far

This is the full gradient: the rows before i do not depend on it. O(layers · N) time and memory.
Source: as `sightline.evidence.key_relevance`, for a single row.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ..reader import Reader
from ._relevance import Gatherer


class Row:
    """The row of the next token, with its graph: `logits` [vocabulary], and where it looked for any token."""

    def __init__(self, reader: Reader, last: int) -> None:
        # Imported late: Transformers is optional.
        from ..integrations.transformers import listening

        self._gatherer = Gatherer(reader.length + 1, "decoder")
        with listening(reader.model, self._gatherer):
            self.logits, self._leaf = reader.differentiable_logits(last)

    def relevance(self, token: int) -> Tensor:
        """c_j of everything read, [N] in float64, for producing this token. Once: it uses up the graph."""
        exact = self.logits.to(torch.promote_types(self.logits.dtype, torch.float32))
        # The hooks do the work. Asking for the gradient of the leaf alone spares that of the parameters.
        torch.autograd.grad(torch.log_softmax(exact, dim=-1)[token], self._leaf)
        return self._gatherer.total[0]
