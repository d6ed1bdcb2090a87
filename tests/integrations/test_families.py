"""Recorded under Sightline, a model says what it says under eager: its logits, and every reduction of its attention."""

from __future__ import annotations

import contextlib
from collections.abc import Generator, Mapping
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from integrations.families import DECODERS, ENCODER_DECODERS, FAMILIES, admitted, batch, build, weights
from sightline._dims import Dims
from sightline.integrations import record
from sightline.integrations import transformers as integration
from sightline.integrations._attention import sightline_attention
from sightline.recording import Kind
from sightline.reductions import (
    BlockMass,
    BlockMax,
    ColumnMax,
    ColumnMoment,
    Entries,
    Entropy,
    Peak,
    Received,
    Reduction,
    RowMoment,
    Rows,
    SegmentMass,
    TopK,
)

TOLERANCE = 2e-5
"""float32 against float32: the same numbers in another order of summation, through two layers."""


def reductions(n: int, m: int) -> dict[str, Reduction]:
    """One of each kind, for a call of n queries and m keys of the 2 × 4 heads of the tiny models."""
    g = torch.Generator().manual_seed(3)
    return {
        "matrix": Rows(torch.arange(n)),
        "entropy": Entropy(),
        "peak": Peak(),
        "top": TopK(3),
        "entries": Entries(torch.randint(0, m, (2, 4, n, 2), generator=g)),
        "moment": RowMoment(torch.randn(2, 4, m, 3, generator=g)),
        "segments": SegmentMass(torch.randint(0, 3, (2, m), generator=g), 3),
        "received": Received(),
        "column max": ColumnMax(),
        "column moment": ColumnMoment(torch.randn(2, 4, n, 3, generator=g)),
        "blocks": BlockMass(3, 4),
        "block max": BlockMax(3, 4),
    }


def errors(results: Mapping[str, Any], p: Tensor, asked: Mapping[str, Reduction]) -> dict[str, float]:
    """The largest error of each recorded reduction against its definition on the weights p [b,h,n,m]."""
    b, h, n, m = p.shape
    s = p.log()
    found: dict[str, float] = {}
    for name, reduction in asked.items():
        got = results[name]
        expected = reduction.bind(Dims(b, h, h, n, m, 1), p.device).dense(s, p)
        if name == "top":  # the order of near-equal weights may differ; the weights at those ranks may not
            got, expected = (torch.where(keys < 0, 0, p.gather(-1, keys.clamp(min=0))) for keys in (got, expected))
        if name == "peak":
            assert torch.equal(got.key < 0, expected[1] < 0)
            got, expected = got.value, expected[0]
        assert got.shape == expected.shape, name
        found[name] = float((got - expected).abs().max())
    return found


def run(model: PreTrainedModel, **given: Any) -> Any:
    with torch.no_grad():
        return model(**given)


def scores(output: Any) -> Tensor:
    return output.logits if "logits" in output else output.last_hidden_state


def agree(output: Any, eager: Any, real: Tensor) -> None:
    """The output is eager's, at the positions that hold tokens."""
    difference = (scores(output) - scores(eager)).abs()[real]
    assert float(difference.max()) <= TOLERANCE * float(scores(eager).abs().max())


def placed(kind: Kind, start: int, stop: int) -> range | None:
    """Where the queries stand: in cross-attention nowhere among the keys, not even where they are as many."""
    return None if kind == "cross" else range(start, stop)


@pytest.mark.parametrize("padding", ["none", "left", "right"])
@pytest.mark.parametrize("family", FAMILIES)
def test_a_padded_batch(family: str, padding: str) -> None:
    model, inputs = build(family), FAMILIES[family].inputs(padding)
    eager = run(model, **inputs.given, output_attentions=True)
    asked = {name: reductions(*eager[a.output][layer].shape[2:]) for a, layer, name in FAMILIES[family]}
    with contextlib.ExitStack() as recording:
        recs = {name: recording.enter_context(record(model, asked[name], layers=[name])) for name in asked}
        output = run(model, **inputs.given)
    agree(output, eager, inputs.written)
    for attention, layer, name in FAMILIES[family]:
        (call,) = recs[name][name]
        attentions = eager[attention.output][layer]
        n, m = attentions.shape[2:]
        p = weights(attentions, admitted(attention, layer, inputs.keys[attention.kind], range(n)))
        for reduction, error in errors(call, p, asked[name]).items():
            assert error <= TOLERANCE, f"{name}, {reduction}"
        assert call.kind == attention.kind
        assert (call.query_positions, call.key_positions) == (placed(attention.kind, 0, n), range(m))


@pytest.mark.parametrize("family", FAMILIES)
def test_every_attention_is_recorded_and_nothing_else(family: str) -> None:
    model, inputs = build(family), FAMILIES[family].inputs("none")
    with record(model, {"entropy": Entropy()}) as rec:
        run(model, **inputs.given)
    assert sorted(rec) == sorted(name for _, _, name in FAMILIES[family])


@contextlib.contextmanager
def sharpened(target: nn.Module) -> Generator[None]:
    """Attention with 1.05 times the scale, in this module alone."""

    def sharper(module: nn.Module, q: Tensor, *args: Any, scaling: float | None = None, **kwargs: Any) -> Any:
        if module is target:
            scaling = 1.05 * (q.shape[-1] ** -0.5 if scaling is None else scaling)
        return sightline_attention(module, q, *args, scaling=scaling, **kwargs)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(integration, "sightline_attention", sharper)
        yield
    integration.register()


@pytest.mark.parametrize("family", FAMILIES)
def test_the_comparison_would_notice(family: str) -> None:
    """Negative control: with attention 5 % sharper, the same comparisons fail, every one."""
    model, inputs = build(family), FAMILIES[family].inputs("left")
    eager = run(model, **inputs.given, output_attentions=True)
    for attention, layer, name in FAMILIES[family]:
        attentions = eager[attention.output][layer]
        n, m = attentions.shape[2:]
        asked = reductions(n, m)
        with sharpened(model.get_submodule(name)), record(model, asked, layers=[name]) as rec:
            output = run(model, **inputs.given)
        with pytest.raises(AssertionError):
            agree(output, eager, inputs.written)
        p = weights(attentions, admitted(attention, layer, inputs.keys[attention.kind], range(n)))
        found = errors(rec[name][0], p, asked)
        keeps_order = found.pop("top")
        if "t5" not in family or attention.kind == "cross":  # a position bias is not scaled along
            assert keeps_order <= TOLERANCE, f"{name}: a scale keeps the order of the weights"
        for reduction, error in found.items():
            assert error > 10 * TOLERANCE, f"{name}, {reduction}"


@pytest.mark.parametrize("padding", ["none", "left"])
@pytest.mark.parametrize("family", DECODERS)
def test_chunks_and_steps_with_a_cache(family: str, padding: str) -> None:
    """A prefill in two chunks and two decoding steps, by hand, each against eager's own."""
    model, (ids, real) = build(family), batch(padding=padding)

    def step(start: int, stop: int, cache: Any, **how: Any) -> Any:
        ids_, real_ = ids[:, start:stop], real[:, :stop]
        return run(model, input_ids=ids_, attention_mask=real_, past_key_values=cache, use_cache=True, **how)

    compare_steps(family, model, step, [(0, 5), (5, 9), (9, 10), (10, 11)], {"decoder": real})


@pytest.mark.parametrize("padding", ["none", "left", "right"])
@pytest.mark.parametrize("family", ENCODER_DECODERS)
def test_steps_of_a_decoder_over_an_encoder(family: str, padding: str) -> None:
    """The encoder once, then a chunk and steps of the decoder, with a cache of what it wrote and of what it read."""
    model, inputs = build(family), FAMILIES[family].inputs(padding)
    given = dict(inputs.given)
    ids, _ = given.pop("decoder_input_ids"), given.pop("decoder_attention_mask")
    with torch.no_grad():
        read = model.get_encoder()(**given)
    about: dict[str, Any] = {name: given[name] for name in ("attention_mask",) if name in given}

    about["encoder_outputs"] = read

    def step(start: int, stop: int, cache: Any, **how: Any) -> Any:
        new = ids[:, start:stop]
        return run(model, **about, decoder_input_ids=new, past_key_values=cache, use_cache=True, **how)

    keys = {"decoder": torch.ones_like(ids), "cross": inputs.keys["cross"]}
    compare_steps(family, model, step, [(0, 4), (4, 5), (5, 6)], keys)


def compare_steps(family: str, model: PreTrainedModel, step: Any, steps: Any, keys: Mapping[Kind, Tensor]) -> None:
    """Each step recorded against the same step under eager. `keys` are real ones, of all steps."""
    eager, cache = [], None
    for start, stop in steps:
        eager.append(step(start, stop, cache, output_attentions=True))
        cache = eager[-1].past_key_values
    cache = None
    asked = {"entropy": Entropy(), "received": Received(), "peak": Peak(), "top": TopK(3)}
    with record(model, asked) as rec:
        for (start, stop), expected in zip(steps, eager, strict=True):
            output = step(start, stop, cache)
            cache = output.past_key_values
            agree(output, expected, keys["decoder"][:, start:stop].bool())
    for attention, layer, name in FAMILIES[family]:
        if attention.kind == "encoder":
            continue
        calls = rec[name]
        assert [call.query_positions for call in calls] == [placed(attention.kind, *at) for at in steps]
        assert {call.kind for call in calls} == {attention.kind}
        for (start, stop), call, expected in zip(steps, calls, eager, strict=True):
            there = keys[attention.kind] if attention.kind == "cross" else keys[attention.kind][:, :stop]
            seen = admitted(attention, layer, there, range(start, stop))
            # A sliding cache has dropped the keys that no query will see again.
            first = call.key_positions.start
            assert call.key_positions.stop == there.shape[1]
            assert not seen[..., :first].any()
            p = weights(expected[attention.output][layer], seen[..., first:])
            for reduction, error in errors(call, p, asked).items():
                assert error <= TOLERANCE, f"{name}, {reduction}"


def test_cross_attention_to_as_many_keys_as_queries_is_cross() -> None:
    """Nothing in the shapes tells it from attention to itself."""
    for family in ENCODER_DECODERS:
        model, inputs = build(family), FAMILIES[family].inputs("none")
        length = len(inputs.keys["cross"][0])
        given = {**inputs.given, "decoder_input_ids": batch(length)[0], "decoder_attention_mask": None}
        with record(model, {"entropy": Entropy()}) as rec:
            run(model, **given)
        for attention, _, name in FAMILIES[family]:
            (call,) = rec[name]
            assert len(call.key_positions) == call["entropy"].shape[-1] == length
            assert (call.kind, call.query_positions) == (attention.kind, placed(attention.kind, 0, length))
