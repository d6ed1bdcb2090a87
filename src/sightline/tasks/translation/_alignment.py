"""Where a model with an encoder looked for what it wrote, for several sentences at once.

A model that was trained to align words says so: its configuration has `alignment_layer`, and the attention of that
decoder layer to the source, the mean of its heads, is the alignment. Any other model is asked by relevance, as in
`sightline.evidence.source_relevance`, word by word.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from ...errors import Unsupported
from ...evidence import Gatherer
from ...functional import Observed
from ...recording import Call
from ...reductions import Reduction, Rows

__all__ = ["alignment_layer", "attention_weights", "encoded", "word_relevance"]

_LOGITS = 1 << 24
"""Logits that are differentiated at once: sentences · tokens · vocabulary, at most, or those of one sentence."""


def alignment_layer(network: Any) -> int | None:
    """The decoder layer that was trained to align words; None where the model does not declare one."""
    return getattr(network.config, "alignment_layer", None)


def encoded(states: Tensor) -> Any:
    """States as an encoder's output; a new one each time, since generation with beams changes it in place."""
    from transformers.modeling_outputs import BaseModelOutput

    return BaseModelOutput(last_hidden_state=states)  # type: ignore[arg-type]


class _Looks:
    """Keeps the attention of the decoder's layers to the source, the mean of their heads [b,n,m]."""

    def __init__(self) -> None:
        self.layers: list[Tensor] = []

    def reductions(self, call: Call) -> Mapping[str, Reduction]:
        """See `Listener`: every row. Sentences have few."""
        if call.kind != "cross":
            return {}
        return {"rows": Rows(torch.arange(call.matrix.shape[2], device=call.value.device))}

    def received(self, call: Call, observed: Observed) -> None:
        """See `Listener`."""
        if call.kind == "cross":
            self.layers.append(observed["rows"].mean(1).cpu())


@torch.no_grad()
def attention_weights(network: Any, states: Tensor, mask: Tensor, out: Tensor, layer: int, name: str) -> Tensor:
    """What each written token gave to each that was read, [b,n,m], in a layer of the decoder.

    states [b,m,d] are the encoder's, mask [b,m] says which are real, out [b,n+1] is what was written after the start
    token. Row i is that of the token after out[:, i]. The decoder reads once more, all tokens together.
    """
    # Imported late: with it comes all of Transformers.
    from ...integrations.transformers import listening

    looks = _Looks()
    with listening(network, looks):
        network.get_decoder()(out[:, :-1], encoder_hidden_states=states, encoder_attention_mask=mask, use_cache=False)
    if not looks.layers:
        raise Unsupported(
            f"word alignment by {name} was asked for; no attention from its decoder to its encoder was heard. Ask for "
            "the translation alone."
        )
    return looks.layers[layer]


def word_relevance(
    network: Any, states: Tensor, mask: Tensor, out: Tensor, written: Sequence[Sequence[Sequence[int]]]
) -> list[Tensor]:
    """The share of each source token in the relevance of each word written, [words, m] for each sentence.

        c_j = Σ_layers Σ_heads Σ_i max(0, P_ij · (dO_i · v_j))      share_j = c_j / Σ_j c_j

    over cross-attention, dO the gradient of Σ_{t in word} log p(out_{t+1} | out up to t, source). Arguments are as in
    `attention_weights`; `written` has the positions of each word's tokens, from 0 for the first after the start token.
    A row is 0 where nothing is relevant.

    The decoder reads once more; then follows a backward pass through it for the first words of all sentences, one for
    their second words, and so on: as many as the longest sentence has words.
    """
    each = max(1, _LOGITS // max(1, (out.shape[1] - 1) * int(network.config.get_text_config(decoder=True).vocab_size)))
    found: list[Tensor] = []
    for at in range(0, len(out), each):
        part = slice(at, at + each)
        found += _word_relevance(network, states[part], mask[part], out[part], written[part])
    return found


def _word_relevance(
    network: Any, states: Tensor, mask: Tensor, out: Tensor, written: Sequence[Sequence[Sequence[int]]]
) -> list[Tensor]:
    from ...integrations.transformers import listening

    gatherer = Gatherer(states.shape[1], "cross", len(states))
    leaf = states.detach().requires_grad_(True)
    with listening(network, gatherer), torch.enable_grad():
        logits = network(
            encoder_outputs=encoded(leaf), attention_mask=mask, decoder_input_ids=out[:, :-1], use_cache=False
        ).logits
        exact = logits.to(torch.promote_types(logits.dtype, torch.float32))
        log_probs = torch.log_softmax(exact, dim=-1).gather(2, out[:, 1:, None])[..., 0]
    rows: list[list[Tensor]] = [[] for _ in written]
    for word in range(max(map(len, written), default=0)):
        chosen = torch.zeros_like(log_probs)
        for i, positions in enumerate(written):
            if word < len(positions):
                chosen[i, list(positions[word])] = 1
        gatherer.total.zero_()
        # The hooks do the work. Sentences do not see each other, so that one pass serves a word of each.
        torch.autograd.grad(log_probs, leaf, chosen, retain_graph=True)
        shares = gatherer.total / gatherer.total.sum(-1, keepdim=True).clamp_min(torch.finfo(torch.float64).tiny)
        for i, positions in enumerate(written):
            if word < len(positions):
                rows[i].append(shares[i])
    return [torch.stack(one) if one else torch.zeros(0, states.shape[1], dtype=torch.float64) for one in rows]
