"""A trace is what was recorded, in memory or read back from a file that any reader of safetensors opens."""

from __future__ import annotations

import json
import pickle
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from integrations.families import batch, build
from recording.worlds import ASKED, parts, recorded, small_trace, tokens
from sightline import AttentionMatrix, Causal
from sightline.errors import InputError, SpecError, TraceError
from sightline.functional import observe
from sightline.integrations import record
from sightline.recording import Call, Recorder, Tokens, Trace
from sightline.reductions import Entropy, LogSumExp, Peaks, Received, Reduction, Rows

FORMAT = Path(__file__).parents[2] / "src/sightline/recording/format.md"


def saved(trace: Trace, folder: Path) -> Trace:
    trace.save(folder / "trace.safetensors")
    return Trace.load(folder / "trace.safetensors")


def test_what_is_loaded_is_what_was_recorded(tmp_path: Path) -> None:
    recorder = recorded()
    trace = saved(recorder.trace(tokens(), model="a tiny Llama"), tmp_path)
    assert list(trace) == list(recorder)
    assert (trace.model, trace.source) == ("a tiny Llama", None)
    assert trace.reductions["map"] == {"type": "BlockMass", "rows": 4, "cols": 4}
    assert {name: asked["type"] for name, asked in trace.reductions.items()} == {
        name: type(reduction).__name__ for name, reduction in ASKED.items()
    }
    for name, calls in recorder.items():
        assert len(trace[name]) == len(calls) == 4
        for ours, theirs in zip(trace[name], calls, strict=True):
            for attribute in ("module", "kind", "shape", "query_positions", "key_positions", "heads"):
                assert getattr(ours, attribute) == getattr(theirs, attribute)
            assert list(ours) == list(theirs) == list(ASKED)
            assert isinstance(ours["peak"], Peaks)
            for result in ASKED:
                for a, b in zip(parts(ours[result]), parts(theirs[result]), strict=True):
                    assert a.dtype == b.dtype
                    assert torch.equal(a, b)
    trace.verify()


def test_tokens_come_back(tmp_path: Path) -> None:
    given = tokens()
    found = saved(recorded().trace(given, tokens(1, 7)), tmp_path)
    assert found.tokens is not None
    assert found.source is not None
    assert (len(found.tokens), len(found.source)) == (12, 7)
    assert torch.equal(found.tokens.ids, given.ids)
    assert found.tokens.strings == given.strings
    assert found.tokens.texts == given.texts
    assert found.tokens.offsets is not None
    text, (start, end) = given.texts[1], found.tokens.offsets[1, 5].tolist()  # type: ignore[index]
    assert text[start:end] == given.strings[1][5]


@pytest.mark.parametrize("family", ["llama", "gemma2", "gpt_oss", "gpt2"])
def test_any_weight_can_be_computed_later(family: str, tmp_path: Path) -> None:
    """From q, k and the log-sum-exp alone, against the rows that were observed while the model ran."""
    recorder = recorded(family)
    trace = saved(recorder.trace(), tmp_path)
    for name, calls in recorder.items():
        for call, (ours, theirs) in enumerate(zip(trace[name], calls, strict=True)):
            matrix = trace.matrix(name, call=call)
            weights = matrix.dense()
            assert weights.shape == ours.shape
            torch.testing.assert_close(weights, theirs.matrix().dense(), atol=2e-6, rtol=1e-5)
            torch.testing.assert_close(weights.sum(-2), ours["received"], atol=2e-6, rtol=1e-5)
            reduced = matrix.reduce({"rows": Rows(torch.arange(ours.shape[2])), "entropy": Entropy()})
            torch.testing.assert_close(weights, reduced["rows"], atol=2e-6, rtol=1e-5)
            torch.testing.assert_close(reduced["entropy"], ours["entropy"], atol=1e-5, rtol=1e-5)
            for head in range(4):
                one = trace.matrix(name, head, call)
                torch.testing.assert_close(one.dense(), weights[:, head : head + 1], atol=2e-6, rtol=1e-5)
                torch.testing.assert_close(one.reduce({"r": Received()})["r"], ours["received"][:, head : head + 1])


def test_the_weights_of_another_query_are_not_these(tmp_path: Path) -> None:
    """Negative control: with the queries of the next layer nothing above would hold."""
    trace = saved(recorded().trace(), tmp_path)
    first, second = (trace[name][0] for name in trace)
    assert float((first.matrix().dense() - second["received"][..., None, :]).abs().max()) > 1e-2
    assert first.kept is not None
    assert second.kept is not None
    mixed = AttentionMatrix._of(
        second.kept.q.read(), first.matrix().k, first.kept.scores, "auto", first.kept.lse.read()
    )
    assert float((mixed.dense().sum(-2) - first["received"]).abs().max()) > 1e-2


def test_a_slice_with_a_known_log_sum_exp_is_the_slice() -> None:
    g = torch.Generator().manual_seed(0)
    q, k = torch.randn(2, 4, 70, 8, generator=g), torch.randn(2, 2, 90, 8, generator=g)
    plain = AttentionMatrix(q, k, mask=Causal())
    settled = AttentionMatrix._of(q, k, plain.scores, "auto", plain.lse())
    for index in [
        (..., slice(None), slice(None)),
        (0, 3, 5, 7),
        (slice(0, 1), 2, slice(3, 60, 7), slice(80, 10)),
        (1, slice(None), -1, slice(2, None, 3)),
        (..., slice(10, 20), slice(85, 90)),
    ]:
        assert settled[index].shape == plain[index].shape
        torch.testing.assert_close(settled[index], plain[index], atol=1e-6, rtol=1e-5)


def test_a_large_slice_is_computed_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sightline.matrix.TILE", 300)
    test_a_slice_with_a_known_log_sum_exp_is_the_slice()


def test_chosen_heads_keep_their_keys(tmp_path: Path) -> None:
    whole, some = recorded().trace(), saved(recorded(heads=[3, 1]).trace(), tmp_path)
    for name in whole:
        assert some[name][0].heads == (3, 1)
        every = whole.matrix(name).dense()
        torch.testing.assert_close(some.matrix(name).dense(), every[:, [3, 1]])
        torch.testing.assert_close(some.matrix(name, 1).dense(), every[:, [1]])
        with pytest.raises(SpecError, match=r"head 2 .* recorded were heads 3, 1"):
            some.matrix(name, 2)


@pytest.mark.parametrize("mode", [{}, {"cache_implementation": "static"}])
def test_keys_are_written_once(mode: dict[str, Any]) -> None:
    """The steps of a generation share the keys of those before them, also in a static cache with empty slots."""
    model, (ids, real) = build("llama"), batch(9, "left")
    with record(model, {"rows": Rows(torch.tensor([0]))}, keep="qk") as rec:
        model.generate(ids, attention_mask=real, max_new_tokens=6, min_new_tokens=6, disable_compile=True, **mode)
    for calls in rec.values():
        stored = {id(call.kept.k) for call in calls if call.kept is not None}
        assert len(stored) == 1
        assert calls[-1].kept is not None
        assert calls[-1].kept.k.shape[0] == 14
        for call in calls:
            torch.testing.assert_close(call.matrix().dense()[:, :, :1], call["rows"], atol=2e-6, rtol=1e-5)
            assert call.matrix().shape == call.shape


@pytest.mark.parametrize(
    ("family", "mode"), [("llama", {"num_beams": 3}), ("mistral", {}), ("llama", {"use_cache": False})]
)
def test_keys_that_change_places_are_written_again(family: str, mode: dict[str, Any]) -> None:
    model, (ids, real) = build(family), batch(9, "left")
    with record(model, {"rows": Rows(torch.tensor([0]))}, keep="qk") as rec:
        model.generate(ids, attention_mask=real, max_new_tokens=8, min_new_tokens=8, disable_compile=True, **mode)
    for calls in rec.values():
        for call in calls:
            torch.testing.assert_close(call.matrix().dense()[:, :, :1], call["rows"], atol=2e-6, rtol=1e-5)


def test_a_trace_is_of_its_moment(tmp_path: Path) -> None:
    """What is recorded later is not in it, though the later keys are appended to the same tensor."""
    model, (ids, _) = build("llama"), batch(9)
    with torch.no_grad(), record(model, {"received": Received()}, keep="qk") as rec:
        cache = model(ids[:, :6]).past_key_values
        early = rec.trace()
        model(ids[:, 6:], past_key_values=cache)
    trace = saved(early, tmp_path)
    for name in trace:
        assert len(trace[name]) == 1
        torch.testing.assert_close(trace.matrix(name).dense().sum(-2), rec[name][0]["received"])
        torch.testing.assert_close(rec[name][1].matrix().dense().sum(-2), rec[name][1]["received"])


def test_without_q_and_k_there_is_no_matrix(tmp_path: Path) -> None:
    trace = saved(recorded(keep="reductions").trace(), tmp_path)
    with pytest.raises(SpecError, match='keep="qk"'):
        trace.matrix(0)


def test_nothing_but_q_and_k() -> None:
    recorder = Recorder({}, keep="qk")
    g = torch.Generator().manual_seed(0)
    q, k, v = (torch.randn(1, 2, 5, 8, generator=g) for _ in range(3))
    call = Call("attn", torch.nn.Identity(), AttentionMatrix(q, k), v)
    recorder.received(call, observe(q, k, v, recorder.reductions(call)))
    torch.testing.assert_close(recorder.trace().matrix("attn").dense(), AttentionMatrix(q, k).dense())
    with pytest.raises(SpecError, match="keep says"):
        Recorder({}, keep="everything")  # type: ignore[arg-type]


def test_modules_are_named_or_the_choice_is_refused() -> None:
    trace = small_trace()
    assert trace.matrix(1).shape == trace.matrix("*.1.*").shape == trace.matrix("model.layers.1.self_attn").shape
    with pytest.raises(SpecError, match="matches 2"):
        trace.matrix("*")
    with pytest.raises(SpecError, match=r"matches 0\. Name one of: model"):
        trace.matrix(7)
    with pytest.raises(SpecError, match="it was called 4 times"):
        trace.matrix(0, call=4)
    with pytest.raises(KeyError, match="recorded were"):
        trace["nothing"]
    assert "8 calls of 2 modules of a tiny Llama" in repr(trace)


def test_a_trace_can_be_saved_over_itself(tmp_path: Path) -> None:
    trace = saved(small_trace(), tmp_path)
    before = (tmp_path / "trace.safetensors").read_bytes()
    trace.save(tmp_path / "trace.safetensors")
    assert (tmp_path / "trace.safetensors").read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["trace.safetensors"]


def test_plain_safetensors_reads_it_as_the_format_says(tmp_path: Path) -> None:
    """The example of format.md, run as it stands there."""
    small_trace().save(tmp_path / "trace.safetensors")
    example = re.search(r"```python\n(.*?)```", FORMAT.read_text(), re.DOTALL)
    assert example is not None
    code = example[1]
    assert len(code.strip().splitlines()) <= 10
    assert "sightline." not in code.replace('"sightline"', "")
    found: dict[str, Any] = {}
    exec(code.replace('"trace.safetensors"', repr(str(tmp_path / "trace.safetensors"))), found)
    trace = small_trace()
    assert found["header"]["version"] == 1
    assert torch.equal(found["entropy"], trace["model.layers.0.self_attn"][0]["entropy"])


def test_every_field_of_the_header_is_specified() -> None:
    from sightline.recording import header

    text = FORMAT.read_text()
    for part in (header.Header, header.CallHeader, header.KeptHeader, header.ScoresHeader, header.TokensHeader):
        for name in part.__struct_fields__:
            assert f"`{name}`" in text, f"{part.__name__}.{name}"


def test_nothing_in_it_is_pickled(tmp_path: Path) -> None:
    small_trace().save(tmp_path / "trace.safetensors")
    with safe_open(tmp_path / "trace.safetensors", framework="pt") as file:
        assert set(file.metadata()) == {"format", "sightline", "sightline.crc32"}
        json.loads(file.metadata()["sightline"])
    (tmp_path / "pickled").write_bytes(pickle.dumps({"a": 1}))
    with pytest.raises(TraceError, match="no whole safetensors file"):
        Trace.load(tmp_path / "pickled")


def test_what_is_no_trace_is_refused(tmp_path: Path) -> None:
    with pytest.raises(TraceError, match="there is no such file"):
        Trace.load(tmp_path / "missing.safetensors")
    with pytest.raises(TraceError):
        Trace.load(tmp_path)
    save_file({"a": torch.zeros(3)}, tmp_path / "other.safetensors")
    with pytest.raises(TraceError, match="without a sightline header"):
        Trace.load(tmp_path / "other.safetensors")
    with pytest.raises(InputError, match="was to be written"):
        small_trace().save(tmp_path / "no such folder" / "trace.safetensors")


def test_what_a_file_cannot_hold_is_refused_before_it_is_written() -> None:
    def traced(asked: dict[str, Reduction]) -> Trace:
        recorder = Recorder(asked, keep="qk")
        q = torch.randn(1, 1, 4, 8)
        call = Call("attn", torch.nn.Identity(), AttentionMatrix(q, q), q)
        recorder.received(call, observe(q, q, q, recorder.reductions(call)))
        return recorder.trace()

    assert traced({"lse": LogSumExp(), "q": Entropy(), "kept": Entropy()})["attn"][0]["q"].shape == (1, 1, 4)
    with pytest.raises(SpecError, match='has a "/" in its name'):
        traced({"a/b": Entropy()})
    with pytest.raises(SpecError, match="nothing was recorded"):
        Recorder({"e": Entropy()}).trace()


def test_the_tokens_of_a_text() -> None:
    from tiny_model import DOCUMENT, tiny_tokenizer

    tokenizer = tiny_tokenizer()
    ids = tokenizer(DOCUMENT)["input_ids"]
    for found in (Tokens.of(tokenizer, ids, DOCUMENT), Tokens.of(tokenizer, ids)):
        assert found.texts == (DOCUMENT,)
        assert found.offsets is not None
        assert "".join(DOCUMENT[a:b] for a, b in found.offsets[0].tolist()) == DOCUMENT
        assert "".join(found.strings[0]) == DOCUMENT
    marked = [tokenizer.convert_tokens_to_ids("<|start|>"), *ids, tokenizer.convert_tokens_to_ids("<|end|>")]
    found = Tokens.of(tokenizer, torch.tensor([marked]), [DOCUMENT])
    assert found.offsets is not None
    assert found.offsets[0, [0, -1]].tolist() == [[-1, -1], [-1, -1]]
    assert "".join(DOCUMENT[a:b] for a, b in found.offsets[0, 1:-1].tolist()) == DOCUMENT
    other = Tokens.of(tokenizer, ids, "A text of something else.")
    assert other.offsets is None
    with pytest.raises(SpecError, match="2 texts were given for 1"):
        Tokens.of(tokenizer, ids, ["a", "b"])
    with pytest.raises(ValueError, match="must be integers"):
        Tokens.of(tokenizer, torch.zeros(3))


def test_each_record_is_told_of_as_it_is_made() -> None:
    heard: list[str] = []
    rec = recorded(new=1, on_record=lambda record: heard.append(record.module))
    assert heard == list(rec) * 2
