"""Masks as models are given them: packed sequences, 4-D masks, and what becomes of them with a cache."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from integrations.families import FAMILIES, admitted, batch, build, weights
from sightline.integrations import record
from sightline.reductions import Entropy, Received, Rows

LENGTHS = (5, 4, 2)
POSITIONS = torch.cat([torch.arange(length) for length in LENGTHS])[None]
SEQUENCE = torch.repeat_interleave(torch.arange(3), torch.tensor(LENGTHS))
TOLERANCE = 2e-5


def run(family: str, given: dict[str, Any], **asked: Any) -> tuple[Any, Any, Any]:
    """Eager's output, with matrices; Sightline's; and what was recorded."""
    model = build(family)
    with torch.no_grad():
        eager = model(**given, output_attentions=True)
        with record(model, {"matrix": Rows(torch.arange(11)), "entropy": Entropy(), "received": Received()}) as rec:
            output = model(**given)
    return eager, output, rec


def agree(family: str, eager: Any, output: Any, rec: Any, seen: Any) -> None:
    assert float((output.logits - eager.logits).abs().max()) <= TOLERANCE * float(eager.logits.abs().max())
    for attention, layer, name in FAMILIES[family]:
        p = weights(eager.attentions[layer], seen(attention, layer))
        (call,) = rec[name]
        for reduction, expected in (
            ("matrix", p),
            ("entropy", -torch.special.xlogy(p, p).sum(-1)),
            ("received", p.sum(-2)),
        ):
            assert float((call[reduction] - expected).abs().max()) <= TOLERANCE, f"{name}, {reduction}"
        assert call.query_positions == call.key_positions == range(11)


@pytest.mark.parametrize("family", ["llama", "mistral", "gemma2", "qwen3", "llama4"])
def test_packed_sequences(family: str) -> None:
    ids, _ = batch()
    given = {"input_ids": ids[:1], "position_ids": POSITIONS, "use_cache": False}
    eager, output, rec = run(family, given)

    def seen(attention: Any, layer: int) -> Tensor:
        same = SEQUENCE[:, None] == SEQUENCE
        i, j = POSITIONS[0][:, None], POSITIONS[0][None]  # each sequence counts from 0, also its chunks
        pattern = attention.patterns[layer](i, j, torch.zeros(1, 1, 1, dtype=torch.long))
        return (same & pattern & (j <= i)).reshape(1, 1, 11, 11)

    agree(family, eager, output, rec, seen)
    alone = build(family)
    with torch.no_grad():
        expected = alone(ids[:1, 5:9]).logits
    assert float((output.logits[:, 5:9] - expected).abs().max()) <= 1e-4 * float(expected.abs().max())


def test_packed_sequences_with_a_cache_leak_as_they_do_in_transformers() -> None:
    """Transformers reads packing from position_ids only without a mask and without a cache, which is on unless refused.
    Sightline computes the same, exactly what the model does, and says so."""
    ids, _ = batch()
    given = {"input_ids": ids[:1], "position_ids": POSITIONS}
    with pytest.warns(UserWarning, match="does not part the sequences"):
        eager, output, rec = run("llama", given)
    agree("llama", eager, output, rec, lambda a, layer: admitted(a, layer, torch.ones(1, 11), range(11)))
    assert rec["model.layers.0.self_attn"][0]["matrix"][0, 0, 5:9, :5].any(), "one sequence sees another"
    _, apart, _ = run("llama", {**given, "use_cache": False})
    assert float((apart.logits - output.logits).abs().max()) > 0.1


@pytest.mark.parametrize("kind", ["bool", "float"])
@pytest.mark.parametrize("family", ["llama", "gemma2", "gpt2", "gpt_oss", "jamba"])
def test_a_4d_mask(family: str, kind: str) -> None:
    """It stands for all of causality, padding and windows, in every layer."""
    ids, _ = batch()
    allowed = torch.rand(2, 1, 11, 11, generator=torch.Generator().manual_seed(7)) > 0.4
    allowed |= torch.eye(11, dtype=torch.bool)
    added = torch.where(allowed, 0.0, torch.finfo(torch.float32).min)
    model = build(family)
    with torch.no_grad():
        eager = model(input_ids=ids, attention_mask=added, output_attentions=True)
        with record(model, {"matrix": Rows(torch.arange(11)), "entropy": Entropy(), "received": Received()}) as rec:
            output = model(input_ids=ids, attention_mask=allowed if kind == "bool" else added)
    agree(family, eager, output, rec, lambda attention, layer: allowed)


def test_a_4d_mask_over_a_cache() -> None:
    """Continued from a cache, its rows are the new tokens and its columns all of them."""
    model, (ids, _) = build("llama"), batch()
    tree = torch.tensor([[True] * 9 + [True, False], [True] * 9 + [False, True]]).expand(2, 1, 2, 11)
    added = torch.where(tree, 0.0, torch.finfo(torch.float32).min)
    positions = torch.full((2, 2), 9)  # two candidates for one place, which do not see each other
    with torch.no_grad():
        cache = model(ids[:, :9], use_cache=True).past_key_values
        eager = model(ids[:, 9:], attention_mask=added, position_ids=positions, past_key_values=cache).logits
        with record(model, {"matrix": Rows(torch.arange(2))}) as rec:
            cache = model(ids[:, :9], use_cache=True).past_key_values
            output = model(ids[:, 9:], attention_mask=tree, position_ids=positions, past_key_values=cache).logits
    torch.testing.assert_close(output, eager, atol=1e-4, rtol=1e-4)
    for calls in rec.values():
        assert not calls[1]["matrix"][..., 0, 10].any()
        assert not calls[1]["matrix"][..., 1, 9].any()
        assert calls[1].query_positions == range(9, 11)


def test_gradient_checkpointing_records_each_call_twice() -> None:
    """A layer that is run again for the backward attends again, and says so."""
    model, (ids, _) = build("llama").train(), batch()
    for checkpointed, times in ((False, 1), (True, 2)):
        if checkpointed:
            model.gradient_checkpointing_enable({"use_reentrant": False})
        with record(model, {"entropy": Entropy()}) as rec:
            model(ids, use_cache=False).logits.sum().backward()
        assert [len(calls) for calls in rec.values()] == [times, times]
