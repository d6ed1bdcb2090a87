from __future__ import annotations

import json
from itertools import pairwise
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from sightline.errors import InputError, SpecError
from sightline.evidence import SENTENCE_SUPPORT, document_drop, rests_on_document
from sightline.reader import Reader
from sightline.sentences import sentences
from sightline.tasks import Summary, summarize
from sightline.tasks._chat import text_tokens
from sightline.tasks._prompt import Prompt
from sightline.tasks._windows import units, windows
from sightline.tasks.summary._abstract import _ORDER, _REQUEST
from sightline.tasks.summary._centrality import mass_received
from sightline.tasks.summary._written import ends_sentence, sentence_tokens, worth_keeping
from tiny_model import CONTEXT, DOCUMENT

LONG = DOCUMENT * 8


def dense_mass(model: Any, tokens: list[int], owners: list[int], count: int, *, own: bool = False) -> torch.Tensor:
    """The definition, from the whole matrices that Transformers' eager attention returns: the last third of layers."""
    model.set_attn_implementation("eager")
    with torch.no_grad():
        attentions = model(torch.tensor([tokens]), output_attentions=True).attentions
    model.set_attn_implementation("sdpa")
    last = attentions[len(attentions) * 2 // 3 :]
    p = torch.cat(last, 1)[0].double().sum(0)
    received = torch.zeros(count, dtype=torch.float64)
    for i, row in enumerate(owners):
        for j, key in enumerate(owners[: i + 1]):
            if row >= 0 and key >= 0 and j > 0 and (own or row != key):
                received[key] += p[i, j]
    return received


def test_the_mass_that_sentences_receive_is_that_of_the_dense_matrices(pair: tuple[Any, Any]) -> None:
    model, tokenizer = pair
    tokens = tokenizer(DOCUMENT * 4)["input_ids"][:300]  # more than one chunk of the reader
    owners = [min(at // 23, 11) if at % 23 < 20 else -1 for at in range(len(tokens))]
    received = mass_received(model, tokens, owners, 13)
    torch.testing.assert_close(received, dense_mass(model, tokens, owners, 13), rtol=1e-4, atol=1e-5)
    assert received[12] == 0
    # Without the exclusion of its own sentence it would be another number.
    assert not torch.allclose(received, dense_mass(model, tokens, owners, 13, own=True), rtol=0.1)


def test_excerpts_are_the_highest_scores_in_the_order_of_the_document(pair: tuple[Any, Any]) -> None:
    document = DOCUMENT.replace("\n", "\r\n").replace("Ansel", "Ansel 😀 שלום")
    every = summarize(document, model=pair, extractive=99)
    three = summarize(document, model=pair, extractive=3)
    assert [(e.start, e.end) for e in every.excerpts] == sentences(document)  # fewer sentences than were asked for
    whole = [e for e in every.excerpts if e.text != "The Ferry"]
    assert len(whole) == len(every.excerpts) - 1
    assert set(three.excerpts) == set(sorted(whole, key=lambda e: -e.score)[:3])
    assert [e.start for e in three.excerpts] == sorted(e.start for e in three.excerpts)
    for excerpt in every.excerpts:
        assert document[excerpt.start : excerpt.end] == excerpt.text
        assert excerpt.text in document.split("\r\n")[excerpt.line - 1]
    assert sum(e.score for e in every.excerpts) == pytest.approx(len(every.excerpts))
    assert three.sentences == ()


def test_a_long_document_is_picked_from_window_by_window(pair: tuple[Any, Any]) -> None:
    result = summarize(LONG, model=pair, extractive=99)
    assert len(result.windows) > 1
    assert [(e.start, e.end) for e in result.excerpts] == sentences(LONG)
    for before, after in pairwise(result.windows):
        assert before.start < after.start < before.end < after.end


@pytest.mark.parametrize("document", ["x" * 4000, "word " * 900])
def test_a_sentence_longer_than_the_context_is_read_in_pieces(document: str, talkative: tuple[Any, Any]) -> None:
    picked = summarize(document, model=talkative, extractive=1000)
    assert "".join(e.text for e in picked.excerpts).replace(" ", "") == document.replace(" ", "")
    written = summarize(document, model=talkative, max_new_tokens=4, citations=1)
    assert len(written.windows) > 1
    assert written.sentences


@given(st.lists(st.integers(1, 30), min_size=1, max_size=40), st.integers(10, 60), st.integers(0, 9))
def test_windows_hold_every_sentence_and_overlap_by_no_more_than_was_asked(
    lengths: list[int], room: int, overlap: int
) -> None:
    firsts = [sum(lengths[:i]) for i in range(len(lengths))]
    runs = windows(firsts, sum(lengths), room, overlap)
    assert runs[0].start == 0
    assert runs[-1].stop == len(lengths)
    for run in runs:
        assert sum(lengths[i] for i in run) <= room or len(run) == 1
    for before, after in pairwise(runs):
        assert before.start < after.start <= before.stop < after.stop
        assert sum(lengths[after.start : before.stop]) <= overlap


def test_windows_without_overlap_hold_every_sentence_exactly_once() -> None:
    runs = windows([0, 10, 20, 30, 45], 50, 25, 0)
    assert [i for run in runs for i in run] == [0, 1, 2, 3, 4]


def test_units_are_the_sentences_with_the_tokens_they_begin_with(tokenizer: Any) -> None:
    places = text_tokens(tokenizer, DOCUMENT)[1]
    found, firsts = units(DOCUMENT, places, 1000)
    assert found == sentences(DOCUMENT)
    for span, first in zip(found, firsts, strict=True):
        assert places[first].start <= span.start < places[first].end


def test_each_sentence_of_a_summary_has_measured_citations(talkative: tuple[Any, Any]) -> None:
    document = DOCUMENT.replace("\n", "\r\n")
    result = summarize(document, model=talkative, max_new_tokens=12)
    assert result.text
    assert result.truncated
    assert len(result.windows) == 1
    assert result.excerpts == ()
    for sentence in result.sentences:
        assert len(sentence.citations) == 2
        assert result.text[sentence.start : sentence.end] == sentence.text
        for citation in sentence.citations:
            assert document[citation.start : citation.end] == citation.text


def test_a_document_longer_than_the_context_is_summarised_in_windows(talkative: tuple[Any, Any]) -> None:
    heard: list[tuple[str, int, int | None]] = []
    result = summarize(LONG, model=talkative, max_new_tokens=8, citations=1, progress=lambda *told: heard.append(told))
    assert len(result.windows) > 1
    covered = {at for window in result.windows for at in range(window.start, window.end)}
    assert all(at in covered for span in sentences(LONG) for at in range(*span))
    assert result.sentences
    for sentence in result.sentences:
        window = result.windows[sentence.window]
        for citation in sentence.citations:
            assert window.start <= citation.start < citation.end <= window.end
            assert LONG[citation.start : citation.end] == citation.text
    assert {phase for phase, _, _ in heard} >= {"summarising", "citing"}
    assert all(total is None or done <= total for _, done, total in heard)


@pytest.mark.parametrize(("nats", "supported"), [(5.0, True), (1.0, True), (0.99, False), (-3.0, False)])
def test_a_sentence_that_loses_little_without_the_document_is_not_supported(
    nats: float, supported: bool, talkative: tuple[Any, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "sightline.tasks.summary._abstract.document_drop",
        lambda *parts, log_prob: nats * SENTENCE_SUPPORT * len(parts[-1]),
    )
    result = summarize(DOCUMENT, model=talkative, max_new_tokens=4)
    assert {sentence.supported for sentence in result.sentences} == {supported}


def test_support_is_measured_by_hiding_the_document(talkative: tuple[Any, Any]) -> None:
    result = summarize(DOCUMENT, model=talkative, max_new_tokens=12, citations=0)
    model, tokenizer = talkative
    prompt = Prompt(DOCUMENT, _REQUEST, tokenizer, _ORDER)
    reader = Reader(model)
    reader.read(prompt.tokens[:-1])
    tokens = worth_keeping(tokenizer, reader.generate(prompt.tokens[-1], 12, ()), True)
    first = tokens[: sentence_tokens(tokenizer, tokens)[1][0][1].stop]
    wanted = document_drop(reader, prompt.tokens, prompt.places, first)
    assert wanted != 0
    assert result.sentences[0].document_drop == pytest.approx(wanted, abs=1e-4)
    assert result.sentences[0].tokens == len(first)
    assert result.sentences[0].citations == ()


def test_every_token_of_a_summary_is_in_one_sentence(tokenizer: Any) -> None:
    text = "Goats travel free. Was it wise?\n\n- Fares are paid in eggs."
    tokens = tokenizer("\n" + text)["input_ids"]
    found, written = sentence_tokens(tokenizer, tokens)
    assert found == text
    assert [text[s.start : s.end] for s, _ in written] == [
        "Goats travel free.",
        "Was it wise?",
        "Fares are paid in eggs.",
    ]
    assert [at for _, inside in written for at in inside] == list(range(len(tokens)))
    assert tokenizer.decode(tokens[written[1][1].start : written[1][1].stop]).strip() == "Was it wise?"


@pytest.mark.parametrize(
    ("written", "truncated", "kept"),
    [
        (
            "Goats travel free. Eggs are fares. Goats  travel free. Was it wise?",
            False,
            "Goats travel free. Eggs are fares.",
        ),
        ("Goats travel free. Eggs are", True, "Goats travel free."),
        ("Goats travel free. Eggs are", False, "Goats travel free. Eggs are"),
        ('Goats travel free. "Eggs are fares."', True, 'Goats travel free. "Eggs are fares."'),
        ("Goats travel", True, "Goats travel"),
        ("", False, ""),
    ],
)
def test_repetitions_and_a_cut_off_sentence_are_left_out(
    written: str, truncated: bool, kept: str, tokenizer: Any
) -> None:
    tokens = worth_keeping(tokenizer, tokenizer(written)["input_ids"], truncated)
    assert tokenizer.decode(tokens).strip() == kept


def test_what_cannot_be_summarised_is_refused(pair: tuple[Any, Any]) -> None:
    with pytest.raises(InputError, match="it is empty"):
        summarize(" \n", model="no such model")
    with pytest.raises(SpecError, match="extractive is 0"):
        summarize(DOCUMENT, model=pair, extractive=0)
    with pytest.raises(SpecError, match="max_new_tokens is 0"):
        summarize(DOCUMENT, model=pair, max_new_tokens=0)
    with pytest.raises(SpecError, match="citations is -1"):
        summarize(DOCUMENT, model=pair, citations=-1)
    with pytest.raises(InputError, match=rf"context is {CONTEXT} tokens"):
        summarize(DOCUMENT, model=pair, max_new_tokens=CONTEXT)


def test_no_tensor_of_the_reading_grows_with_the_square_of_the_document(
    pair: tuple[Any, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    from torch.utils._python_dispatch import TorchDispatchMode

    monkeypatch.setattr("sightline.reader._CHUNK", 256)  # tokens read at once
    largest = 0

    class Largest(TorchDispatchMode):
        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            nonlocal largest
            out = func(*args, **(kwargs or {}))
            for t in out if isinstance(out, tuple | list) else (out,):
                if isinstance(t, torch.Tensor) and t.ndim >= 2 and min(t.shape[-2:]) > 256:
                    largest = max(largest, min(t.shape[-2:]))
            return out

    model, tokenizer = pair
    tokens = (tokenizer(DOCUMENT)["input_ids"] * 9)[:CONTEXT]
    with Largest():
        mass_received(model, tokens, [at // 16 for at in range(len(tokens))], CONTEXT // 16)
    assert largest == 0
    with Largest():  # the same watch sees the matrices of the definition
        dense_mass(model, tokens, [-1] * len(tokens), 1)
    assert largest == CONTEXT


def test_to_dict_is_plain_data(talkative: tuple[Any, Any]) -> None:
    result: Summary = summarize(DOCUMENT, model=talkative, max_new_tokens=4)
    plain = json.loads(json.dumps(result.to_dict()))
    keys = ["summary", "units", "excerpts", "windows", "truncated", "model", "seconds", "peak_bytes"]
    assert list(plain) == keys
    unit = plain["units"][0]
    assert list(unit) == ["text", "start", "end", "citations", "supported", "document_drop", "tokens", "window"]
    assert plain["summary"][unit["start"] : unit["end"]] == unit["text"]
    assert list(unit["citations"][0]) == ["text", "start", "end", "line", "relevance", "drop", "direct_drop", "source"]


def test_a_sentence_is_supported_from_one_nat_for_each_token() -> None:
    assert rests_on_document(12.0, 12)
    assert not rests_on_document(11.9, 12)
    assert not rests_on_document(-30.0, 12)


@pytest.mark.parametrize("text", ["It is.", 'He said "no!"', "Was it?)", "Ja…", "雨が降る。", "**So it was.**"])
def test_what_ends_like_a_sentence(text: str) -> None:
    assert ends_sentence(text)


@pytest.mark.parametrize("text", ["The Ferry", "| a | b |", "as follows", "3.5 km", ""])
def test_what_ends_like_no_sentence(text: str) -> None:
    assert not ends_sentence(text)
