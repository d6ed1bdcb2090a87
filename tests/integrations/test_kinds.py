"""Whose tokens attend to whose: also where shapes, masks and names do not tell."""

from __future__ import annotations

import threading
from typing import Any

import torch
from transformers import (
    BertConfig,
    BertLMHeadModel,
    EncoderDecoderModel,
    LlavaConfig,
    LlavaForConditionalGeneration,
    PreTrainedModel,
)

from integrations.families import COMMON, FAMILIES, VOCABULARY, batch, build
from sightline.integrations import record
from sightline.integrations.transformers import attached
from sightline.recording import Kind, Recorder
from sightline.reductions import Entropy


def kinds(rec: Recorder) -> dict[str, Kind]:
    return {name: calls[0].kind for name, calls in rec.items()}


def run(model: PreTrainedModel, **given: Any) -> Recorder:
    with torch.no_grad(), record(model, {"entropy": Entropy()}) as rec:
        model(**given)
    return rec


def _bert(**how: Any) -> BertConfig:
    sizes = {k: COMMON[k] for k in ("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers")}
    return BertConfig(**sizes, num_attention_heads=4, attn_implementation="eager", **how)


def test_two_berts_as_encoder_and_decoder() -> None:
    """One class in three roles: BERT reading, BERT writing, and BERT attending to what was read."""
    ids, _ = batch()
    decoder = BertLMHeadModel(_bert(is_decoder=True, add_cross_attention=True))
    pair = EncoderDecoderModel(encoder=build("bert"), decoder=decoder).eval()
    # It gives its halves other configurations than the ones that their attention modules go on holding.
    assert pair.encoder.encoder.layer[0].attention.self.config is not pair.encoder.config
    with torch.no_grad():
        expected = pair(input_ids=ids, decoder_input_ids=ids).logits
        with record(pair, {"entropy": Entropy()}) as rec:
            torch.testing.assert_close(pair(input_ids=ids, decoder_input_ids=ids).logits, expected)
        assert torch.equal(pair(input_ids=ids, decoder_input_ids=ids).logits, expected), "all are set back"
    assert kinds(rec) == {
        **{f"encoder.encoder.layer.{i}.attention.self": "encoder" for i in range(2)},
        **{f"decoder.bert.encoder.layer.{i}.attention.self": "decoder" for i in range(2)},
        **{f"decoder.bert.encoder.layer.{i}.crossattention.self": "cross" for i in range(2)},
    }
    rec = run(decoder.eval(), input_ids=ids)
    assert set(kinds(rec).values()) == {"decoder"}


def test_a_model_that_sees_and_writes() -> None:
    vision: dict[str, Any] = {
        "model_type": "clip_vision_model", "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2,
        "num_attention_heads": 4, "image_size": 8, "patch_size": 4,
    }  # fmt: skip
    config = LlavaConfig(
        text_config={**COMMON, "model_type": "llama"}, vision_config=vision, image_token_index=5,
        vision_feature_layer=-1,
    )  # fmt: skip
    model = LlavaForConditionalGeneration(config).eval()
    ids = torch.tensor([[7, 5, 5, 5, 5, 8, 9]])
    rec = run(model, input_ids=ids, pixel_values=torch.zeros(1, 3, 8, 8))
    found = kinds(rec)
    assert {kind for name, kind in found.items() if "vision" in name} == {"encoder"}
    assert {kind for name, kind in found.items() if "language" in name} == {"decoder"}
    assert len(found) == 4


def test_each_half_by_itself() -> None:
    for family in ("bart", "t5"):
        model, (ids, _) = build(family), batch()
        rec = run(model.get_encoder(), input_ids=ids)
        assert set(kinds(rec).values()) == {"encoder"}
        states = torch.randn(2, 11, 32)
        rec = run(model.get_decoder(), input_ids=ids, encoder_hidden_states=states)
        assert list(kinds(rec).values()) == ["decoder", "cross"] * 2
        assert [calls[0].query_positions for calls in rec.values()] == [range(11), None] * 2


def test_masks_given_by_the_user_leave_the_kinds() -> None:
    causal = torch.ones(11, 11, dtype=torch.bool).tril().expand(2, 1, 11, 11)
    everything = torch.ones(2, 1, 11, 11, dtype=torch.bool)
    ids, _ = batch()
    for family, mask in (("llama", causal), ("bert", everything)):
        rec = run(build(family), input_ids=ids, attention_mask=mask)
        assert set(kinds(rec).values()) == {FAMILIES[family].attentions[0].kind}
        assert {calls[0].query_positions for calls in rec.values()} == {range(11)}
    for family in ("bart", "t5"):
        rec = run(build(family), input_ids=ids, decoder_input_ids=ids, decoder_attention_mask=causal)
        assert kinds(rec) == {name: attention.kind for attention, _, name in FAMILIES[family]}


def test_a_decoder_told_to_look_both_ways_is_an_encoder() -> None:
    model, (ids, real) = build("llama"), batch(padding="left")
    model.config.is_causal = False
    rec = run(model, input_ids=ids, attention_mask=real, use_cache=False)
    assert set(kinds(rec).values()) == {"encoder"}


def test_threads_that_share_a_model_do_not_mix() -> None:
    model, (ids, _) = build("bart"), batch(7)
    assert int(ids.max()) < VOCABULARY
    found: dict[int, dict[str, Kind]] = {}
    barrier = threading.Barrier(2)

    def work(which: int) -> None:
        barrier.wait()
        for _ in range(5):
            rec = run(model, input_ids=ids, decoder_input_ids=ids)
        found[which] = kinds(rec)

    threads = [threading.Thread(target=work, args=(which,)) for which in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    expected = {name: attention.kind for attention, _, name in FAMILIES["bart"]}
    assert found == {0: expected, 1: expected}


def test_hooks_are_only_there_while_recording() -> None:
    model = build("bart")

    def hooks() -> int:
        return sum(len(module._forward_pre_hooks) for module in model.modules())

    with attached(model):
        assert hooks() == 0
    with record(model, {"entropy": Entropy()}):
        assert hooks() == 6
    assert hooks() == 0
