"""The recorder keeps what was chosen, where it stood, and nothing else."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from integrations.families import batch, build
from sightline.errors import SpecError
from sightline.functional import observe
from sightline.integrations import record
from sightline.matrix import AttentionMatrix
from sightline.recording import Call, Recorder
from sightline.reductions import Entropy, Peak, Peaks, Reduction, Rows, TopK


def play(recorder: Recorder, name: str = "layers.0.attn", n: int = 5, m: int = 9, **where: Any) -> tuple[Call, Any]:
    """One call, as an integration delivers it."""
    g = torch.Generator().manual_seed(0)
    q, k, v = (torch.randn(2, 4, length, 8, generator=g).requires_grad_() for length in (n, m, m))
    call = Call(name, nn.Identity(), AttentionMatrix(q, k), v, **where)
    observed = observe(q, k, v, recorder.reductions(call))
    recorder.received(call, observed)
    return call, observed


def test_one_record_per_call_in_order() -> None:
    recorder = Recorder({"entropy": Entropy(), "peak": Peak()})
    _, observed = play(recorder, query_start=4)
    play(recorder, n=1, m=10, query_start=9)
    play(recorder, "layers.1.attn", key_start=6)
    assert {name: len(calls) for name, calls in recorder.items()} == {"layers.0.attn": 2, "layers.1.attn": 1}
    first, second = recorder["layers.0.attn"]
    assert (first.query_positions, first.key_positions, first.heads) == (range(4, 9), range(9), range(4))
    assert (second.query_positions, second.key_positions) == (range(9, 10), range(10))
    (other,) = recorder["layers.1.attn"]
    assert (other.query_positions, other.key_positions) == (None, range(6, 15))
    assert set(first) == {"entropy", "peak"}
    assert torch.equal(first["entropy"], observed["entropy"])
    assert isinstance(first["peak"], Peaks)


def test_what_is_kept_carries_no_graph_and_no_larger_tensor() -> None:
    recorder = Recorder({"rows": Rows(torch.tensor([2])), "entropy": Entropy()})
    _, observed = play(recorder)
    assert observed["entropy"].requires_grad
    for value in recorder["layers.0.attn"][0].values():
        assert not value.requires_grad
        assert value.untyped_storage().nbytes() == value.numel() * value.element_size()


def test_a_slice_of_something_larger_is_copied() -> None:
    class Sliced(dict[str, Any]):
        output = torch.zeros(1)

    recorder = Recorder({"entropy": Entropy()})
    call, _ = play(Recorder({"entropy": Entropy()}))
    large = torch.randn(2, 4, 500)
    recorder.received(call, Sliced(entropy=large[..., :5]))  # type: ignore[arg-type]
    kept = recorder["layers.0.attn"][0]["entropy"]
    assert torch.equal(kept, large[..., :5])
    assert kept.untyped_storage().nbytes() == 2 * 4 * 5 * 4


def test_chosen_heads() -> None:
    every, some = Recorder({"top": TopK(2), "peak": Peak()}), Recorder({"top": TopK(2), "peak": Peak()}, heads=[3, 1])
    play(every)
    play(some)
    (a,), (b,) = every["layers.0.attn"], some["layers.0.attn"]
    assert b.heads == (3, 1)
    assert torch.equal(b["top"], a["top"][:, [3, 1]])
    assert torch.equal(b["peak"].value, a["peak"].value[:, [3, 1]])
    assert torch.equal(b["peak"].key, a["peak"].key[:, [3, 1]])


@pytest.mark.parametrize(
    ("layers", "chosen"),
    [
        (None, ["encoder.layers.0.attn", "encoder.layers.11.attn", "decoder.layers.1.cross.2"]),
        ([0], ["encoder.layers.0.attn"]),
        ([1], ["decoder.layers.1.cross.2"]),
        ([11, 0], ["encoder.layers.0.attn", "encoder.layers.11.attn"]),
        (["encoder.*"], ["encoder.layers.0.attn", "encoder.layers.11.attn"]),
        (["*.1.*", 0], ["encoder.layers.0.attn", "decoder.layers.1.cross.2"]),
        (["encoder.layers.0.attn"], ["encoder.layers.0.attn"]),
    ],
)
def test_chosen_layers(layers: Any, chosen: list[str]) -> None:
    recorder = Recorder({"entropy": Entropy()}, layers=layers)
    for name in ("encoder.layers.0.attn", "encoder.layers.11.attn", "decoder.layers.1.cross.2"):
        play(recorder, name)
    assert list(recorder) == chosen


def test_chosen_layers_of_a_model_cost_the_others_nothing() -> None:
    asked: list[str] = []

    class Watching(Recorder):
        def reductions(self, call: Call) -> Any:
            found = super().reductions(call)
            asked.extend([call.name] * len(found))
            return found

    from sightline.integrations.transformers import listening

    model = build("llama")
    recorder = Watching({"entropy": Entropy()}, layers=[1])
    with listening(model, recorder), torch.no_grad():
        model(batch()[0])
    assert asked == list(recorder) == ["model.layers.1.self_attn"]


@pytest.mark.parametrize(
    ("asked", "options", "says"),
    [
        ({}, {}, "nothing was asked"),
        ({"entropy": Entropy}, {}, "Pass an instance"),
        ({"entropy": Entropy()}, {"layers": []}, "layers is empty"),
        ({"entropy": Entropy()}, {"layers": 3}, r"Write \[3\]"),
        ({"entropy": Entropy()}, {"layers": "encoder.*"}, r"Write \['encoder"),
        ({"entropy": Entropy()}, {"layers": [1.5]}, "int or str"),
        ({"entropy": Entropy()}, {"heads": []}, "heads is empty"),
        ({"entropy": Entropy()}, {"heads": [True]}, "holds True"),
        ({"entropy": Entropy()}, {"heads": ["0"]}, "should hold int"),
    ],
)
def test_senseless_choices(asked: dict[str, Reduction], options: dict[str, Any], says: str) -> None:
    with pytest.raises(SpecError, match=says):
        Recorder(asked, **options)


def test_a_head_that_is_not_there() -> None:
    model = build("llama")
    asked = record(model, {"entropy": Entropy()}, heads=[0, 4])
    with pytest.raises(SpecError, match=r"head 4 was asked for; model\.layers\.0\.self_attn has 4 heads"), asked:
        model(batch()[0])
    assert model.config._attn_implementation == "eager"


def test_missing_names_say_what_is_there() -> None:
    recorder = Recorder({"entropy": Entropy()})
    with pytest.raises(KeyError, match="was the model run inside"):
        recorder["layers.0.attn"]
    play(recorder)
    with pytest.raises(KeyError, match=r"recorded were: layers\.0\.attn"):
        recorder["layers.9.attn"]
    with pytest.raises(KeyError, match="recorded were entropy"):
        recorder["layers.0.attn"][0]["received"]
    assert recorder.get("layers.9.attn") is None
    assert "1 calls of 1 modules" in repr(recorder)
