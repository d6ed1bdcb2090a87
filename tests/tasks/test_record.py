"""A text is read and recorded as the model reads it, and what cannot be is refused before it."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from sightline.errors import InputError, SpecError
from sightline.integrations import record
from sightline.recording import Trace
from sightline.reductions import BlockMass, ColumnMax, Entropy, LogSumExp, Peak, Received, TopK
from sightline.tasks import OBSERVED, observations, record_text
from tiny_model import CONTEXT, DOCUMENT, tiny_model, tiny_tokenizer


def pair() -> tuple[object, object]:
    tokenizer = tiny_tokenizer()
    return tiny_model(len(tokenizer)), tokenizer


def test_names_of_observations() -> None:
    plain = observations("entropy, peak,received,lse,max", 100)
    assert list(plain) == ["entropy", "peak", "received", "lse", "max"]
    assert [type(r) for r in plain.values()] == [Entropy, Peak, Received, LogSumExp, ColumnMax]
    assert observations("top,top3", 100) == {"top": TopK(8), "top3": TopK(3)}
    assert observations("map,map10", 1000) == {"map": BlockMass(16, 16), "map10": BlockMass(100, 100)}
    assert observations("map", 5) == {"map": BlockMass(1, 1)}
    for wrong in ("", "entropies", "top0", "map-1", "entropy,,peak"):
        with pytest.raises(SpecError, match="was asked to be observed"):
            observations(wrong, 100)


def test_a_text_is_recorded_as_the_model_reads_it(tmp_path: Path) -> None:
    model, tokenizer = pair()
    told: list[tuple[str, int, int | None]] = []
    trace = record_text(DOCUMENT, model=(model, tokenizer), keep="qk", progress=lambda *x: told.append(x))
    ids = tokenizer(DOCUMENT, return_tensors="pt")["input_ids"]  # type: ignore[operator]
    with torch.no_grad(), record(model, observations(OBSERVED, ids.shape[1])) as rec:  # type: ignore[arg-type]
        model(ids)  # type: ignore[operator]
    assert list(trace) == list(rec)
    for name in rec:
        (ours,), (theirs,) = trace[name], rec[name]
        assert torch.equal(ours["top8"], theirs["top8"])
        assert torch.equal(ours["map"], theirs["map"])
    assert trace.tokens is not None
    assert trace.tokens.texts == (DOCUMENT,)
    assert "".join(trace.tokens.strings[0]) == DOCUMENT
    assert told == [("recording", i, len(trace)) for i in range(len(trace) + 1)]
    trace.save(tmp_path / "t.safetensors")
    assert Trace.load(tmp_path / "t.safetensors").matrix(0, 0).shape[-1] == ids.shape[1]


def test_what_is_written_is_recorded_too() -> None:
    model, tokenizer = pair()
    trace = record_text(DOCUMENT, model=(model, tokenizer), new_tokens=4, observe="entropy", layers=[1], heads=[0])
    (name,) = trace
    n = len(tokenizer(DOCUMENT)["input_ids"])  # type: ignore[operator]
    assert [call.shape[2] for call in trace[name]] == [n, 1, 1, 1]
    assert trace[name][0].heads == range(1)
    assert trace.tokens is not None
    assert len(trace.tokens) == n + 4


def test_an_encoder_and_a_decoder() -> None:
    from integrations.families import build

    model, tokenizer = build("bart"), tiny_tokenizer()
    tokenizer.pad_token = tokenizer.eos_token = "<|end|>"
    text = "It is."
    ids = tokenizer(text)["input_ids"]
    model.resize_token_embeddings(len(tokenizer))
    with pytest.raises(SpecError, match="its decoder would not run"):
        record_text(text, model=(model, tokenizer))
    trace = record_text(text, model=(model, tokenizer), new_tokens=3, observe="entropy")
    assert {call.kind for calls in trace.values() for call in calls} == {"encoder", "decoder", "cross"}
    assert trace.source is not None
    assert len(trace.source) == len(ids)


def test_what_cannot_be_recorded() -> None:
    model = pair()
    with pytest.raises(InputError, match="it is empty"):
        record_text(" \n", model=model)
    with pytest.raises(InputError, match=f"the context of .* is {CONTEXT} tokens"):
        record_text(DOCUMENT * 40, model=model)
    with pytest.raises(InputError, match="500 more may be written"):
        record_text(DOCUMENT, model=model, new_tokens=500)
    with pytest.raises(SpecError, match="new_tokens is -1"):
        record_text(DOCUMENT, model=model, new_tokens=-1)
    with pytest.raises(SpecError, match="'glow' was asked to be observed"):
        record_text(DOCUMENT, model=model, observe="glow")
