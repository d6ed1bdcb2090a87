"""T5's position bias is a specification: the same numbers as T5's own tensor, which is never made."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import (
    PreTrainedModel,
    SwitchTransformersConfig,
    SwitchTransformersForConditionalGeneration,
    T5Config,
    T5ForConditionalGeneration,
    UMT5Config,
    UMT5ForConditionalGeneration,
)
from transformers.models.t5.modeling_t5 import T5Attention

from integrations.families import FAMILIES, batch, build
from sightline._dims import Dims
from sightline.biases import RelativeBias
from sightline.errors import Unsupported
from sightline.integrations import record
from sightline.integrations._lazy_bias import LazyBias, PlacedBias
from sightline.integrations.transformers import NAME, attached
from sightline.reductions import Entropy

B, H = 2, 4
CPU = torch.device("cpu")


_SIZES: dict[str, Any] = {
    "vocab_size": 97, "d_model": 32, "d_kv": 8, "d_ff": 48, "num_layers": 2, "num_heads": 4, "initializer_factor": 0.6,
    "decoder_start_token_id": 0, "attn_implementation": "eager",
}  # fmt: skip


def attention(model: PreTrainedModel, name: str = "encoder.block.0.layer.0.SelfAttention") -> Any:
    return model.get_submodule(name)


def hooks(model: PreTrainedModel) -> int:
    return sum(len(module._forward_pre_hooks) for module in model.modules())


class Largest(TorchDispatchMode):
    """Watches every tensor that is made, and keeps the largest number of elements."""

    elements = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for part in result if isinstance(result, tuple) else (result,):
            if isinstance(part, Tensor):
                self.elements = max(self.elements, part.untyped_storage().nbytes() // part.element_size())
        return result


# n, m, start: an encoder, a prefill, a step, a chunk, and the same in a static cache with empty slots
PLACES = [(9, 9, 0), (5, 5, 0), (1, 12, 11), (4, 12, 8), (1, 30, 6), (4, 30, 11), (1, 300, 3)]


@pytest.mark.parametrize("place", PLACES, ids=str)
@pytest.mark.parametrize("stack", ["encoder", "decoder"])
@pytest.mark.parametrize("family", ["t5", "mt5"])
def test_says_what_t5_says(family: str, stack: str, place: tuple[int, int, int]) -> None:
    n, m, start = place
    module = attention(build(family), f"{stack}.block.0.layer.0.SelfAttention")
    expected = module.compute_bias(n, m, past_seen_tokens=start)
    table = module.relative_attention_bias.weight
    bias = PlacedBias(RelativeBias(table, not module.is_decoder, module.relative_attention_max_distance), start)
    dims = Dims(B, H, H, n, m, 8)
    assert torch.equal(bias.dense(dims), expected)
    relative = bias.lowered(dims, CPU, torch.float32).relative
    assert relative is not None
    assert relative.shape == (H, n + m - 1)
    along = torch.arange(m)[None] - torch.arange(n)[:, None] + n - 1
    assert torch.equal(relative[:, along][None], expected)
    if start + n < m:  # the bias that stands at the end would be another one
        assert not torch.equal(RelativeBias(table, bias.bias.bidirectional, 9).dense(dims), expected)


@pytest.mark.parametrize("family", ["t5", "mt5"])
def test_no_matrix_is_made(family: str) -> None:
    """Also in cross-attention, where T5 makes one of zeros."""
    model = build(family)
    read, written = batch(700)[0], batch(600)[0]
    most: dict[str, int] = {}
    with torch.no_grad():
        expected = model(input_ids=read, decoder_input_ids=written).logits
        with record(model, {"entropy": Entropy()}), Largest() as largest:
            output = model(input_ids=read, decoder_input_ids=written).logits
        most["attached"] = largest.elements
        model.set_attn_implementation(NAME)
        with Largest() as largest:
            by_hand = model(input_ids=read, decoder_input_ids=written).logits
        most["by hand"] = largest.elements
    assert float((output - expected).abs().max()) <= 1e-4 * float(expected.abs().max())
    assert float((by_hand - expected).abs().max()) <= 1e-4 * float(expected.abs().max())
    assert most["attached"] < 600 * 600, "nothing with a row of keys for each query"
    assert most["by hand"] >= H * 700 * 700, "the tensors that T5 makes when nothing takes their place"


def test_memory_grows_with_the_length() -> None:
    model = build("t5")
    elements: list[int] = []
    for length in (500, 1000, 2000):
        ids, _ = batch(length)
        with torch.no_grad(), attached(model), Largest() as largest:
            model(input_ids=ids, decoder_input_ids=ids)
        elements.append(largest.elements)
    assert elements[1] <= 2.1 * elements[0]
    assert elements[2] <= 2.1 * elements[1]


def test_hooks_live_as_long_as_the_block() -> None:
    model = build("t5")
    assert hooks(model) == 0
    with attached(model):
        assert hooks(model) == 6, "two layers: encoder, decoder, cross"
        with attached(model):
            pass
        assert hooks(model) == 6
    assert hooks(model) == 0
    with pytest.raises(ZeroDivisionError), record(model, {"entropy": Entropy()}):
        raise ZeroDivisionError
    assert hooks(model) == 0
    llama = build("llama")
    with attached(llama):
        assert hooks(llama) == 0


def test_another_implementation_inside_the_block_gets_its_own_bias() -> None:
    model, inputs = build("t5"), FAMILIES["t5"].inputs("left")
    with torch.no_grad():
        expected = model(**inputs.given).logits
        with attached(model):
            model.set_attn_implementation("eager")
            assert torch.equal(model(**inputs.given).logits, expected)


def test_a_bias_that_is_not_t5s_is_left_to_the_model(monkeypatch: pytest.MonkeyPatch) -> None:
    """What decides is the numbers that the module makes, not its class."""
    own = T5Attention.compute_bias
    monkeypatch.setattr(T5Attention, "compute_bias", lambda self, *args, **how: 0.5 * own(self, *args, **how))
    model, inputs = build("t5"), FAMILIES["t5"].inputs("left")
    with torch.no_grad():
        expected = model(**inputs.given).logits
        with attached(model):
            assert hooks(model) == 4, "all but the two first layers, which make the bias"
            ours = model(**inputs.given).logits
    torch.testing.assert_close(ours, expected, atol=1e-4, rtol=1e-4)


def test_a_bias_that_cannot_be_specified_is_left_to_the_model() -> None:
    torch.manual_seed(0)
    odd = T5ForConditionalGeneration(T5Config(**_SIZES, relative_attention_num_buckets=7)).eval()
    inputs = FAMILIES["t5"].inputs("left")
    with torch.no_grad():
        expected = odd(**inputs.given).logits
        with attached(odd):
            ours = odd(**inputs.given).logits
    torch.testing.assert_close(ours, expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("checkpointed", [False, True])
def test_gradients_reach_the_table(checkpointed: bool) -> None:
    model, inputs = build("t5"), FAMILIES["t5"].inputs("left")
    model.config.dropout_rate = 0.0
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
        if isinstance(module, T5Attention):
            module.dropout = 0.0
    model.train()
    if checkpointed:
        model.gradient_checkpointing_enable({"use_reentrant": False})

    def gradients() -> dict[str, Tensor]:
        model.zero_grad()
        model(**inputs.given, use_cache=False).logits.logsumexp(-1).sum().backward()
        return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}

    expected = gradients()
    with attached(model):
        found = gradients()
    assert found.keys() == expected.keys()
    assert sum("relative_attention_bias" in name for name in found) == 2
    for name, gradient in found.items():
        assert float((gradient - expected[name]).abs().max()) <= 1e-4 * float(expected[name].abs().max()), name
        assert float(gradient.abs().max()) > 0


@pytest.mark.parametrize(
    ("model", "config", "linear"),
    [
        (SwitchTransformersForConditionalGeneration, SwitchTransformersConfig, True),
        (UMT5ForConditionalGeneration, UMT5Config, False),  # takes no bias from outside: exact, in quadratic memory
    ],
)
def test_the_family_of_t5(model: Any, config: Any, linear: bool) -> None:
    torch.manual_seed(0)
    made, inputs = model(config(**_SIZES)).eval(), FAMILIES["t5"].inputs("left")
    with torch.no_grad():
        expected = made(**inputs.given).logits
        with attached(made):
            assert (hooks(made) > 0) == linear
            ours = made(**inputs.given).logits
    torch.testing.assert_close(ours, expected, atol=1e-4, rtol=1e-4)


@pytest.mark.slow
def test_a_compiled_t5_is_recorded() -> None:
    model, inputs = build("t5"), FAMILIES["t5"].inputs("left")
    with torch.no_grad(), record(model, {"entropy": Entropy()}) as plain:
        expected = model(**inputs.given).logits
    compiled = torch.compile(model, backend="eager")
    with torch.no_grad(), record(model, {"entropy": Entropy()}) as rec:
        torch.testing.assert_close(compiled(**inputs.given).logits, expected, atol=1e-5, rtol=1e-5)
    assert list(rec) == list(plain)
    for name, (call,) in rec.items():
        assert call.kind == plain[name][0].kind
        torch.testing.assert_close(call["entropy"], plain[name][0]["entropy"], atol=1e-5, rtol=1e-5)


def test_reading_its_values_raises() -> None:
    bias = LazyBias.of(None, H, torch.zeros(2, 3))
    assert (bias.shape, bias.dtype, bias.stride()) == ((1, H, 1, 1), torch.float32, (0, 0, 0, 0))
    assert bias.contiguous() is bias.to("cpu") is bias
    with pytest.raises(Unsupported, match="reads the values of its position bias"):
        bias + 1.0
    assert "LazyBias" in repr(bias)
