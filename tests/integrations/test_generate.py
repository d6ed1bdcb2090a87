"""In generation, a recorded model writes the tokens that eager writes, and every step is recorded where it stands."""

from __future__ import annotations

import contextlib
import importlib.util
from collections.abc import Generator
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from integrations.families import DECODERS, ENCODER_DECODERS, FAMILIES, admitted, batch, build, weights
from sightline.functional import Observed
from sightline.integrations import record
from sightline.integrations.transformers import listening
from sightline.recording import Call, Recorder
from sightline.reductions import Entropy, Received, Reduction, Rows

NEW = 6
TOLERANCE = 2e-5

MODES: dict[str, dict[str, Any]] = {
    "greedy": {},
    "beams": {"num_beams": 3},
    "sampling": {"do_sample": True, "temperature": 1.5},
    "static cache": {"cache_implementation": "static"},
    "no cache": {"use_cache": False},
    "chunked prefill": {"prefill_chunk_size": 4},
    "8-bit cache": {"cache_implementation": "quantized", "cache_config": {"backend": "fp8"}},
    "4-bit cache": {
        "cache_implementation": "quantized",
        "cache_config": {"backend": "quanto", "nbits": 4, "q_group_size": 8, "residual_length": 2},
    },
    "prompt lookup": {"prompt_lookup_num_tokens": 3},
    "assisted": {"assistant_model": True},
}
SPECULATIVE = ("prompt lookup", "assisted")

# Every family in the plain mode; every mode on a full cache, a mixed, a sliding one, and on an encoder–decoder's pair.
CASES = [(family, "greedy", "left") for family in DECODERS + ENCODER_DECODERS]
CASES += [
    (family, mode, padding)
    for family in ("llama", "gemma2", "mistral", "bart", "t5")
    for mode in ("beams", "sampling", "static cache", "no cache")
    for padding in ("none", "left")
]
CASES += [(family, "static cache", "left") for family in ("llama4", "gemma3", "gpt_oss", "whisper", "jamba")]
CASES += [(family, "chunked prefill", side) for family in ("llama", "gemma2", "mistral") for side in ("none", "left")]
for mode in ("8-bit cache", "4-bit cache", *SPECULATIVE):
    CASES += [(family, mode, "left") for family in ("llama", "gpt2")]
CASES += [("bart", "assisted", "left"), ("t5", "assisted", "left")]


def asked(family: str, mode: str, padding: str) -> dict[str, Any]:
    """What generate is called with."""
    how = dict(MODES[mode])
    if family in ENCODER_DECODERS:
        given = {name: given for name, given in FAMILIES[family].inputs(padding).given.items() if "decoder" not in name}
    else:
        ids, real = batch(9, padding)
        given = {"input_ids": ids, "attention_mask": real}
    if mode in SPECULATIVE:  # one sequence at a time; the assistant is another model, and is not recorded
        given = {name: tensor[:1] for name, tensor in given.items()}
    if mode == "assisted":
        how["assistant_model"] = build(family, seed=5)
    return {"do_sample": False, "max_new_tokens": NEW, "min_new_tokens": NEW, "disable_compile": True, **given, **how}


def write(model: PreTrainedModel, given: dict[str, Any]) -> Tensor:
    torch.manual_seed(0)
    return model.generate(**given)


@contextlib.contextmanager
def matrices(model: PreTrainedModel, family: str) -> Generator[dict[str, list[Tensor]]]:
    """Every matrix that eager attention makes inside the block: module → one [b,h,n,m] per call."""
    made: dict[str, list[Tensor]] = {name: [] for _, _, name in FAMILIES[family]}

    def keep(name: str) -> Any:
        return lambda module, args, output: made[name].append(output[-1])

    hooks = [model.get_submodule(name).register_forward_hook(keep(name)) for name in made]
    yield made
    for hook in hooks:
        hook.remove()


def agree(rec: Recorder, made: dict[str, list[Tensor]], family: str, real: Tensor) -> None:
    """Every recorded call against eager's matrix of the same call. `real` [b, m] are the tokens of the prompt."""
    assert sorted(rec) == sorted(made)
    for attention, layer, name in FAMILIES[family]:
        assert len(rec[name]) == len(made[name])
        for call, p in zip(rec[name], made[name], strict=True):
            assert call.kind == attention.kind
            rows, columns = call.query_positions, call.key_positions
            assert len(columns) == p.shape[-1]
            assert (rows is None) == (attention.kind == "cross")
            rows = range(p.shape[-2]) if rows is None else rows
            # What was written is real, and so far are the empty slots of a static cache: no query sees them yet.
            prompt = torch.ones(len(real), 0) if attention.kind == "decoder" and family in ENCODER_DECODERS else real
            known = torch.nn.functional.pad(prompt, (0, max(0, columns.stop - prompt.shape[1])), value=1)
            known = known.repeat_interleave(len(p) // len(known), 0)
            p = weights(p, admitted(attention, layer, known, rows, columns))
            for reduction, expected in (("entropy", -torch.special.xlogy(p, p).sum(-1)), ("received", p.sum(-2))):
                difference = float((call[reduction] - expected).abs().max())
                assert difference <= TOLERANCE, f"{name} {reduction}"


@pytest.mark.parametrize(("family", "mode", "padding"), CASES)
def test_writes_the_same_tokens(family: str, mode: str, padding: str) -> None:
    if mode == "4-bit cache" and importlib.util.find_spec("optimum") is None:
        pytest.skip("a 4-bit cache needs the package optimum-quanto")
    model, given = build(family), asked(family, mode, padding)
    with matrices(model, family) as made:
        expected = write(model, given)
    with record(model, {"entropy": Entropy(), "received": Received()}) as rec:
        assert torch.equal(write(model, given), expected)
    real = given.get("attention_mask", torch.ones(2, 11, dtype=torch.long))
    agree(rec, made, family, real)
    if mode in SPECULATIVE:
        return  # how many tokens a step looks at depends on how many of the guesses were right
    start = {"whisper": 2}.get(family, 1) if family in ENCODER_DECODERS else 9  # Whisper writes two tokens by itself
    first = [range(4), range(4, 8), range(8, 9)] if mode == "chunked prefill" else [range(start)]
    steps = [range(0 if mode == "no cache" else at, at + 1) for at in range(start, start + NEW - 1)]
    for attention, _, name in FAMILIES[family]:
        if attention.kind == "decoder":
            assert [call.query_positions for call in rec[name]] == first + steps
        elif attention.kind == "encoder":
            assert len(rec[name]) == 1


def test_the_comparison_would_notice() -> None:
    """Negative control: against another prompt's matrices, or the same ones a step later, nothing agrees."""
    model, given = build("t5"), asked("t5", "greedy", "left")
    with matrices(model, "t5") as made:
        write(model, given)
    with record(model, {"entropy": Entropy(), "received": Received()}) as rec:
        write(model, given)
    agree(rec, made, "t5", given["attention_mask"])
    shifted = {name: [*calls[1:], calls[0]] for name, calls in made.items()}
    with pytest.raises(AssertionError):
        agree(rec, shifted, "t5", given["attention_mask"])
    with pytest.raises(AssertionError):
        agree(rec, made, "t5", given["attention_mask"].flip(0))


def test_static_cache_reads_the_positions_of_its_own_step() -> None:
    """A static cache advances its counter in place, before the first layer reads the mask. Tokens do not show it."""
    model = build("llama")
    found = {}
    for mode in ("greedy", "static cache"):
        with record(model, {"entropy": Entropy(), "received": Received()}) as rec:
            write(model, asked("llama", mode, "left"))
        found[mode] = rec
    for name, calls in found["greedy"].items():
        for call, static in zip(calls, found["static cache"][name], strict=True):
            m = len(call.key_positions)
            torch.testing.assert_close(static["entropy"], call["entropy"], atol=2e-6, rtol=1e-5)
            torch.testing.assert_close(static["received"][..., :m], call["received"], atol=2e-6, rtol=1e-5)
            assert not static["received"][..., m:].any(), "slots that are still empty receive nothing"


def test_a_static_sliding_cache_names_the_positions_that_it_kept() -> None:
    model = build("mistral")
    with record(model, {"rows": Rows(torch.tensor([0]))}) as rec:
        write(model, asked("mistral", "static cache", "none"))
    calls = rec["model.layers.0.self_attn"]
    assert calls[0].key_positions == range(9)
    for at, call in zip(range(9, 9 + NEW - 1), calls[1:], strict=True):
        assert call.query_positions == range(at, at + 1)
        kept = call["rows"][0, 0, 0].nonzero()[:, 0] + call.key_positions.start
        assert kept.tolist() == list(range(at - 3, at + 1)), "a window of four"


def test_the_rows_of_a_beam_search_are_its_beams() -> None:
    model = build("llama")
    with record(model, {"entropy": Entropy()}) as rec:
        write(model, asked("llama", "beams", "none"))
    for calls in rec.values():
        assert {call["entropy"].shape[0] for call in calls} == {2 * 3}


def test_grouped_queries_keep_their_key_heads() -> None:
    seen: list[tuple[int, int, int]] = []

    class Shapes:
        def reductions(self, call: Call) -> dict[str, Reduction]:
            return {}

        def received(self, call: Call, observed: Observed) -> None:
            seen.append((call.matrix.shape[1], call.value.shape[1], observed.output.shape[1]))

    model = build("llama")
    with listening(model, Shapes()):
        write(model, asked("llama", "greedy", "none"))
    assert set(seen) == {(4, 2, 4)}


def test_a_text_generation_pipeline() -> None:
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast, pipeline

    words = {f"w{i}": i for i in range(97)}
    spelled = Tokenizer(models.WordLevel(words, unk_token="w3"))
    spelled.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=spelled, pad_token="w0", bos_token="w1", padding_side="left")
    model = build("llama")
    writes = pipeline("text-generation", model=model, tokenizer=tokenizer, device="cpu")
    asked_twice = ["w5 w6 w7 w8", "w9 w10"]
    how = {"max_new_tokens": NEW, "do_sample": False, "batch_size": 2}
    expected = writes(asked_twice, **how)
    with record(model, {"entropy": Entropy()}) as rec:
        assert writes(asked_twice, **how) == expected
    assert all(len(text["generated_text"].split()) > 4 for (text,) in expected)
    assert [len(calls) for calls in rec.values()] == [NEW, NEW]


def test_the_assistant_may_be_recorded_too() -> None:
    model, given = build("llama"), asked("llama", "assisted", "none")
    helper = given["assistant_model"]
    both = nn.ModuleDict({"model": model, "helper": helper})
    expected = write(model, given)
    with record(both, {"entropy": Entropy()}) as rec:
        assert torch.equal(write(model, given), expected)
    assert sorted(rec) == [f"{which}.model.layers.{i}.self_attn" for which in ("helper", "model") for i in range(2)]
