"""Tiny random Transformers models, and what eager says about them: the reference of every test in this folder."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import (
    BertConfig,
    BertModel,
    Gemma2Config,
    Gemma2ForCausalLM,
    GPT2Config,
    GPT2LMHeadModel,
    GptOssConfig,
    GptOssForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    Phi3Config,
    Phi3ForCausalLM,
    PreTrainedModel,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
)

VOCABULARY = 97
WINDOW = 4

# A spread-out initialisation: at the default one, attention is nearly uniform and every comparison would pass.
COMMON: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "initializer_range": 0.3,
    "bos_token_id": 1,
    "eos_token_id": None,
    "pad_token_id": 0,
}


@dataclass(frozen=True)
class Family:
    """How to build a tiny model, the name of layer i's attention, and each layer's sliding window (None: full)."""

    build: Callable[[], PreTrainedModel]
    attention: str
    windows: tuple[int | None, ...] = (None, None)
    causal: bool = True


def _decoder(model: type[PreTrainedModel], config: type, **more: Any) -> Callable[[], PreTrainedModel]:
    return lambda: model(config(**{**COMMON, **more}, attn_implementation="eager"))


def _gpt2() -> PreTrainedModel:
    return GPT2LMHeadModel(
        GPT2Config(
            vocab_size=VOCABULARY,
            n_embd=32,
            n_layer=2,
            n_head=4,
            n_positions=64,
            initializer_range=0.3,
            bos_token_id=1,
            eos_token_id=None,
            pad_token_id=0,
            attn_implementation="eager",
        )
    )


def _bert() -> PreTrainedModel:
    same = {k: COMMON[k] for k in ("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers")}
    return BertModel(
        BertConfig(**same, num_attention_heads=4, initializer_range=0.3, attn_implementation="eager"),
        add_pooling_layer=False,
    )


_LAYER = "model.layers.{}.self_attn"
_MIXED = ["sliding_attention", "full_attention"]

FAMILIES: Mapping[str, Family] = {
    "llama": Family(_decoder(LlamaForCausalLM, LlamaConfig), _LAYER),
    "qwen2": Family(
        _decoder(Qwen2ForCausalLM, Qwen2Config, use_sliding_window=True, sliding_window=WINDOW, layer_types=_MIXED),
        _LAYER,
        (WINDOW, None),
    ),
    "qwen3": Family(_decoder(Qwen3ForCausalLM, Qwen3Config, head_dim=8), _LAYER),
    "mistral": Family(_decoder(MistralForCausalLM, MistralConfig, sliding_window=WINDOW), _LAYER, (WINDOW, WINDOW)),
    "gemma2": Family(
        _decoder(
            Gemma2ForCausalLM,
            Gemma2Config,
            head_dim=8,
            query_pre_attn_scalar=8,
            sliding_window=WINDOW,
            layer_types=_MIXED,
            attn_logit_softcapping=2.0,
        ),
        _LAYER,
        (WINDOW, None),
    ),
    "phi3": Family(_decoder(Phi3ForCausalLM, Phi3Config), _LAYER),
    "gpt2": Family(_gpt2, "transformer.h.{}.attn"),
    "gpt_oss": Family(
        _decoder(
            GptOssForCausalLM,
            GptOssConfig,
            head_dim=8,
            sliding_window=WINDOW,
            layer_types=_MIXED,
            num_local_experts=2,
            num_experts_per_tok=1,
        ),
        _LAYER,
        (WINDOW, None),
    ),
    "bert": Family(_bert, "encoder.layer.{}.attention.self", causal=False),
}
DECODERS = [name for name, family in FAMILIES.items() if family.causal]


def build(family: str, seed: int = 0) -> PreTrainedModel:
    """A tiny random model, in eval mode, on eager attention."""
    torch.manual_seed(seed)
    return FAMILIES[family].build().eval()


def batch(length: int = 11, padding: str = "none", seed: int = 1) -> tuple[Tensor, Tensor]:
    """Two random sequences [2, length] and their 2-D mask; the first has three padding tokens on the side named."""
    ids = torch.randint(3, VOCABULARY, (2, length), generator=torch.Generator().manual_seed(seed))
    real = torch.ones_like(ids)
    if padding == "left":
        real[0, :3] = 0
    elif padding == "right":
        real[0, -3:] = 0
    return ids * real, real


def admitted(family: str, layer: int, real: Tensor, n: int) -> Tensor:
    """From first principles, bool [b, 1, n, m]: who sees whom, for the last n queries of tokens `real` [b, m]."""
    m = real.shape[1]
    i, j = torch.arange(m - n, m)[:, None], torch.arange(m)[None]
    seen = torch.ones(n, m, dtype=torch.bool)
    if FAMILIES[family].causal:
        seen = j <= i
    window = FAMILIES[family].windows[layer]
    if window is not None:
        seen = seen & (j > i - window)
    return (seen & real.bool()[:, None])[:, None]


def weights(attentions: Tensor, seen: Tensor) -> Tensor:
    """Eager's attention [b,h,n,m] with the rows that admit no key set to 0; eager spreads those over all keys."""
    return torch.where(seen, attentions, 0)
