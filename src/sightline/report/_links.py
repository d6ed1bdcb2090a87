"""Where each token looks, from the `TopK` that was recorded of every head."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from ..recording import Trace
from ..recording.places import placed
from .attention import Links

__all__ = ["Sources"]

_ROWS = 512
"""Query tokens at once, while the lists of all heads are added up."""


class Sources:
    """The lists of every head of batch entry 0.

    A listed key's weight is P_ij where queries and keys were kept of all calls (`measure` "weight"), else 1/k of the k
    that are listed ("places").
    """

    def __init__(self, trace: Trace, modules: Sequence[str], queries: int, keys: int) -> None:
        self._trace, self._modules, self._queries, self._keys = trace, modules, queries, keys
        calls = [call for module in modules for call in trace[module]]
        asked = {name: int(said["k"]) for name, said in trace.reductions.items() if said.get("type") == "TopK"}
        there = [name for name in asked if all(name in call for call in calls)]
        self._name = max(there, key=lambda name: asked[name], default=None)
        self.measure = "weight" if all(call.kept is not None for call in calls) else "places"

    def all_heads(self, k: int) -> Links | None:
        """Σ over heads / number of heads, and of each token the k largest. None where no `TopK` was recorded."""
        if self._name is None:
            return None
        parts = [self._module(module) for module in self._modules]
        heads = sum(found.shape[0] for found, _ in parts)
        k = min(k, self._keys)
        keys, weights = torch.full((self._queries, k), -1), torch.zeros(self._queries, k)
        for start in range(0, self._queries, _ROWS):
            stop = min(self._queries, start + _ROWS)
            rows = torch.zeros(stop - start, self._keys, dtype=torch.float64)
            for found, given in parts:
                at = found[:, start:stop].permute(1, 0, 2).flatten(1)
                there = given[:, start:stop].permute(1, 0, 2).flatten(1).double()
                rows.scatter_add_(1, at.clamp(min=0).long(), there.masked_fill(at < 0, 0))
            top = (rows / heads).topk(k, dim=1)
            weights[start:stop] = top.values.float()
            keys[start:stop] = top.indices.masked_fill(top.values <= 0, -1)
        return Links(None, keys, weights)

    def by_head(self, k: int) -> Iterator[Links]:
        """Head by head in order of modules, each made when it is asked for."""
        number = 0
        for module in self._modules if self._name is not None else ():
            found, weights = self._module(module)
            for head in range(found.shape[0]):
                yield Links(number, found[head, :, :k].long(), weights[head, :, :k])
                number += 1

    def _module(self, module: str) -> tuple[Tensor, Tensor]:
        """Keys and weights [heads, queries, k] of all calls; −1 and 0 in rows that no call had."""
        calls = [(start, call, call[self._name or ""][0]) for start, call in placed(self._trace, module)]
        h, _, k = calls[0][2].shape
        keys = torch.full((h, self._queries, k), -1, dtype=torch.int32)
        weights = torch.zeros(h, self._queries, k)
        for start, call, found in calls:
            rows = slice(start, start + min(found.shape[1], self._queries - start))
            found = found[:, : max(0, rows.stop - rows.start)]
            if self.measure == "weight":
                given = call.matrix().entries(call[self._name or ""])[0, :, : found.shape[1]]
            else:
                given = (found >= 0).float() / k
            keys[:, rows] = (found + call.key_positions.start).masked_fill(found < 0, -1).int()
            weights[:, rows] = given.float()
        return keys, weights
