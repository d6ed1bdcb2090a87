"""What a Marian model of this kind is made of: sizes, and nothing that is not read from its file."""

from __future__ import annotations

from transformers import PreTrainedConfig

__all__ = ["MODEL_TYPE", "MarianSsruConfig"]

MODEL_TYPE = "sightline-marian-ssru"
"""What config.json says of a saved one."""


class MarianSsruConfig(PreTrainedConfig):
    """Sizes of a translation model with a Transformer encoder and a recurrent (SSRU) decoder with cross-attention.

    `vocab_size` counts the pieces of the vocabulary and one more, at the end: the empty token, which is what padding
    holds and what decoding starts from. Its embedding is zero, and it is never generated.

    `alignment_layer` is the decoder layer whose attention to the source was trained to align words, its heads' mean;
    None where none was. These students learn to translate and to align at once (guided alignment), in the last layer.
    """

    model_type = MODEL_TYPE
    keys_to_ignore_at_inference = ("past_key_values",)
    attribute_map = {  # noqa: RUF012  (the base class's own declaration)
        "hidden_size": "d_model",
        "num_attention_heads": "encoder_attention_heads",
        "num_hidden_layers": "encoder_layers",
    }

    vocab_size: int = 32001
    d_model: int = 256
    encoder_layers: int = 6
    encoder_attention_heads: int = 8
    encoder_ffn_dim: int = 1536
    decoder_layers: int = 2
    decoder_attention_heads: int = 8
    decoder_ffn_dim: int = 1536
    layer_norm_eps: float = 1e-6
    initializer_range: float = 0.02
    is_encoder_decoder: bool = True
    tie_word_embeddings: bool = True
    use_cache: bool = True
    alignment_layer: int | None = -1
    pad_token_id: int = 32000  # type: ignore[assignment]
    decoder_start_token_id: int = 32000  # type: ignore[assignment]
    eos_token_id: int | list[int] | None = 0
    bos_token_id: int | None = None
