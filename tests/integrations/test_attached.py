"""A model is switched to Sightline and back, exactly; who cannot be switched is refused before anything changes."""

from __future__ import annotations

import gc
import subprocess
import sys
import threading
import weakref
from typing import Any

import pytest
import torch
from torch import nn
from transformers import (
    AttentionInterface,
    AttentionMaskInterface,
    BloomConfig,
    BloomForCausalLM,
    LlamaForCausalLM,
    LlavaConfig,
    LlavaForConditionalGeneration,
    TextIteratorStreamer,
)

from integrations.families import COMMON, VOCABULARY, batch, build
from sightline.errors import SpecError, Unsupported
from sightline.functional import Observed
from sightline.integrations import record
from sightline.integrations.transformers import NAME, attached, listening, register
from sightline.recording import Call
from sightline.reductions import Entropy, Received, Reduction


class Names:
    """Listens to nothing but names."""

    def __init__(self) -> None:
        self.heard: list[str] = []

    def reductions(self, call: Call) -> dict[str, Reduction]:
        return {}

    def received(self, call: Call, observed: Observed) -> None:
        self.heard.append(call.name)


def bloom() -> BloomForCausalLM:
    return BloomForCausalLM(BloomConfig(vocab_size=VOCABULARY, hidden_size=32, n_layer=2, n_head=4)).eval()


def implementation(model: Any) -> str:
    return model.config._attn_implementation


# -- registration


def test_both_functions_are_registered_under_one_name() -> None:
    for _ in range(2):
        register()
        assert NAME in AttentionInterface._global_mapping
        assert NAME in AttentionMaskInterface._global_mapping
    assert not any(word in NAME for word in ("sdpa", "flash", "flex_attention", "paged|"))


def test_without_its_mask_function_padding_would_be_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    """The pitfall: an implementation whose name has no mask function gets no mask, and nobody says so."""
    model, (ids, real) = build("llama"), batch(padding="left")
    with torch.no_grad():
        eager = model(ids, attention_mask=real).logits
        with attached(model):
            right = model(ids, attention_mask=real).logits
            monkeypatch.delitem(AttentionMaskInterface._global_mapping, NAME)
            lost = model(ids, attention_mask=real).logits
    real_rows = real.bool()
    assert float((right - eager)[real_rows].abs().max()) < 1e-4
    assert float((lost - eager)[real_rows].abs().max()) > 0.1


def test_importing_sightline_imports_and_registers_nothing() -> None:
    code = (
        "import sys, sightline\n"
        "assert 'transformers' not in sys.modules\n"
        "import transformers\n"
        "assert 'sightline' not in transformers.AttentionInterface._global_mapping\n"
        "import sightline.integrations.transformers\n"
        "assert 'sightline' in transformers.AttentionInterface._global_mapping\n"
        "assert 'sightline' in transformers.AttentionMaskInterface._global_mapping\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_set_attn_implementation_by_hand() -> None:
    model, (ids, real) = build("mistral"), batch(padding="left")
    with torch.no_grad():
        eager = model(ids, attention_mask=real).logits
        model.set_attn_implementation("sightline")
        ours = model(ids, attention_mask=real).logits
    torch.testing.assert_close(ours[real.bool()], eager[real.bool()], atol=1e-4, rtol=1e-4)


def test_made_with_the_implementation() -> None:
    config = build("llama").config
    config._attn_implementation = "sightline"
    assert implementation(LlamaForCausalLM(config)) == "sightline"


# -- restoring


@pytest.mark.parametrize("former", ["eager", "sdpa"])
def test_restores_what_was_set(former: str) -> None:
    model = build("llama")
    model.set_attn_implementation(former)
    with attached(model):
        assert implementation(model) == implementation(model.model) == NAME
    assert implementation(model) == implementation(model.model) == former


def test_restores_after_an_exception() -> None:
    model, (ids, _) = build("llama"), batch()

    def fails() -> None:
        model(ids)
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError), record(model, {"entropy": Entropy()}):
        fails()
    assert implementation(model) == "eager"
    with pytest.raises(IndexError), record(model, {"entropy": Entropy()}):
        model(torch.tensor([[VOCABULARY + 1]]))
    assert implementation(model) == "eager"
    before = Names()
    with listening(model, before):
        model(ids)
    assert len(before.heard) == 2, "an earlier block that failed leaves no listener behind"


def test_restores_each_submodel_its_own() -> None:
    text = {**COMMON, "model_type": "llama"}
    vision = {
        "model_type": "clip_vision_model",
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 1,
        "num_attention_heads": 4,
        "image_size": 8,
        "patch_size": 4,
    }
    model = LlavaForConditionalGeneration(LlavaConfig(text_config=text, vision_config=vision)).eval()
    model.set_attn_implementation({"": "sdpa", "text_config": "eager", "vision_config": "sdpa"})
    config = model.config
    with attached(model):
        assert {config._attn_implementation, config.text_config._attn_implementation} == {NAME}
        assert config.vision_config._attn_implementation == NAME
    assert config._attn_implementation == "sdpa"
    assert config.text_config._attn_implementation == "eager"
    assert config.vision_config._attn_implementation == "sdpa"


def test_blocks_nest_and_overlap() -> None:
    model, other = build("llama"), LlamaForCausalLM(build("llama").config)
    assert other.config is not model.config
    with attached(model):
        with attached(model.model):
            assert implementation(model) == NAME
        assert implementation(model) == NAME, "the inner block's end leaves the outer one attached"
    assert implementation(model) == "eager"
    first, second = attached(model), attached(model)
    first.__enter__()
    second.__enter__()
    first.__exit__(None, None, None)
    assert implementation(model) == NAME
    second.__exit__(None, None, None)
    assert implementation(model) == "eager"


def test_models_that_share_a_configuration() -> None:
    model = build("llama")
    twin = LlamaForCausalLM(model.config).eval()
    assert twin.config is model.config
    ids, _ = batch()
    with record(model, {"entropy": Entropy()}) as rec:
        twin(ids)
        with attached(twin):
            pass
        model(ids)
    assert [len(calls) for calls in rec.values()] == [1, 1], "the twin computes with Sightline too, unrecorded"
    assert implementation(model) == "eager"


def test_a_model_is_not_kept_alive() -> None:
    model = build("llama")
    alive = weakref.ref(model)
    with record(model, {"entropy": Entropy()}) as rec:
        model(batch()[0])
    del model
    gc.collect()
    assert alive() is None
    assert len(rec) == 2


# -- refusals


def test_bloom_is_refused_before_it_runs() -> None:
    model = bloom()
    refused = pytest.raises(Unsupported, match=r"BloomForCausalLM .*computes attention in its own code")
    with refused, record(model, {"entropy": Entropy()}):
        pytest.fail("the block must not begin")
    assert implementation(model) != NAME


def test_bloom_inside_another_model_is_refused() -> None:
    both = nn.ModuleDict({"good": build("llama"), "bad": bloom()})
    with pytest.raises(Unsupported, match="Bloom"), attached(both):
        pytest.fail("the block must not begin")
    assert implementation(both["good"]) == "eager", "nothing is changed when one part is refused"


def test_a_part_that_does_not_change_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    model = build("llama")
    monkeypatch.setattr(LlamaForCausalLM, "set_attn_implementation", lambda self, name: None)
    refused = pytest.raises(Unsupported, match='LlamaForCausalLM stays with "eager" when told to change')
    with refused, record(model, {"entropy": Entropy()}):
        pytest.fail("the block must not begin")


def test_what_is_no_transformers_model_is_refused() -> None:
    refused = pytest.raises(Unsupported, match=r"Linear was asked .* not a Transformers model")
    with refused, record(nn.Linear(2, 2), {"entropy": Entropy()}):
        pytest.fail("the block must not begin")


def test_choices_that_match_nothing_are_refused() -> None:
    model = build("llama")
    for layers in ([7], ["*.encoder.*"]):
        asked = record(model, {"entropy": Entropy()}, layers=layers)
        with pytest.raises(SpecError, match="no module of the model matches"), asked:
            pytest.fail("the block must not begin")


# -- delivering


class Wrapper(nn.Module):
    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, ids: torch.Tensor) -> Any:
        return self.inner(ids)


def test_a_model_inside_a_wrapper_is_named_from_the_wrapper() -> None:
    wrapper = Wrapper(build("llama"))
    names = Names()
    with listening(wrapper, names):
        wrapper(batch()[0])
    assert names.heard == [f"inner.model.layers.{i}.self_attn" for i in range(2)]


def test_two_models_in_nested_blocks_do_not_mix() -> None:
    llama, gpt2, (ids, real) = build("llama"), build("gpt2"), batch(padding="left")
    with record(llama, {"a": Entropy()}) as outer, record(gpt2, {"b": Received()}) as inner, torch.no_grad():
        llama(ids, attention_mask=real)
        gpt2(ids, attention_mask=real)
        llama(ids, attention_mask=real)
    assert {name: len(calls) for name, calls in outer.items()} == {f"model.layers.{i}.self_attn": 2 for i in range(2)}
    assert {name: len(calls) for name, calls in inner.items()} == {f"transformer.h.{i}.attn": 1 for i in range(2)}
    assert set(outer["model.layers.0.self_attn"][0]) == {"a"}
    assert set(inner["transformer.h.0.attn"][0]) == {"b"}


def test_several_listeners_on_one_model_each_get_their_own() -> None:
    model, (ids, _) = build("llama"), batch()
    names = Names()
    with (
        record(model, {"same": Entropy()}) as first,
        record(model, {"same": Received(), "more": Entropy()}, layers=[1]) as second,
        listening(model, names),
        torch.no_grad(),
    ):
        model(ids)
    assert len(first) == len(names.heard) == 2
    assert list(second) == ["model.layers.1.self_attn"]
    (one,), (two,) = first["model.layers.1.self_attn"], second["model.layers.1.self_attn"]
    assert one["same"].shape == (2, 4, 11)
    assert torch.equal(one["same"], two["more"])
    torch.testing.assert_close(two["same"].sum(-1), torch.full((2, 4), 11.0))


def test_a_worker_thread_is_recorded() -> None:
    """Streaming runs generate() in a thread of its own, which inherits no context."""
    model, (ids, real) = build("llama"), batch()

    class Plain:
        def decode(self, tokens: Any, **_: Any) -> str:
            return " ".join(map(str, tokens))

    streamer = TextIteratorStreamer(Plain(), skip_prompt=True)  # type: ignore[arg-type]
    asked = {
        "input_ids": ids[:1],
        "attention_mask": real[:1],
        "streamer": streamer,
        "max_new_tokens": 3,
        "do_sample": False,
    }
    with record(model, {"entropy": Entropy()}) as rec:
        thread = threading.Thread(target=model.generate, kwargs=asked)
        thread.start()
        assert list(streamer)
        thread.join()
    assert [len(calls) for calls in rec.values()] == [3, 3]


def test_two_threads_that_record_one_model_do_not_mix() -> None:
    model = build("llama")
    barrier = threading.Barrier(2)
    found: dict[int, Any] = {}

    def work(length: int) -> None:
        ids, _ = batch(length)
        with record(model, {"entropy": Entropy()}) as rec, torch.no_grad():
            barrier.wait()
            for _ in range(5):
                model(ids)
            barrier.wait()
        found[length] = rec

    threads = [threading.Thread(target=work, args=(length,)) for length in (7, 13)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for length, rec in found.items():
        for calls in rec.values():
            assert [call["entropy"].shape[-1] for call in calls] == [length] * 5
    assert implementation(model) == "eager"


def test_the_output_carries_the_graph() -> None:
    """A listener's hook on the output sees the model's own gradient."""
    model, (ids, _) = build("llama"), batch()
    gradients: list[torch.Tensor] = []

    class Hook(Names):
        def received(self, call: Call, observed: Observed) -> None:
            observed.output.register_hook(gradients.append)

    with listening(model, Hook()):
        model(ids).logits.logsumexp(-1).sum().backward()
    assert [g.shape for g in gradients] == [(2, 4, 11, 8)] * 2
    assert all(float(g.abs().max()) > 0 for g in gradients)
    ours = [p.grad.clone() for p in model.parameters() if p.grad is not None]
    model.zero_grad()
    model(ids).logits.logsumexp(-1).sum().backward()
    for mine, eager in zip(ours, (p.grad for p in model.parameters() if p.grad is not None), strict=True):
        torch.testing.assert_close(mine, eager, atol=1e-4, rtol=1e-3)


def test_a_compiled_model_is_recorded() -> None:
    """The graph breaks at the attention; what is around it compiles, and nothing is missed."""
    model, (ids, real) = build("mistral"), batch(padding="left")
    asked = {"entropy": Entropy()}
    with torch.no_grad(), record(model, asked) as plain:
        expected = model(ids, attention_mask=real).logits
    compiled = torch.compile(model, backend="eager")
    with torch.no_grad(), record(model, asked) as rec:
        for _ in range(2):
            torch.testing.assert_close(compiled(ids, attention_mask=real).logits, expected)
    assert list(rec) == list(plain)
    for name, calls in rec.items():
        assert len(calls) == 2
        for call in calls:
            torch.testing.assert_close(call["entropy"], plain[name][0]["entropy"])


def test_recording_does_not_change_the_output() -> None:
    model, (ids, real) = build("gemma2"), batch(padding="left")
    with torch.no_grad():
        with attached(model):
            silent = model(ids, attention_mask=real).logits
        with record(model, {"entropy": Entropy(), "received": Received()}):
            observed = model(ids, attention_mask=real).logits
    assert torch.equal(silent, observed)
