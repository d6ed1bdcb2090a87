"""Models that read in one stack and write in another: three kinds of attention, each with a mask of its own."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from transformers import (
    BartConfig,
    BartForConditionalGeneration,
    M2M100Config,
    M2M100ForConditionalGeneration,
    MarianConfig,
    MarianMTModel,
    MT5Config,
    MT5ForConditionalGeneration,
    PegasusConfig,
    PegasusForConditionalGeneration,
    PreTrainedModel,
    T5Config,
    T5ForConditionalGeneration,
    WhisperConfig,
    WhisperForConditionalGeneration,
)

from ._family import VOCABULARY, Attention, Family, Inputs, batch, layers

WRITTEN = 7

_BART: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "d_model": 32,
    "encoder_layers": 2,
    "decoder_layers": 2,
    "encoder_attention_heads": 4,
    "decoder_attention_heads": 4,
    "encoder_ffn_dim": 48,
    "decoder_ffn_dim": 48,
    "init_std": 0.3,
    "max_position_embeddings": 64,
    "bos_token_id": 1,
    "eos_token_id": None,
    "pad_token_id": 0,
    "decoder_start_token_id": 2,
}
_T5: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "d_model": 32,
    "d_kv": 8,
    "d_ff": 48,
    "num_layers": 2,
    "num_heads": 4,
    "initializer_factor": 0.6,
    # Few buckets over a short distance, so that eleven tokens reach every one.
    "relative_attention_num_buckets": 8,
    "relative_attention_max_distance": 9,
    "eos_token_id": None,
    "pad_token_id": 0,
    "decoder_start_token_id": 0,
}


def _model(model: type[PreTrainedModel], config: type, sizes: Mapping[str, Any]) -> Callable[[], PreTrainedModel]:
    return lambda: model(config(**sizes, attn_implementation="eager"))


def _whisper() -> PreTrainedModel:
    sizes = {name: value for name, value in _BART.items() if name != "max_position_embeddings"}
    model = WhisperForConditionalGeneration(
        WhisperConfig(
            **sizes,
            num_mel_bins=8,
            max_source_positions=11,
            max_target_positions=32,
            suppress_tokens=None,
            begin_suppress_tokens=None,
            attn_implementation="eager",
        )
    )
    model.generation_config.no_timestamps_token_id = VOCABULARY - 1  # what a trained one brings along
    return model


def _both(padding: str) -> Inputs:
    """Padding on either side of what is read; of what is written, on the right alone.

    A written row that is padding on the left admits no key. Eager then lets it attend to everything, and it goes on to
    attend to the encoder with other numbers than ours: a difference in rows that mean nothing.
    """
    (ids, real), (written, kept) = batch(padding=padding), batch(WRITTEN, "right" if padding == "right" else "none", 2)
    given = {"input_ids": ids, "attention_mask": real, "decoder_input_ids": written, "decoder_attention_mask": kept}
    return Inputs(given, {"encoder": real.bool(), "decoder": kept.bool(), "cross": real.bool()}, kept.bool())


def _speech(padding: str) -> Inputs:
    """Two spectrograms of 22 frames, which Whisper halves to eleven states without padding."""
    (written, kept), g = batch(WRITTEN, "right" if padding == "right" else "none", 2), torch.Generator().manual_seed(1)
    sound, heard = torch.randn(2, 8, 22, generator=g), torch.ones(2, 11, dtype=torch.bool)
    given = {"input_features": sound, "decoder_input_ids": written, "decoder_attention_mask": kept}
    return Inputs(given, {"encoder": heard, "decoder": kept.bool(), "cross": heard}, kept.bool())


def _three(encoder: str, decoder: str, cross: str) -> tuple[Attention, ...]:
    return (
        Attention("encoder", layers(encoder), "encoder_attentions"),
        Attention("decoder", layers(decoder), "decoder_attentions"),
        Attention("cross", layers(cross), "cross_attentions"),
    )


_AS_BART = _three(
    "model.encoder.layers.{}.self_attn", "model.decoder.layers.{}.self_attn", "model.decoder.layers.{}.encoder_attn"
)
_AS_T5 = _three(
    "encoder.block.{}.layer.0.SelfAttention",
    "decoder.block.{}.layer.0.SelfAttention",
    "decoder.block.{}.layer.1.EncDecAttention",
)

ENCODER_DECODER_FAMILIES: Mapping[str, Family] = {
    "bart": Family(_model(BartForConditionalGeneration, BartConfig, _BART), _AS_BART, _both),
    "marian": Family(_model(MarianMTModel, MarianConfig, _BART), _AS_BART, _both),
    "m2m100": Family(_model(M2M100ForConditionalGeneration, M2M100Config, _BART), _AS_BART, _both),
    "pegasus": Family(_model(PegasusForConditionalGeneration, PegasusConfig, _BART), _AS_BART, _both),
    "whisper": Family(_whisper, _AS_BART, _speech),
    "t5": Family(_model(T5ForConditionalGeneration, T5Config, _T5), _AS_T5, _both),
    "mt5": Family(_model(MT5ForConditionalGeneration, MT5Config, _T5), _AS_T5, _both),
}
