"""One attention call of a model, and who may listen to it.

An integration (`sightline.integrations.transformers`) turns each attention call of a running model into a `Call` and
offers it to `Listener`s.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, Protocol

from torch import Tensor, nn

from ..functional import Observed
from ..matrix import AttentionMatrix
from ..reductions import Reduction

__all__ = ["Call", "Kind", "Listener"]

Kind = Literal["encoder", "decoder", "cross"]
"""Whose tokens attend to whose: an encoder's to its own, a decoder's to its own, a decoder's to the encoder's."""


@dataclass(frozen=True)
class Call:
    """One attention call: a module of the model, run once.

    `name` is the module's name in `model.named_modules()`, `matrix` the attention matrix P [b,h,n,m] of the call (never
    stored), `value` [b,hk,m,dv] what it is multiplied with. Keeping a Call keeps its q, k and v alive.

    Positions are slots of the model's input, padding included: row i of P is the token at `query_start + i`, column j
    the token at `key_start + j`. `query_start` is None where the model does not say, as in cross-attention.
    """

    name: str
    module: nn.Module
    matrix: AttentionMatrix
    value: Tensor
    query_start: int | None = None
    key_start: int = 0
    kind: Kind = "decoder"


class Listener(Protocol):
    """Hears every attention call of a model. Raising from either method stops the model."""

    def reductions(self, call: Call) -> Mapping[str, Reduction]:
        """What to observe in this call; {} observes nothing. Asked once per call, before it is computed."""
        ...

    def received(self, call: Call, observed: Observed) -> None:
        """What came of it. Called for every call, also where `reductions` was {}.

        `observed.output` [b,h,n,dv] is the tensor that the model goes on with: it carries the autograd graph, and a
        hook registered on it sees the model's gradient.
        """
        ...
