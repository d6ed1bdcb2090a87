"""What a trace says of one kind of attention, made small enough for a page.

Each head has a map of at most 64 × 64 blocks, and where there is room the strongest sources of every query token.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from ..recording import Kind
from ..recording.maps import Maps
from ._packing import floats, integers, thousandths

__all__ = ["Attention", "Head", "Links", "Maps"]


@dataclass(frozen=True)
class Head:
    """A head: its module, the number of the module's layer, its own number, and what stands out (None: not recorded).

    entropy, sink, local and retrieval are those of `sightline.recording.overview.Head`.
    """

    module: str
    layer: int
    head: int
    entropy: float | None
    sink: float | None
    local: float | None
    retrieval: float | None


@dataclass(frozen=True)
class Links:
    """The strongest sources of every query token: keys [n, k], −1 where there are fewer, and their weights [n, k].

    The keys are those that `TopK` lists. Of all heads together, `head` None, weights are Σ over heads / number of
    heads, where a key that a head does not list counts 0. See `Attention.measure` for what a weight is.
    """

    head: int | None
    keys: Tensor = field(repr=False)
    weights: Tensor = field(repr=False)


@dataclass(frozen=True)
class Attention:
    """One kind of attention of a trace: queries are the tokens of the produced text, keys those of the document.

    `entropy` [queries] is the mean over heads, in nats; `received` [keys] the share of all attention. `sinks` are keys
    that get a tenth and more of all. `measure` is what the weights of links are, a name in `MEASURES`: "weight" where
    queries and keys were kept, so that the weights could be computed, else "places". `outside` names the tokens, by
    side and position, that lie nowhere in the text.
    Parts that were not recorded are None or empty.
    """

    kind: Kind
    heads: tuple[Head, ...]
    maps: Maps | None
    links: tuple[Links, ...]
    measure: str
    entropy: Tensor | None = field(repr=False)
    received: Tensor | None = field(repr=False)
    sinks: tuple[int, ...]
    outside: Mapping[str, Mapping[int, str]] = field(repr=False)
    first: tuple[int, int] | None = None
    """The query token, and the index of the head, that a page shows first."""

    def to_dict(self) -> dict[str, Any]:
        """As plain data for JSON; long runs of numbers are packed (`sightline.report._packing`)."""
        return {
            "kind": self.kind,
            "heads": [vars(head) for head in self.heads],
            "maps": None if self.maps is None else _maps(self.maps),
            "links": {
                "heads": [links.head for links in self.links],
                "k": [links.keys.shape[1] for links in self.links],
                **packed(self.links),
            },
            "measure": self.measure,
            "entropy": None if self.entropy is None else floats(self.entropy),
            "received": None if self.received is None else floats(self.received),
            "sinks": list(self.sinks),
            "outside": {side: {str(at): text for at, text in there.items()} for side, there in self.outside.items()},
            "first": self.first,
        }


def packed(links: Sequence[Links]) -> Mapping[str, str]:
    """Where keys lie and their weights, those of one head after those of the one before.

    Most keys are near: they are given by d = query − key, as 2d, or −2d − 1 where d is negative; −1 is no key.
    """
    if not links:
        return {"back": "", "weights": ""}
    return {
        "back": integers(torch.cat([_back(each.keys).flatten() for each in links])),
        "weights": floats(torch.cat([each.weights.flatten() for each in links])),
    }


def _back(keys: Tensor) -> Tensor:
    d = torch.arange(keys.shape[0])[:, None] - keys
    return torch.where(d >= 0, 2 * d, -2 * d - 1).masked_fill(keys < 0, -1)


def _maps(maps: Maps) -> dict[str, Any]:
    shape: Sequence[int] = maps.shares.shape
    return {"rows": maps.rows, "cols": maps.cols, "shape": list(shape), "shares": thousandths(maps.shares)}
