"""Recorded under Sightline, a model says what it says under eager: its logits, and every reduction of its attention."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import PreTrainedModel

from integrations.families import DECODERS, FAMILIES, admitted, batch, build, weights
from sightline._dims import Dims
from sightline.integrations import record
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


def run(model: PreTrainedModel, ids: Tensor, real: Tensor, **kwargs: Any) -> Any:
    with torch.no_grad():
        return model(ids, attention_mask=real, **kwargs)


def scores(output: Any) -> Tensor:
    return output.logits if "logits" in output else output.last_hidden_state


@pytest.mark.parametrize("padding", ["none", "left", "right"])
@pytest.mark.parametrize("family", FAMILIES)
def test_a_padded_batch(family: str, padding: str) -> None:
    model, (ids, real) = build(family), batch(padding=padding)
    eager = run(model, ids, real, output_attentions=True)
    asked = reductions(11, 11)
    with record(model, asked) as rec:
        output = run(model, ids, real)
    difference = (scores(output) - scores(eager)).abs()[real.bool()]
    assert float(difference.max()) <= TOLERANCE * float(scores(eager).abs().max())
    assert list(rec) == [FAMILIES[family].attention.format(i) for i in range(2)]
    for layer, attentions in enumerate(eager.attentions):
        (call,) = rec[FAMILIES[family].attention.format(layer)]
        p = weights(attentions, admitted(family, layer, real, 11))
        for name, error in errors(call, p, asked).items():
            assert error <= TOLERANCE, f"layer {layer}, {name}"
        assert (call.query_positions, call.key_positions) == (range(11), range(11))


@pytest.mark.parametrize("family", FAMILIES)
def test_the_comparison_would_notice(family: str) -> None:
    """Negative control: with attention 5 % sharper, the same comparisons fail, every one."""
    model, (ids, real) = build(family), batch(padding="left")
    attentions = run(model, ids, real, output_attentions=True).attentions[0]
    attention = model.get_submodule(FAMILIES[family].attention.format(0))
    asked = reductions(11, 11)
    attention.scaling = attention.scaling * 1.05
    with record(model, asked) as rec:
        run(model, ids, real)
    p = weights(attentions, admitted(family, 0, real, 11))
    found = errors(rec[FAMILIES[family].attention.format(0)][0], p, asked)
    assert found.pop("top") <= TOLERANCE, "a scale keeps the order of the weights"
    for name, error in found.items():
        assert error > 10 * TOLERANCE, name


@pytest.mark.parametrize("padding", ["none", "left"])
@pytest.mark.parametrize("family", DECODERS)
def test_chunks_and_steps_with_a_cache(family: str, padding: str) -> None:
    """A prefill in two chunks and two decoding steps, by hand, each against eager's own."""
    model, (ids, real) = build(family), batch(padding=padding)
    steps = [(0, 5), (5, 9), (9, 10), (10, 11)]
    eager, cache = [], None
    for start, stop in steps:
        eager.append(
            run(
                model, ids[:, start:stop], real[:, :stop], past_key_values=cache, use_cache=True, output_attentions=True
            )
        )
        cache = eager[-1].past_key_values
    cache = None
    asked = {"entropy": Entropy(), "received": Received(), "peak": Peak(), "top": TopK(3)}
    with record(model, asked) as rec:
        for (start, stop), expected in zip(steps, eager, strict=True):
            output = run(model, ids[:, start:stop], real[:, :stop], past_key_values=cache, use_cache=True)
            cache = output.past_key_values
            difference = (output.logits - expected.logits).abs()[real[:, start:stop].bool()]
            assert float(difference.max()) <= TOLERANCE * float(expected.logits.abs().max())
    for layer in range(2):
        calls = rec[FAMILIES[family].attention.format(layer)]
        assert [call.query_positions for call in calls] == [range(*step) for step in steps]
        for (start, stop), call, expected in zip(steps, calls, eager, strict=True):
            seen = admitted(family, layer, real[:, :stop], stop - start)
            # A sliding cache has dropped the keys that no query will see again.
            first = call.key_positions.start
            assert call.key_positions.stop == stop
            assert not seen[..., :first].any()
            p = weights(expected.attentions[layer], seen[..., first:])
            for name, error in errors(call, p, asked).items():
                assert error <= TOLERANCE, f"layer {layer}, {name}"
