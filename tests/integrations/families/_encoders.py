"""Models that only read: one stack, in both directions."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from transformers import (
    BertConfig,
    BertModel,
    DistilBertConfig,
    DistilBertModel,
    ModernBertConfig,
    ModernBertModel,
    PreTrainedModel,
    RobertaConfig,
    RobertaModel,
    ViTConfig,
    ViTModel,
)

from ._family import (
    COMMON,
    VOCABULARY,
    WINDOW,
    Attention,
    Family,
    Inputs,
    Pattern,
    full,
    layers,
    sliding_both_ways,
    text,
)

_SIZES = ("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "initializer_range")


def _encoder(model: type[PreTrainedModel], config: type, **more: Any) -> Callable[[], PreTrainedModel]:
    sizes = {name: COMMON[name] for name in _SIZES}
    how = {"add_pooling_layer": False} if model in (BertModel, RobertaModel, ViTModel) else {}
    return lambda: model(config(**{**sizes, **more}, attn_implementation="eager"), **how)


def _distilbert() -> PreTrainedModel:
    return DistilBertModel(
        DistilBertConfig(
            vocab_size=VOCABULARY,
            dim=32,
            hidden_dim=48,
            n_layers=2,
            n_heads=4,
            initializer_range=0.3,
            max_position_embeddings=64,
            pad_token_id=0,
            attn_implementation="eager",
        )
    )


def _family(build: Callable[[], PreTrainedModel], names: str, *patterns: Pattern) -> Family:
    attention = Attention("encoder", layers(names), patterns=patterns or (full, full))
    return Family(build, (attention,), text("encoder"))


def _patches(padding: str) -> Inputs:
    """Two images of nine patches: with the class token ten tokens, none of them padding."""
    pixels = torch.randn(2, 3, 12, 12, generator=torch.Generator().manual_seed(1))
    real = torch.ones(2, 10, dtype=torch.bool)
    return Inputs({"pixel_values": pixels}, {"encoder": real}, real)


_VOCABULARY: dict[str, Any] = {"vocab_size": VOCABULARY, "pad_token_id": 0, "max_position_embeddings": 64}
_TOKENS = {f"{name}_token_id": 1 for name in ("bos", "eos", "cls", "sep")}

ENCODER_FAMILIES: Mapping[str, Family] = {
    "bert": _family(_encoder(BertModel, BertConfig, **_VOCABULARY), "encoder.layer.{}.attention.self"),
    "roberta": _family(_encoder(RobertaModel, RobertaConfig, **_VOCABULARY), "encoder.layer.{}.attention.self"),
    "modernbert": _family(
        _encoder(
            ModernBertModel,
            ModernBertConfig,
            **_VOCABULARY,
            **_TOKENS,
            initializer_cutoff_factor=2.0,
            local_attention=2 * WINDOW,
            layer_types=["sliding_attention", "full_attention"],
        ),
        "layers.{}.attn",
        sliding_both_ways,
        full,
    ),
    "distilbert": _family(_distilbert, "transformer.layer.{}.attention"),
    "vit": Family(
        _encoder(ViTModel, ViTConfig, image_size=12, patch_size=4),
        (Attention("encoder", layers("layers.{}.attention")),),
        _patches,
    ),
}
