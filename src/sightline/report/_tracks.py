"""One number for every token of a trace: how spread its attention is, how much of all attention it gets."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ..recording import Trace
from ..recording.places import placed

__all__ = ["entropies"]


def entropies(trace: Trace, modules: Sequence[str], queries: int) -> Tensor | None:
    """Of each query of batch entry 0 the entropy, the mean over heads and layers, in nats, [queries]; NaN without one.

    None where no `Entropy` was recorded.
    """
    name = next((name for name, said in trace.reductions.items() if said.get("type") == "Entropy"), None)
    total, heads = torch.zeros(queries, dtype=torch.float64), torch.zeros(queries)
    for module in modules:
        for start, call in placed(trace, module):
            if name is None or name not in call:
                continue
            found = call[name][0].double()[:, : queries - start]  # [H, n]
            total[start : start + found.shape[1]] += found.sum(0)
            heads[start : start + found.shape[1]] += found.shape[0]
    return total / heads if bool(heads.any()) else None
