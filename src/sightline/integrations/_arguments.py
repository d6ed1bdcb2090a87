"""What models pass to their attention besides q, k, v and a mask: what is harmless, and what is refused."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import nn

from ..errors import Unsupported

CHOSEN_WHILE_RUNNING = (
    "this model chooses the keys of each query while it runs (sparse attention), which a mask made before cannot say. "
    "Use the model's own implementation"
)

READ_ELSEWHERE: Mapping[str, str] = {
    "sliding_window": "the mask is made from the same number",
    "position_ids": "q and k arrive after the rotary embedding, and packed positions are in the mask",
    "position_embeddings": "q and k arrive after the rotary embedding",
    "cache_position": "k and v arrive after the cache, and the mask carries its positions",
    "past_key_values": "k and v arrive after the cache",
    "use_cache": "says what the model returns",
    "output_hidden_states": "says what the model returns",
    "output_router_logits": "says what the model returns",
    "return_dict": "says what the model returns",
    "num_items_in_batch": "scales the loss",
    "encoder_hidden_states": "k and v were made from them",
    "max_length_q": "restates cu_seq_lens_q, which is refused",
    "max_length_k": "restates cu_seq_lens_k, which is refused",
    "deterministic": "chooses among flash-attention's backward passes",
}
"""Keyword arguments that models pass along and that do not change the attention weights, each with the reason."""

REFUSED: Mapping[str, str] = {
    "output_attentions": "the matrix is never stored. Use sightline.record, or the model's own eager implementation",
    "cu_seq_lens_q": "packed sequences are read from position_ids: pass those, with use_cache=False and no "
    "attention_mask, and leave cu_seq_lens out",
    "cu_seq_lens_k": "packed sequences are read from position_ids: pass those, with use_cache=False and no "
    "attention_mask, and leave cu_seq_lens out",
    "seq_idx": "packed sequences are read from position_ids: pass those, with use_cache=False and no attention_mask",
    "indices": CHOSEN_WHILE_RUNNING,
    "block_indices": CHOSEN_WHILE_RUNNING,
    "cache": "continuous batching keeps k and v in pages. Use generate() instead",
}
"""Keyword arguments that do change the weights and that Sightline cannot honour, each with what to do."""


def check_arguments(module: nn.Module, dropout: float, kwargs: Mapping[str, Any]) -> None:
    """Raise Unsupported for dropout, and for keyword arguments that may mean something. None and False ask nothing."""
    if dropout:
        raise Unsupported(
            f"{type(module).__name__} asked for attention dropout {dropout}; Sightline computes the exact attention "
            "only. Call model.eval(), or set the model's attention dropout to 0."
        )
    for name, value in kwargs.items():
        if value is None or value is False or name in READ_ELSEWHERE:
            continue
        why = REFUSED.get(
            name,
            "its meaning is not known here, and leaving it out could change the result without a sign. Use the "
            "model's own implementation, and report this model",
        )
        raise Unsupported(f"{type(module).__name__} passed {name!r} to its attention; {why}.")
