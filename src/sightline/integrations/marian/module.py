"""The Marian student as a Transformers model: a Transformer encoder, and a decoder that is recurrent where it looks
back and attends where it looks at the source.

    encoder   h ← norm(h + attention(h, h));   h ← norm(h + ffn(h))
    decoder   f = σ(h·Wf + bf);   c ← f ∘ c + (1 − f) ∘ (h·W);   h ← norm(h + relu(c))         (SSRU)
              h ← norm(h + attention(h, source));   h ← norm(h + ffn(h))
    logits    h · Eᵀ + b

Layers are named as in Transformers' own Marian, and attention goes through its attention interface, so that all which
works on its models works on this one.

Source: Kim et al., "From Research to Production and Back: Ludicrously Fast Neural Machine Translation" (2019), for the
SSRU; Vaswani et al. (2017) for the rest. Which of the many variants it is was read off Marian's settings.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import GenerationMixin, PreTrainedModel
from transformers import initialization as init
from transformers.masking_utils import create_bidirectional_mask
from transformers.modeling_outputs import BaseModelOutput, BaseModelOutputWithPastAndCrossAttentions, Seq2SeqLMOutput
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS
from transformers.utils.generic import can_return_tuple
from transformers.utils.output_capturing import OutputRecorder, capture_outputs

from ...errors import Unsupported
from .cache import DecoderCache
from .configuration import MarianSsruConfig

__all__ = ["MarianDecoderLayer", "MarianSsruForTranslation", "positions"]


class MarianAttention(nn.Module):
    """softmax(q·kᵀ / √(d/h)) · v over h heads, by whatever implementation the configuration names."""

    is_causal = False

    def __init__(self, config: MarianSsruConfig, heads: int) -> None:
        super().__init__()
        self.config, self.heads = config, heads
        self.scaling = (config.d_model // heads) ** -0.5
        self.q_proj = nn.Linear(config.d_model, config.d_model)
        self.k_proj = nn.Linear(config.d_model, config.d_model)
        self.v_proj = nn.Linear(config.d_model, config.d_model)
        self.out_proj = nn.Linear(config.d_model, config.d_model)

    def keys_and_values(self, states: Tensor) -> tuple[Tensor, Tensor]:
        """What is attended to: keys and values [b,h,m,d/h] of states [b,m,d]."""
        return self._by_head(self.k_proj(states)), self._by_head(self.v_proj(states))

    def forward(
        self, hidden_states: Tensor, keys: Tensor, values: Tensor, attention_mask: Tensor | None, **kwargs: Any
    ) -> tuple[Tensor, Tensor | None]:
        """The output [b,n,d], and the weights [b,h,n,m] where the implementation has them."""
        attend = ALL_ATTENTION_FUNCTIONS.get_interface(self.config._attn_implementation or "eager", _eager)
        output, weights = attend(
            self,
            self._by_head(self.q_proj(hidden_states)),
            keys,
            values,
            attention_mask,
            scaling=self.scaling,
            dropout=0.0,
            **kwargs,
        )
        return self.out_proj(output.reshape(hidden_states.shape)), weights

    def weighed(
        self, hidden_states: Tensor, keys: Tensor, values: Tensor, added: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """`forward` by the definition, whatever implementation is named: the output, and the weights [b,h,n,m].

        `added` [b,1,1,m] is added to the logits: −∞ where a key is padding.
        """
        output, weights = _eager(self, self._by_head(self.q_proj(hidden_states)), keys, values, added, self.scaling)
        return self.out_proj(output.reshape(hidden_states.shape)), weights

    def _by_head(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (self.heads, -1)).transpose(1, 2)


def _eager(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float,
    **_unread: Any,
) -> tuple[Tensor, Tensor]:
    """The implementation "eager": the weights in memory. Its masks are numbers to add."""
    logits = query @ key.transpose(2, 3) * scaling
    weights = (logits if attention_mask is None else logits + attention_mask).softmax(-1)
    return (weights @ value).transpose(1, 2), weights


class MarianFeedForward(nn.Module):
    """relu(h·W1 + b1)·W2 + b2."""

    def __init__(self, config: MarianSsruConfig, width: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(config.d_model, width)
        self.fc2 = nn.Linear(width, config.d_model)

    def forward(self, hidden_states: Tensor) -> Tensor:
        return self.fc2(F.relu(self.fc1(hidden_states)))


class MarianSsru(nn.Module):
    """f = σ(h·Wf + bf), c ← f ∘ c + (1 − f) ∘ (h·W), out = relu(c): the simpler simple recurrent unit.

    The products are made for all positions at once; only the recurrence itself, element by element, goes one by one.
    """

    def __init__(self, config: MarianSsruConfig) -> None:
        super().__init__()
        self.forget = nn.Linear(config.d_model, config.d_model)
        self.update = nn.Linear(config.d_model, config.d_model, bias=False)

    def forward(self, hidden_states: Tensor, cell: Tensor) -> tuple[Tensor, Tensor]:
        """The output [b,n,d] of hidden states [b,n,d] that follow the cell [b,d], and the cell after them."""
        keep = torch.sigmoid(self.forget(hidden_states))
        added = (1 - keep) * self.update(hidden_states)
        cells: list[Tensor] = []
        for kept, new in zip(keep.unbind(1), added.unbind(1), strict=True):
            cell = kept * cell + new
            cells.append(cell)
        return F.relu(torch.stack(cells, dim=1)), cell


class MarianEncoderLayer(nn.Module):
    """Self-attention and feed-forward, each added to its input and then normalised."""

    def __init__(self, config: MarianSsruConfig) -> None:
        super().__init__()
        self.self_attn = MarianAttention(config, config.encoder_attention_heads)
        self.self_attn_layer_norm = nn.LayerNorm(config.d_model, config.layer_norm_eps)
        self.ffn = MarianFeedForward(config, config.encoder_ffn_dim)
        self.final_layer_norm = nn.LayerNorm(config.d_model, config.layer_norm_eps)

    def forward(self, hidden_states: Tensor, attention_mask: Tensor | None, **kwargs: Any) -> Tensor:
        keys, values = self.self_attn.keys_and_values(hidden_states)
        attended, _ = self.self_attn(hidden_states, keys, values, attention_mask, **kwargs)
        hidden_states = self.self_attn_layer_norm(hidden_states + attended)
        return self.final_layer_norm(hidden_states + self.ffn(hidden_states))


class MarianDecoderLayer(nn.Module):
    """SSRU, cross-attention and feed-forward, each added to its input and then normalised."""

    def __init__(self, config: MarianSsruConfig) -> None:
        super().__init__()
        self.rnn = MarianSsru(config)
        self.rnn_layer_norm = nn.LayerNorm(config.d_model, config.layer_norm_eps)
        self.encoder_attn = MarianAttention(config, config.decoder_attention_heads)
        self.encoder_attn_layer_norm = nn.LayerNorm(config.d_model, config.layer_norm_eps)
        self.ffn = MarianFeedForward(config, config.decoder_ffn_dim)
        self.final_layer_norm = nn.LayerNorm(config.d_model, config.layer_norm_eps)

    def forward(
        self,
        hidden_states: Tensor,
        cell: Tensor,
        source: tuple[Tensor, Tensor],
        attention_mask: Tensor | None,
        **kwargs: Any,
    ) -> tuple[Tensor, Tensor]:
        """The layer's output [b,n,d] and its cell [b,d] after it."""
        remembered, cell = self.rnn(hidden_states, cell)
        hidden_states = self.rnn_layer_norm(hidden_states + remembered)
        attended, _ = self.encoder_attn(hidden_states, *source, attention_mask, **kwargs)
        hidden_states = self.encoder_attn_layer_norm(hidden_states + attended)
        return self.final_layer_norm(hidden_states + self.ffn(hidden_states)), cell


class MarianSsruPreTrainedModel(PreTrainedModel):
    """What the parts have in common."""

    config_class = MarianSsruConfig
    base_model_prefix = "model"
    main_input_name = "input_ids"
    _supports_sdpa = True
    _is_stateful = True  # a cell cannot go back to an earlier position, which some ways of generating would need

    config: MarianSsruConfig

    def _embed(self, tokens: nn.Embedding, ids: Tensor, start: int = 0) -> Tensor:
        """√d · E[ids] + positions, [b,n,d], the first at position `start`."""
        embedded = tokens(ids) * math.sqrt(self.config.d_model)
        return embedded + positions(start, ids.shape[1], self.config.d_model).to(embedded)


def positions(start: int, count: int, width: int) -> Tensor:
    """[count, width]: sin(i·r) in the first half and cos(i·r) in the second, r from 1 to 1/10000, evenly in log r."""
    half = width // 2
    rates = torch.exp(torch.arange(half, dtype=torch.float64) * (-math.log(10000) / max(half - 1, 1)))
    angles = torch.arange(start, start + count, dtype=torch.float64)[:, None] * rates
    return torch.cat([angles.sin(), angles.cos()], dim=-1)


class MarianSsruEncoder(MarianSsruPreTrainedModel):
    """Source tokens [b,m] → their states [b,m,d]."""

    _can_record_outputs = {  # noqa: RUF012  (the base class's own declaration)
        "hidden_states": MarianEncoderLayer,
        "attentions": MarianAttention,
    }

    def __init__(self, config: MarianSsruConfig) -> None:
        super().__init__(config)
        self.embed_tokens = nn.Embedding(config.vocab_size, config.d_model, config.pad_token_id)
        self.layers = nn.ModuleList([MarianEncoderLayer(config) for _ in range(config.encoder_layers)])
        self.post_init()

    @capture_outputs
    def forward(self, input_ids: Tensor, attention_mask: Tensor | None = None, **kwargs: Any) -> BaseModelOutput:
        """Encode tokens; `attention_mask` [b,m] is 1 for tokens and 0 for padding."""
        hidden_states = self._embed(self.embed_tokens, input_ids)
        mask = create_bidirectional_mask(self.config, hidden_states, attention_mask)
        for layer in self.layers:
            hidden_states = layer(hidden_states, mask, **kwargs)
        return BaseModelOutput(last_hidden_state=hidden_states)


class MarianSsruDecoder(MarianSsruPreTrainedModel):
    """Target tokens [b,n] and the source's states [b,m,d] → states [b,n,d] that predict the next tokens."""

    _can_record_outputs = {  # noqa: RUF012  (the base class's own declaration)
        "hidden_states": MarianDecoderLayer,
        "cross_attentions": OutputRecorder(MarianAttention, index=1, layer_name="encoder_attn"),
    }

    def __init__(self, config: MarianSsruConfig) -> None:
        super().__init__(config)
        self.embed_tokens = nn.Embedding(config.vocab_size, config.d_model, config.pad_token_id)
        self.layers = nn.ModuleList([MarianDecoderLayer(config) for _ in range(config.decoder_layers)])
        self.post_init()

    @capture_outputs
    def forward(
        self,
        input_ids: Tensor,
        encoder_hidden_states: Tensor,
        encoder_attention_mask: Tensor | None = None,
        past_key_values: DecoderCache | None = None,
        use_cache: bool = False,
        **kwargs: Any,
    ) -> BaseModelOutputWithPastAndCrossAttentions:
        """Read tokens after those in `past_key_values`, if any. With `use_cache` what was read is handed back."""
        start = 0 if past_key_values is None else past_key_values.length
        hidden_states = self._embed(self.embed_tokens, input_ids, start)
        if past_key_values is None:
            nothing = hidden_states.new_zeros(hidden_states.shape[0], hidden_states.shape[2])
            cells = [nothing] * len(self.layers)
            attentions: list[Any] = [layer.encoder_attn for layer in self.layers]
            source = [attention.keys_and_values(encoder_hidden_states) for attention in attentions]
        else:
            cells, source = past_key_values.cells, past_key_values.source
        mask = create_bidirectional_mask(
            self.config, hidden_states, encoder_attention_mask, encoder_hidden_states=encoder_hidden_states
        )
        after: list[Tensor] = []
        for layer, before, kept in zip(self.layers, cells, source, strict=True):
            hidden_states, cell = layer(hidden_states, before, kept, mask, **kwargs)
            after.append(cell)
        return BaseModelOutputWithPastAndCrossAttentions(
            last_hidden_state=hidden_states,
            past_key_values=DecoderCache(start + input_ids.shape[1], after, source) if use_cache else None,  # type: ignore[arg-type]
        )


class MarianSsruForTranslation(MarianSsruPreTrainedModel, GenerationMixin):
    """The whole model, with `generate`. Embeddings of source, target and output are one matrix.

    model(input_ids, attention_mask, decoder_input_ids).logits [b,n,v]; `labels` [b,n] in place of `decoder_input_ids`
    give the loss too, −100 where there is none. Decoding starts from `config.decoder_start_token_id`. Targets are
    padded on the right.
    """

    _tied_weights_keys = {  # noqa: RUF012  (the base class's own declaration)
        "encoder.embed_tokens.weight": "shared.weight",
        "decoder.embed_tokens.weight": "shared.weight",
    }

    def __init__(self, config: MarianSsruConfig) -> None:
        super().__init__(config)
        self.shared: nn.Embedding = nn.Embedding(config.vocab_size, config.d_model, config.pad_token_id)
        self.encoder = MarianSsruEncoder(config)
        self.decoder = MarianSsruDecoder(config)
        self.output_bias = nn.Parameter(torch.zeros(config.vocab_size))
        self.post_init()

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        if module is self:
            init.zeros_(self.output_bias)
            init.constant_(self.output_bias[self.config.pad_token_id], -math.inf)

    def get_input_embeddings(self) -> nn.Embedding:
        """The one matrix of embeddings."""
        return self.shared

    def set_input_embeddings(self, value: nn.Module) -> None:
        """Replace it, for source, target and output alike."""
        embeddings = cast(nn.Embedding, value)
        self.shared = self.encoder.embed_tokens = self.decoder.embed_tokens = embeddings

    @classmethod
    def _supports_default_dynamic_cache(cls) -> bool:
        return False  # the decoder makes its own, see `DecoderCache`

    def prepare_decoder_input_ids_from_labels(self, labels: Tensor) -> Tensor:
        """Labels [b,n] shifted by one: the start token before them, their last left out."""
        start = labels.new_full((labels.shape[0], 1), self.config.decoder_start_token_id)
        shifted = torch.cat([start, labels[:, :-1]], dim=1)
        return shifted.masked_fill(shifted == -100, self.config.pad_token_id)

    @can_return_tuple
    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        decoder_input_ids: Tensor | None = None,
        decoder_attention_mask: Tensor | None = None,
        encoder_outputs: BaseModelOutput | tuple[Tensor, ...] | None = None,
        past_key_values: DecoderCache | None = None,
        labels: Tensor | None = None,
        use_cache: bool | None = None,
        **kwargs: Any,
    ) -> Seq2SeqLMOutput:
        """See the class. Raises Unsupported for a mask over the target, and for a cache of another model's."""
        self._check(decoder_attention_mask, past_key_values)
        if encoder_outputs is None:
            encoded: Any = self.encoder(input_ids, attention_mask, **kwargs)
        elif isinstance(encoder_outputs, tuple):
            encoded = BaseModelOutput(*encoder_outputs)  # type: ignore[arg-type]
        else:
            encoded = encoder_outputs
        if labels is not None:
            use_cache = False
            if decoder_input_ids is None:
                decoder_input_ids = self.prepare_decoder_input_ids_from_labels(labels)
        decoded = self.decoder(
            decoder_input_ids,
            encoded.last_hidden_state,
            attention_mask,
            past_key_values,
            self.config.use_cache if use_cache is None else use_cache,
            **kwargs,
        )
        logits = F.linear(decoded.last_hidden_state, self.shared.weight, self.output_bias)
        loss = None if labels is None else F.cross_entropy(logits.flatten(0, 1), labels.flatten())
        return Seq2SeqLMOutput(
            loss=loss,  # type: ignore[arg-type]
            logits=logits,  # type: ignore[arg-type]
            past_key_values=decoded.past_key_values,
            decoder_hidden_states=decoded.hidden_states,
            cross_attentions=decoded.cross_attentions,
            encoder_last_hidden_state=encoded.last_hidden_state,
            encoder_hidden_states=encoded.hidden_states,
            encoder_attentions=encoded.attentions,
        )

    def write_greedily(
        self, states: Tensor, mask: Tensor, limits: Sequence[int]
    ) -> tuple[list[list[int]], list[Tensor]]:
        """See `greedy`: tokens, and their weights in `config.alignment_layer` (the last layer's where it is None)."""
        from .greedy import greedy

        layer = self.config.alignment_layer
        return greedy(self, states, mask, limits, -1 if layer is None else layer)

    def _check(self, target_mask: Tensor | None, cache: object) -> None:
        if target_mask is not None:
            raise Unsupported(
                f"{type(self).__name__} was given a decoder_attention_mask; its decoder is recurrent and reads all "
                "that stands before a token. Pad targets on the right and leave the mask out."
            )
        if cache is not None and not isinstance(cache, DecoderCache):
            raise Unsupported(
                f"{type(self).__name__} was given a {type(cache).__name__} as past_key_values; it keeps a state in "
                "place of keys and values. Leave it out, and the model makes its own."
            )
