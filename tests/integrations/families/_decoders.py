"""Models that write after what they read: one causal stack."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from transformers import (
    DeepseekV2Config,
    DeepseekV2ForCausalLM,
    DeepseekV3Config,
    DeepseekV3ForCausalLM,
    Gemma2Config,
    Gemma2ForCausalLM,
    Gemma3ForCausalLM,
    Gemma3TextConfig,
    GPT2Config,
    GPT2LMHeadModel,
    GptOssConfig,
    GptOssForCausalLM,
    JambaConfig,
    JambaForCausalLM,
    Llama4ForCausalLM,
    Llama4TextConfig,
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
    Qwen3NextConfig,
    Qwen3NextForCausalLM,
)

from ._family import CHUNK, COMMON, VOCABULARY, WINDOW, Attention, Family, Pattern, chunked, full, layers, sliding, text

_MIXED = {"sliding_window": WINDOW, "layer_types": ["sliding_attention", "full_attention"]}


def _decoder(model: type[PreTrainedModel], config: type, **more: Any) -> Callable[[], PreTrainedModel]:
    return lambda: model(config(**{**COMMON, **more}, attn_implementation="eager"))


def _family(
    build: Callable[[], PreTrainedModel],
    *patterns: Pattern,
    names: str = "model.layers.{}.self_attn",
    which: tuple[int, ...] = (0, 1),
) -> Family:
    attention = Attention("decoder", layers(names, which), patterns=patterns or (full, full))
    return Family(build, (attention,), text("decoder"))


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


# Latent attention: keys and values are expanded from one small vector, and are of different widths.
_LATENT: dict[str, Any] = {
    "num_key_value_heads": 4,
    "q_lora_rank": 16,
    "kv_lora_rank": 16,
    "qk_rope_head_dim": 4,
    "qk_nope_head_dim": 8,
    "v_head_dim": 6,
    "n_routed_experts": 4,
    "num_experts_per_tok": 2,
    "n_shared_experts": 1,
    "moe_intermediate_size": 16,
    "first_k_dense_replace": 1,
    "n_group": 1,
    "topk_group": 1,
}

DECODER_FAMILIES: Mapping[str, Family] = {
    "gpt2": _family(_gpt2, names="transformer.h.{}.attn"),
    "llama": _family(_decoder(LlamaForCausalLM, LlamaConfig)),
    "llama4": _family(  # its chunks; the rotary embedding is left out of the second layer, as in the real one
        _decoder(
            Llama4ForCausalLM,
            Llama4TextConfig,
            head_dim=8,
            intermediate_size_mlp=48,
            num_local_experts=2,
            attention_chunk_size=CHUNK,
            layer_types=["chunked_attention", "full_attention"],
            no_rope_layers=[1, 0],
        ),
        chunked,
        full,
    ),
    "qwen2": _family(_decoder(Qwen2ForCausalLM, Qwen2Config, use_sliding_window=True, **_MIXED), sliding, full),
    "qwen3": _family(_decoder(Qwen3ForCausalLM, Qwen3Config, head_dim=8)),
    "mistral": _family(_decoder(MistralForCausalLM, MistralConfig, sliding_window=WINDOW), sliding, sliding),
    "gemma2": _family(
        _decoder(
            Gemma2ForCausalLM,
            Gemma2Config,
            head_dim=8,
            query_pre_attn_scalar=8,
            attn_logit_softcapping=2.0,
            **_MIXED,
        ),
        sliding,
        full,
    ),
    "gemma3": _family(
        _decoder(Gemma3ForCausalLM, Gemma3TextConfig, head_dim=8, query_pre_attn_scalar=8, **_MIXED), sliding, full
    ),
    "phi3": _family(_decoder(Phi3ForCausalLM, Phi3Config)),
    "gpt_oss": _family(
        _decoder(GptOssForCausalLM, GptOssConfig, head_dim=8, num_local_experts=2, num_experts_per_tok=1, **_MIXED),
        sliding,
        full,
    ),
    "deepseek_v2": _family(_decoder(DeepseekV2ForCausalLM, DeepseekV2Config, **_LATENT, topk_method="greedy")),
    "deepseek_v3": _family(_decoder(DeepseekV3ForCausalLM, DeepseekV3Config, **_LATENT)),
    # Of these two, one layer attends and the other keeps a recurrent state, which is not attention.
    "jamba": _family(
        _decoder(
            JambaForCausalLM,
            JambaConfig,
            attn_layer_period=2,
            attn_layer_offset=1,
            expert_layer_period=2,
            expert_layer_offset=1,
            num_experts=2,
            num_experts_per_tok=1,
            mamba_d_state=4,
            mamba_dt_rank=4,
        ),
        full,
        which=(1,),
    ),
    "qwen3_next": _family(
        _decoder(
            Qwen3NextForCausalLM,
            Qwen3NextConfig,
            head_dim=8,
            layer_types=["linear_attention", "full_attention"],
            linear_num_key_heads=2,
            linear_num_value_heads=4,
            linear_key_head_dim=8,
            linear_value_head_dim=8,
            num_experts=4,
            num_experts_per_tok=2,
            moe_intermediate_size=16,
            shared_expert_intermediate_size=16,
        ),
        full,
        which=(1,),
    ),
}
