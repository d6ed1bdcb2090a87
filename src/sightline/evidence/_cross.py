"""Where in its source a model with an encoder looked for what it produced: over cross-attention, token by token.

The source is encoded once. The produced tokens are run through the decoder together, each after those before it
(teacher forcing), and their log-probability is differentiated no further than to the encoder's states.

Source: as for keys of a decoder, see `sightline.evidence`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ..errors import ModelError, ShapeError, SpecError
from ._relevance import Gatherer

_ROWS = 256
"""Rows of the decoder run at once, for variants that differ in what they hide."""


def source_relevance(
    model: Any, source: Sequence[int], produced: Sequence[int], *, of: Sequence[int] | None = None
) -> tuple[Tensor, float]:
    """c_j of every token j of the source, [m] in float64, and the log-probability in nats that it explains.

        c_j = Σ_layers Σ_heads Σ_i max(0, P_ij · (dO_i · v_j))         over cross-attention, i over the decoder's rows

    dO is the gradient of Σ_{t in of} log p(produced_t | produced before t, source): of all tokens, or of those at the
    positions `of`, such as those of one word. `source` is as the encoder reads it, `produced` without the start token.
    What c_j credits is the encoder's state at j, which holds some of what stands around j. One forward and one backward
    pass of the decoder, O(T · m) time per head and layer and O(T + m) memory for attention.

    Raises ModelError for a model without an encoder, SpecError for nothing produced and positions that are not there.
    """
    from ..integrations.transformers import listening

    rows, explained = _checked(model, source, produced, of)
    gatherer = Gatherer(len(source), "cross")
    with listening(model, gatherer):
        states = _encoded(model, source).requires_grad_(True)
        with torch.enable_grad():
            total = _log_prob(_decoded(model, states, rows)[0], produced, explained)
    torch.autograd.grad(total, states)
    return gatherer.total[0], float(total.detach())


@torch.no_grad()
def source_direct_drops(
    model: Any, source: Sequence[int], hidden: Tensor, produced: Sequence[int], *, of: Sequence[int] | None = None
) -> list[float]:
    """log p(produced | source) − log p(produced | no row of the decoder may attend to hidden tokens), in nats.

    One drop for each row of `hidden` [s, m], boolean, True where a token of the source is hidden. Only cross-attention
    changes: the encoder read the whole source, once. A row that sees no token takes nothing from the source. `source`,
    `produced`, `of` and what is raised are as in `source_relevance`; ShapeError for another shape of `hidden`.
    """
    from ..integrations.transformers import attached, hiding

    rows, explained = _checked(model, source, produced, of)
    if hidden.ndim != 2 or hidden.shape[1] != len(source) or hidden.dtype != torch.bool:
        raise ShapeError(
            f"hidden must be boolean [s, m] over the {len(source)} tokens of the source; it is {hidden.dtype} with "
            f"shape {tuple(hidden.shape)}."
        )
    with attached(model):
        states = _encoded(model, source)
    found: list[float] = []
    for part in torch.cat([torch.zeros_like(hidden[:1]), hidden]).split(max(1, _ROWS // len(produced))):
        with hiding(model, part, "cross"):
            logits = _decoded(model, states.expand(len(part), -1, -1), rows)
        found += [float(_log_prob(one, produced, explained)) for one in logits]
    return [found[0] - other for other in found[1:]]


def _checked(
    model: Any, source: Sequence[int], produced: Sequence[int], of: Sequence[int] | None
) -> tuple[list[int], list[int]]:
    """What the decoder reads, and the positions that are explained."""
    if not getattr(model.config, "is_encoder_decoder", False):
        raise ModelError(
            f"{type(model).__name__} was asked where in its source it looked; it has no encoder that reads one. Use "
            "key_relevance for a decoder-only model."
        )
    if not source or not produced:
        raise SpecError(
            f"the source has {len(source)} tokens and {len(produced)} were produced; both need at least one."
        )
    explained = list(range(len(produced)) if of is None else of)
    if not explained or not all(0 <= t < len(produced) for t in explained):
        raise SpecError(f"of={explained} must name positions of the {len(produced)} produced tokens, from 0.")
    start = getattr(model.generation_config, "decoder_start_token_id", None)
    if start is None:
        start = getattr(model.config, "decoder_start_token_id", None)
    if start is None:
        raise ModelError(
            f"{type(model).__name__} was asked for the log-probability of what it produced; its configuration does not "
            "say which token decoding starts from. Set model.generation_config.decoder_start_token_id."
        )
    return [int(start), *produced[:-1]], explained


@torch.no_grad()
def _encoded(model: Any, source: Sequence[int]) -> Tensor:
    """The encoder's states of the source, [1,m,c], a constant."""
    ids = torch.tensor([list(source)], device=model.device)
    return model.get_encoder()(input_ids=ids, attention_mask=torch.ones_like(ids)).last_hidden_state


def _decoded(model: Any, states: Tensor, rows: Sequence[int]) -> Tensor:
    """The logits [s,T,v] of the decoder's rows over the encoder's states [s,m,c]."""
    from transformers.modeling_outputs import BaseModelOutput

    b, m, _ = states.shape
    return model(
        encoder_outputs=BaseModelOutput(last_hidden_state=states),  # type: ignore[arg-type]
        attention_mask=torch.ones(b, m, dtype=torch.int64, device=states.device),
        decoder_input_ids=torch.tensor([list(rows)], device=states.device).expand(b, -1),
        use_cache=False,
    ).logits


def _log_prob(logits: Tensor, produced: Sequence[int], explained: Sequence[int]) -> Tensor:
    """Σ log softmax(logits_t)[produced_t] over the positions t to explain, in float32 or better; logits [T,v]."""
    at = torch.tensor(explained, device=logits.device)
    target = torch.tensor(list(produced), device=logits.device)[at]
    logits = logits[at].to(torch.promote_types(logits.dtype, torch.float32))
    return torch.log_softmax(logits, dim=-1).gather(1, target[:, None]).sum()
