"""What cannot be served is refused before any module runs, in a sentence that says why, and nothing is changed."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import pytest
import torch
from torch import nn
from transformers import (
    BloomConfig,
    BloomForCausalLM,
    DebertaV2Config,
    DebertaV2Model,
    DeepseekV32Config,
    DeepseekV32ForCausalLM,
    FalconConfig,
    FalconForCausalLM,
    GlmMoeDsaConfig,
    GlmMoeDsaForCausalLM,
    GPTJConfig,
    GPTJForCausalLM,
    LEDConfig,
    LEDForConditionalGeneration,
    LongT5Config,
    LongT5ForConditionalGeneration,
    NllbMoeConfig,
    NllbMoeForConditionalGeneration,
    PreTrainedModel,
)

from integrations.families import COMMON, FAMILIES, VOCABULARY, batch, build
from sightline.errors import Unsupported
from sightline.integrations import record
from sightline.integrations._source import arguments, attends_by_itself, code, dispatches
from sightline.integrations.transformers import NAME, attached
from sightline.reductions import Entropy

_BART: dict[str, Any] = {
    "vocab_size": VOCABULARY, "d_model": 32, "encoder_layers": 2, "decoder_layers": 2, "encoder_attention_heads": 4,
    "decoder_attention_heads": 4, "encoder_ffn_dim": 48, "decoder_ffn_dim": 48, "max_position_embeddings": 64,
    "eos_token_id": None, "pad_token_id": 0, "decoder_start_token_id": 2,
}  # fmt: skip
_SPARSE: dict[str, Any] = {
    **COMMON, "num_key_value_heads": 4, "q_lora_rank": 16, "kv_lora_rank": 16, "qk_rope_head_dim": 4,
    "qk_nope_head_dim": 8, "v_head_dim": 6, "n_routed_experts": 4, "num_experts_per_tok": 2, "n_shared_experts": 1,
    "moe_intermediate_size": 16, "n_group": 1, "topk_group": 1, "index_n_heads": 2, "index_head_dim": 8,
    "index_topk": 4,
}  # fmt: skip


def nllb_moe(**how: Any) -> PreTrainedModel:
    return NllbMoeForConditionalGeneration(
        NllbMoeConfig(**_BART, num_experts=2, encoder_sparse_step=2, decoder_sparse_step=2, expert_capacity=16, **how)
    )


def bloom() -> PreTrainedModel:
    return BloomForCausalLM(BloomConfig(vocab_size=VOCABULARY, hidden_size=32, n_layer=2, n_head=4))


def falcon(**how: Any) -> PreTrainedModel:
    sizes: dict[str, Any] = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
    return FalconForCausalLM(FalconConfig(vocab_size=VOCABULARY, **sizes, **how))


def led() -> PreTrainedModel:
    sizes = {name: value for name, value in _BART.items() if name != "max_position_embeddings"}
    positions = {"max_encoder_position_embeddings": 64, "max_decoder_position_embeddings": 64}
    return LEDForConditionalGeneration(LEDConfig(**sizes, **positions, attention_window=4))


def deberta() -> PreTrainedModel:
    sizes = {name: COMMON[name] for name in ("hidden_size", "intermediate_size", "num_hidden_layers")}
    return DebertaV2Model(DebertaV2Config(vocab_size=VOCABULARY, num_attention_heads=4, **sizes))


def gptj() -> PreTrainedModel:
    return GPTJForCausalLM(GPTJConfig(vocab_size=VOCABULARY, n_embd=32, n_layer=2, n_head=4, rotary_dim=4))


def long_t5() -> PreTrainedModel:
    return LongT5ForConditionalGeneration(
        LongT5Config(vocab_size=VOCABULARY, d_model=32, d_kv=8, d_ff=48, num_layers=2, num_heads=4, local_radius=4)
    )


OWN = "computes attention in its own code, not through Transformers' AttentionInterface"
CHOSEN = "chooses the keys of each query while it runs"

REFUSED: Mapping[str, tuple[Callable[[], PreTrainedModel], str]] = {
    "bloom": (bloom, f"it {OWN}"),
    "led": (led, f"it {OWN}"),
    "falcon": (falcon, f"it {OWN}"),
    "deberta_v2": (deberta, f"it {OWN}"),
    "gptj": (gptj, f"it {OWN}"),
    "long_t5": (long_t5, rf"\(LongT5LocalAttention\) {OWN}"),
    "nllb_moe": (nllb_moe, r"\(NllbMoeTop2Router\) reads the values of the attention mask to route tokens"),
    "deepseek_v32": (
        lambda: DeepseekV32ForCausalLM(DeepseekV32Config(**_SPARSE)),
        rf"\(DeepseekV32Attention\) is sparse: this model {CHOSEN}",
    ),
    "glm_moe_dsa": (
        lambda: GlmMoeDsaForCausalLM(GlmMoeDsaConfig(**_SPARSE)),
        rf"\(GlmMoeDsaAttention\) is sparse: this model {CHOSEN}",
    ),
}


@pytest.mark.parametrize("family", REFUSED)
def test_refused_before_the_first_step(family: str) -> None:
    build_it, why = REFUSED[family]
    model = build_it().eval()
    former = [module.config._attn_implementation for module in model.modules() if isinstance(module, PreTrainedModel)]
    ran: list[nn.Module] = []
    for module in model.modules():
        module.register_forward_pre_hook(lambda module, args: ran.append(module))
    hooks = [len(module._forward_pre_hooks) for module in model.modules()]
    with pytest.raises(Unsupported, match=why) as raised, record(model, {"entropy": Entropy()}):
        pytest.fail("the block must not begin")
    said = str(raised.value)
    assert said.startswith(f"{type(model).__name__} was asked to compute its attention with Sightline; it")
    assert said.rstrip().endswith(".")
    assert "Use " in said
    assert former == [m.config._attn_implementation for m in model.modules() if isinstance(m, PreTrainedModel)]
    assert hooks == [len(module._forward_pre_hooks) for module in model.modules()]
    assert not ran


@pytest.mark.parametrize("family", FAMILIES)
def test_what_can_be_served_is_not_refused(family: str) -> None:
    """Negative control: the same checks pass every family of the table."""
    model = build(family)
    with attached(model):
        assert model.config._attn_implementation == NAME


def test_a_part_without_the_reason_is_served() -> None:
    """LongT5's decoder attends as T5's: it can be recorded, and its encoder computes as before."""
    model = long_t5().eval()
    read, written = batch(12)[0], batch(6)[0]
    with torch.no_grad():
        expected = model(input_ids=read, decoder_input_ids=written).logits
        with record(model.decoder, {"entropy": Entropy()}) as rec:
            ours = model(input_ids=read, decoder_input_ids=written).logits
    torch.testing.assert_close(ours, expected, atol=1e-4, rtol=1e-4)
    assert [calls[0].kind for calls in rec.values()] == ["decoder", "cross"] * 2


def test_a_router_that_leaves_the_mask_alone_is_served() -> None:
    """Told to route padding as any token, NLLB-MoE reads no mask."""
    torch.manual_seed(0)
    model = nllb_moe(router_ignore_padding_tokens=True).eval()
    model.set_attn_implementation("eager")
    (ids, real), (written, _) = batch(padding="left"), batch(6)
    asked = {"input_ids": ids, "attention_mask": real, "decoder_input_ids": written}
    with torch.no_grad():
        eager = model(**asked).logits
        with record(model, {"entropy": Entropy()}) as rec:
            torch.testing.assert_close(model(**asked).logits, eager, atol=1e-4, rtol=1e-4)
    assert [calls[0].kind for calls in rec.values()] == ["encoder"] * 2 + ["decoder", "cross"] * 2


def test_falcon_made_with_the_name_fails_in_transformers() -> None:
    """Its class looks the name up in a table of its own: Sightline is not asked, and nothing runs."""
    with pytest.raises(KeyError, match=NAME):
        falcon(attn_implementation=NAME)


def test_bloom_made_with_the_name_raises_when_it_reads_the_mask() -> None:
    """Nobody asked Sightline before: the mask itself is the last guard against a silent mistake."""
    config = BloomConfig(vocab_size=VOCABULARY, hidden_size=32, n_layer=2, n_head=4)
    config._attn_implementation = NAME
    ids, real = batch(padding="left")
    with pytest.raises(Unsupported, match="reads the values of its attention mask"):
        BloomForCausalLM(config).eval()(ids, attention_mask=real)


# -- reading what a class does


class Own(nn.Module):
    def _weights(self, q: torch.Tensor, k: torch.Tensor) -> torch.Tensor:
        return torch.matmul(q, k.mT).softmax(-1)

    def forward(self, q: torch.Tensor) -> torch.Tensor:
        return self._weights(q, q) @ q


class OwnAttention(Own):
    pass


class Through(Own):
    def forward(self, q: torch.Tensor) -> Any:
        functions: Any = None
        attention_interface = functions.get_interface("eager", None)
        return attention_interface(self, q, q, q, None, scaling=1.0, indices=None)


class ThroughAttention(Through):
    pass


def test_what_the_code_of_a_class_says() -> None:
    assert attends_by_itself(OwnAttention), "also where the code is inherited"
    assert not attends_by_itself(Own), "an attention is named so"
    assert not attends_by_itself(ThroughAttention)
    assert not attends_by_itself(nn.MultiheadAttention), "PyTorch's own classes are not looked into"
    assert dispatches(ThroughAttention)
    assert not dispatches(OwnAttention)
    assert arguments(ThroughAttention) == {"scaling", "indices"}
    assert arguments(OwnAttention) == frozenset()


def test_a_class_without_code_to_read_is_not_guessed_at() -> None:
    made: dict[str, Any] = {}
    exec(
        "class MadeAttention(nn.Module):\n    def forward(self, x):\n        return x.softmax(-1) @ x", {"nn": nn}, made
    )
    assert code(made["MadeAttention"]) == ""
    assert not attends_by_itself(made["MadeAttention"])
