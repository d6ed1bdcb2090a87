"""Generation against Transformers' own, and the focus of each token against a full backward through eager attention."""

from __future__ import annotations

import json
from typing import Any

import pytest
import torch
from torch.overrides import TorchFunctionMode

from sightline.errors import InputError, ModelError, SpecError
from sightline.evidence import Row, key_relevance, owners
from sightline.reader import Reader
from sightline.sentences import Span, words
from sightline.tasks._written import Written
from sightline.tasks.generation import Generation, Produced, Source, generate, stream
from sightline.tasks.generation._encoded import encode
from sightline.tasks.generation._words import Words
from tiny_model import CONTEXT, DOCUMENT

PROMPT = "How is the fare paid, and by whom?"
STRANGE = [
    "Eggs 😀 and 👨‍👩‍👧?",
    "מי משלם? שלום",
    "one\r\ntwo\r\n\r\nthree",
    "天気は良い。",
    "हिन्दी में",
    "<|end|> twice <|start|>",
]


@pytest.fixture
def talkative(talkative: tuple[Any, Any]) -> tuple[Any, Any]:
    """So that Transformers' own generation does not end either."""
    talkative[0].generation_config.eos_token_id = None
    return talkative


def tokens_of(result: Generation) -> list[int]:
    return [unit.token for unit in result.units]


def theirs(pair: tuple[Any, Any], new: int, **options: Any) -> list[int]:
    model, tokenizer = pair
    ids = torch.tensor([tokenizer(PROMPT)["input_ids"]])
    return model.generate(ids, max_new_tokens=new, **options)[0, ids.shape[1] :].tolist()


@pytest.mark.parametrize("focus", [0, 2])
def test_greedy_is_the_models_own_greedy_generation(talkative: tuple[Any, Any], focus: int) -> None:
    result = generate(PROMPT, model=talkative, max_new_tokens=20, chat=False, focus=focus)
    assert tokens_of(result) == theirs(talkative, 20, do_sample=False)
    assert result.ended == "length"


@pytest.mark.parametrize(
    "options",
    [{"temperature": 1.0}, {"temperature": 0.7, "top_k": 15}, {"temperature": 1.5, "top_p": 0.6, "top_k": 99}],
)
def test_sampling_draws_what_transformers_draws_with_the_same_seed(
    talkative: tuple[Any, Any], options: dict[str, Any]
) -> None:
    result = generate(PROMPT, model=talkative, max_new_tokens=24, chat=False, seed=5, **options)
    torch.manual_seed(5)
    assert tokens_of(result) == theirs(talkative, 24, do_sample=True, **{"top_k": 0, "top_p": 1.0} | options)
    focused = generate(PROMPT, model=talkative, max_new_tokens=24, chat=False, seed=5, focus=1, **options)
    assert tokens_of(focused) == tokens_of(result)


def test_seed_temperature_top_k_and_top_p_each_change_what_is_drawn(talkative: tuple[Any, Any]) -> None:
    settings: list[dict[str, Any]] = [
        {"temperature": 1.0, "seed": 1},
        {"temperature": 1.0, "seed": 2},
        {"temperature": 0.3, "seed": 1},
        {"temperature": 1.0, "seed": 1, "top_k": 3},
        {"temperature": 1.0, "seed": 1, "top_p": 0.3},
    ]
    drawn = [tuple(tokens_of(generate(PROMPT, model=talkative, max_new_tokens=24, **s))) for s in settings]
    assert len(set(drawn)) == len(drawn)
    greedy = generate(PROMPT, model=talkative, max_new_tokens=24)
    assert tokens_of(generate(PROMPT, model=talkative, max_new_tokens=24, temperature=1.0, top_k=1)) == tokens_of(
        greedy
    )


def test_log_probs_are_the_models_own_whatever_is_drawn(talkative: tuple[Any, Any]) -> None:
    model, tokenizer = talkative
    result = generate(PROMPT, model=talkative, max_new_tokens=9, chat=False, temperature=2.0, top_k=9, seed=1)
    ids = tokenizer(PROMPT)["input_ids"]
    with torch.no_grad():
        logits = model(torch.tensor([[*ids, *tokens_of(result)]])).logits[0, len(ids) - 1 : -1]
    expected = torch.log_softmax(logits, -1).gather(1, torch.tensor(tokens_of(result))[:, None])[:, 0]
    torch.testing.assert_close(torch.tensor([u.log_prob for u in result.units]), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("prompt", [PROMPT, *STRANGE])
@pytest.mark.parametrize("chat", [True, False])
def test_the_stream_is_the_whole_and_sources_are_words_by_place(
    talkative: tuple[Any, Any], prompt: str, chat: bool
) -> None:
    result = generate(prompt, model=talkative, max_new_tokens=16, chat=chat, focus=4)
    assert list(stream(prompt, model=talkative, max_new_tokens=16, chat=chat, focus=4)) == list(result.units)
    whole = talkative[1].decode(tokens_of(result), skip_special_tokens=True)
    assert result.text == "".join(u.text for u in result.units) == whole.rstrip("\ufffd")
    for unit in result.units:
        assert result.text[unit.start : unit.end] == unit.text
        shares = [source.share for source in unit.sources]
        assert shares == sorted(shares, reverse=True)
        assert 0 < sum(shares) <= 1
        assert len({(s.where, s.start) for s in unit.sources}) == len(shares) <= 4
        for source in unit.sources:
            text = prompt if source.where == "prompt" else result.text
            assert text[source.start : source.end] == source.text == source.text.strip()
    assert any(s.where == "output" for u in result.units for s in u.sources)


def test_focus_is_the_dense_definition_through_a_full_backward(talkative: tuple[Any, Any]) -> None:
    model, tokenizer = talkative
    result = generate(PROMPT, model=talkative, max_new_tokens=10, chat=False, focus=1000)
    ids = tokenizer(PROMPT)["input_ids"]
    places = tokenizer(PROMPT, return_offsets_mapping=True)["offset_mapping"]
    model.set_attn_implementation("eager")
    written = ""
    for t, unit in enumerate(result.units):
        read = [*ids, *tokens_of(result)[:t]]
        output = model(torch.tensor([read]), use_cache=False, output_attentions=True)
        for weights in output.attentions:
            weights.retain_grad()
        torch.log_softmax(output.logits[0, -1], -1)[unit.token].backward()
        dense = sum((w.detach() * w.grad)[0, :, -1].clamp_min(0).sum(0) for w in output.attentions).double()
        for weight in output.attentions:
            weight.grad = None
        whole = float(dense.sum())
        found = {(s.start, s.end): s.share for s in unit.sources if s.where == "prompt"}
        for word in words(PROMPT, signs=True):
            expected = sum(
                float(dense[j])
                for j, (a, b) in enumerate(places)
                if min(b, word.end) - max(a, word.start) > (b - a) / 2 or (b - a == 2 and a + 1 == word.start)
            )
            assert found.get(tuple(word), 0.0) == pytest.approx(expected / whole, abs=1e-4)
        own = sum(s.share for s in unit.sources if s.where == "output")
        assert own <= float(dense[len(ids) :].sum()) / whole + 1e-4
        written += unit.text
    assert max(s.share for u in result.units for s in u.sources) > 0.05


def test_the_relevance_of_a_row_is_that_of_evidence(talkative: tuple[Any, Any]) -> None:
    model, tokenizer = talkative
    ids = tokenizer(DOCUMENT)["input_ids"]
    reader = Reader(model)
    reader.read(ids[:-1])
    expected, log_prob = key_relevance(reader, ids, [7])
    row = Row(reader, ids[-1])
    torch.testing.assert_close(row.relevance(7), expected)
    assert float(torch.log_softmax(row.logits.detach(), -1)[7]) == pytest.approx(log_prob, abs=1e-5)
    assert reader.length == len(ids)
    assert not any(layer.keys.requires_grad for layer in reader._cache.layers)
    assert all(parameter.grad is None for parameter in model.parameters())


def test_a_stop_token_ends_the_text_and_is_left_out(talkative: tuple[Any, Any]) -> None:
    free = generate(PROMPT, model=talkative, max_new_tokens=12)
    stop = tokens_of(free)[5]
    talkative[0].generation_config.eos_token_id = [stop]
    result = generate(PROMPT, model=talkative, max_new_tokens=12, focus=1)
    assert tokens_of(result) == tokens_of(free)[: tokens_of(free).index(stop)]
    assert result.ended == "stop"


def test_a_character_is_written_when_it_is_whole(tokenizer: Any) -> None:
    text = "a 😀é👨‍👩‍👧 שלום\r\n天"
    ids = tokenizer(text)["input_ids"]
    written = Written(tokenizer, tokenizer(PROMPT)["input_ids"])
    pieces = [written.add(i) for i in ids]
    assert "".join(pieces) == text
    assert "" in pieces
    assert "\ufffd" not in "".join(pieces)
    # Decoding each token by itself is what would print halves.
    assert "\ufffd" in "".join(tokenizer.decode([i]) for i in ids)
    half = Written(tokenizer, ())
    assert [half.add(i) for i in tokenizer("😀")["input_ids"][:-1]] == ["", "", ""]


@pytest.mark.parametrize("text", [DOCUMENT, *STRANGE, "a  b\u200d e\u0301c\n\n d1.5 e'f"])
def test_the_words_of_a_growing_text_are_those_of_the_whole(text: str) -> None:
    grown = Words()
    for at in range(0, len(text), 2):
        grown.add("")
        grown.add(text[at : at + 2])
        assert grown.spans == words(grown.text, signs=True)
    expected = words(text, signs=True)
    places = [Span(at, min(at + 2, len(text))) for at in range(0, len(text), 2)]
    assert grown.of_token[1::2] == owners(places, expected)
    assert grown.of_token[::2] == owners([Span(p.start, p.start + 1) for p in places], expected)
    assert "".join(text[s.start : s.end] for s in expected).split() == ["".join(text.split())]


def test_text_that_looks_like_a_control_token_stays_text_in_a_chat(tokenizer: Any) -> None:
    tokens = encode("<|end|>", tokenizer, chat=True).tokens
    assert tokens.count(tokenizer.eos_token_id) == encode("x", tokenizer, chat=True).tokens.count(
        tokenizer.eos_token_id
    )
    assert encode("<|end|>", tokenizer, chat=False).tokens == (tokenizer.eos_token_id,)


def test_no_tensor_of_queries_by_keys_is_made(talkative: tuple[Any, Any]) -> None:
    n = 400
    sizes: list[int] = []

    class Watch(TorchFunctionMode):
        def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            made = func(*args, **(kwargs or {}))
            sizes.extend(
                t.numel() for t in (made if isinstance(made, tuple) else [made]) if isinstance(t, torch.Tensor)
            )
            return made

    prompt = "a " * (n // 2)
    with Watch():
        generate(prompt, model=talkative, max_new_tokens=4, chat=False, focus=2)
    assert 10_000 < max(sizes) < n * n


def test_a_prompt_that_just_fits_is_continued_and_one_token_more_is_not(talkative: tuple[Any, Any]) -> None:
    room = CONTEXT - len(talkative[1](DOCUMENT)["input_ids"])
    kept = {"model": talkative, "chat": False}
    assert len(generate(DOCUMENT, max_new_tokens=room, **kept).units) == room
    with pytest.raises(InputError, match=rf"may take {room + 1} more, and the context of .* is {CONTEXT} tokens"):
        generate(DOCUMENT, max_new_tokens=room + 1, **kept)


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"max_new_tokens": 0}, "max_new_tokens is 0"),
        ({"focus": -1}, "focus is -1"),
        ({"temperature": -0.1}, "temperature is -0.1"),
        ({"temperature": 1e-40}, "temperature is 1e-40; divided by so little"),
        ({"temperature": float("nan")}, "temperature is nan"),
        ({"temperature": 1.0, "top_p": 0.0}, "top_p is 0.0"),
        ({"temperature": 1.0, "top_p": 1.5}, "top_p is 1.5"),
        ({"temperature": 1.0, "top_k": 0}, "top_k is 0"),
        ({"temperature": 1.0, "seed": -1}, "seed is -1"),
        ({"top_k": 5}, "top_k was given and temperature is 0"),
        ({"top_p": 0.5}, "top_p was given and temperature is 0"),
    ],
)
def test_options_that_make_no_sense_are_refused_before_a_model_is_loaded(options: dict[str, Any], why: str) -> None:
    with pytest.raises(SpecError, match=why):
        stream(PROMPT, model="no such model", **options)


@pytest.mark.parametrize(("prompt", "why"), [("", "is empty"), (" \n", "is empty"), ("a\udc80", "is not text")])
def test_a_prompt_without_text_is_refused_before_a_model_is_loaded(prompt: str, why: str) -> None:
    with pytest.raises(InputError, match=why):
        stream(prompt, model="no such model")


def test_models_that_cannot_are_refused(pair: tuple[Any, Any]) -> None:
    model, tokenizer = pair
    model.config.is_encoder_decoder = True
    with pytest.raises(ModelError, match=r"has an encoder and a decoder.*sightline translate.*decoder-only"):
        generate(PROMPT, model=pair)
    model.config.is_encoder_decoder = False
    template, tokenizer.chat_template = tokenizer.chat_template, None
    try:
        with pytest.raises(ModelError, match=r"no chat template.*--raw"):
            generate(PROMPT, model=pair)
    finally:
        tokenizer.chat_template = template


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_a_model_whose_logits_are_no_numbers_is_refused(pair: tuple[Any, Any], temperature: float) -> None:
    with torch.no_grad():
        pair[0].lm_head.weight[7] = float("nan")
    with pytest.raises(ModelError, match="logits are not numbers"):
        generate(PROMPT, model=pair, temperature=temperature)


def test_the_least_temperature_draws_the_likeliest(talkative: tuple[Any, Any]) -> None:
    coldest = generate(PROMPT, model=talkative, max_new_tokens=12, temperature=1e-6, seed=1)
    assert tokens_of(coldest) == tokens_of(generate(PROMPT, model=talkative, max_new_tokens=12))


def test_to_dict_has_exactly_the_promised_keys() -> None:
    first = Produced(4, " ", 0, -1.5)
    unit = Produced(3, "Eggs", 1, -0.5, (Source("prompt", 0, 3, "How", 0.25),))
    result = Generation(" Eggs", (first, unit), "stop", "tiny", 0.5, 1000)
    source = {"where": "prompt", "start": 0, "end": 3, "text": "How", "share": 0.25}
    assert json.loads(json.dumps(result.to_dict())) == {
        "text": " Eggs",
        "units": [
            {"text": " ", "start": 0, "end": 1, "log_prob": -1.5, "citations": [], "supported": None},
            {"text": "Eggs", "start": 1, "end": 5, "log_prob": -0.5, "citations": [source], "supported": None},
        ],
        "ended": "stop",
        "model": "tiny",
        "seconds": 0.5,
        "peak_bytes": 1000,
    }
