from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from sightline.errors import InputError, ModelError, SpecError
from sightline.evidence import Support, find_support, ranked
from sightline.reader import Reader
from sightline.sentences import Span, sentences
from sightline.tasks import Answer, Citation, answer
from sightline.tasks._chat import text_tokens
from sightline.tasks._check import check
from sightline.tasks._meter import Meter
from sightline.tasks._prompt import Prompt
from sightline.tasks.answering import Window
from sightline.tasks.documents import Document
from tiny_model import CONTEXT, DOCUMENT

QUESTION = "How is the fare paid?"


def test_an_answer_cites_sentences_of_the_document_by_place(talkative: tuple[Any, Any]) -> None:
    document = DOCUMENT.replace("\n", "\r\n")
    result = answer(document, QUESTION, model=talkative, max_new_tokens=8)
    assert result.text
    assert len(result.citations) == 3
    for citation in result.citations:
        assert document[citation.start : citation.end] == citation.text
        assert citation.text in document.split("\r\n")[citation.line - 1]
        assert 0 < citation.relevance < 1
    drops = [citation.drop for citation in result.citations]
    assert drops == sorted(drops, reverse=True)
    assert sum(citation.relevance for citation in result.citations) <= 1
    assert result.seconds > 0
    assert result.peak_bytes > 2**20


def test_the_same_question_twice_gives_the_same_answer(talkative: tuple[Any, Any]) -> None:
    first, second = (answer(DOCUMENT, QUESTION, model=talkative, max_new_tokens=8) for _ in range(2))
    assert (first.text, first.citations) == (second.text, second.citations)


def test_to_dict_has_exactly_the_promised_keys() -> None:
    cited = Citation("Fares.", 3, 9, 2, 0.25, 1.5, 1.25, "ferry.txt")
    result = Answer(
        "Eggs.", (cited,), "tiny", 0.5, 1000, Support(7.5, -4.0, 0.5, 0.5, 2.5), (Window("ferry.txt", 0, 40, 1, 3),), 12
    )
    citation = {
        "text": "Fares.",
        "start": 3,
        "end": 9,
        "line": 2,
        "relevance": 0.25,
        "drop": 1.5,
        "direct_drop": 1.25,
        "source": "ferry.txt",
    }
    assert json.loads(json.dumps(result.to_dict())) == {
        "answer": "Eggs.",
        "verdict": "in the document",
        "citations": [citation],
        "model": "tiny",
        "seconds": 0.5,
        "peak_bytes": 1000,
        "supported": True,
        "document_drop": 7.5,
        "refusal": -4.0,
        "answerable": 0.5,
        "stated": 0.5,
        "contrast": 2.5,
        "strength": 6.4375,
        "units": [{"text": "Eggs.", "citations": [citation], "supported": True}],
        "windows": [{"source": "ferry.txt", "start": 0, "end": 40, "line": 1, "last_line": 3}],
        "searched": 12,
    }
    assert replace(result, support=Support(0.5, -4.0, 0.5, 0.5, 0.0)).verdict == "not in the document"
    nothing = replace(result, text="", citations=(), support=Support(0.0, 0.0, 0.0, 0.0, 0.0))
    assert (nothing.verdict, nothing.to_dict()["units"]) == ("no answer", [])


@pytest.mark.parametrize("citations", [0, 2])
def test_the_support_is_that_of_the_answer(talkative: tuple[Any, Any], citations: int) -> None:
    model, tokenizer = talkative
    result = answer(DOCUMENT, QUESTION, model=talkative, max_new_tokens=8, citations=citations)
    prompt = Prompt(DOCUMENT, QUESTION, tokenizer)
    reader = Reader(model)
    reader.read(prompt.tokens[:-1])
    tokens = reader.generate(prompt.tokens[-1], 8, ())
    spans = sentences(DOCUMENT)
    listed = ranked(reader, prompt.tokens, prompt.places, spans, tokens).direct
    most = spans[max(listed, key=lambda i: listed[i])]
    if citations:
        most = Span(result.citations[0].start, result.citations[0].end)
    lacking = check(prompt.lacking(most), result.text)
    expected = find_support(reader, prompt.tokens, prompt.places, tokens, check(prompt, result.text), lacking)
    assert vars(result.support) == pytest.approx(vars(expected), abs=1e-3)
    for four in ((40.0, -10.0, 3.0, 0.0), (0.0, -10.0, 1.0, 0.0), (40.0, -0.1, -3.0, 3.0)):
        support = Support(*four, 0.0)
        assert replace(result, support=support).supported is support.holds


def test_a_model_that_does_not_look_at_the_document_is_not_supported_by_it(talkative: tuple[Any, Any]) -> None:
    """With all its values zero the model attends to nothing, whatever it answers."""
    model, _ = talkative
    with torch.no_grad():
        for layer in model.model.layers:
            layer.self_attn.v_proj.weight.zero_()
    result = answer(DOCUMENT, QUESTION, model=talkative, max_new_tokens=4)
    assert result.text
    assert result.support.document_drop == pytest.approx(0, abs=1e-4)
    assert not result.supported


def test_a_folder_is_a_model_too_and_phases_come_in_order(folder: Path) -> None:
    heard: list[tuple[str, int, int | None]] = []
    result = answer(
        DOCUMENT,
        QUESTION,
        model=str(folder),
        max_new_tokens=4,
        progress=lambda phase, done, total: heard.append((phase, done, total)),
    )
    assert result.model == str(folder)
    phases = list(dict.fromkeys(phase for phase, _, _ in heard))
    assert phases == ["loading", "reading", "answering", "evidence", "measuring", "checking"][: len(phases)]
    assert phases[:3] == ["loading", "reading", "answering"]
    assert (phases[-1] == "checking") == bool(result.text)
    reading = [(done, total) for phase, done, total in heard if phase == "reading"]
    assert reading[0][0] == 0
    assert reading[-1][0] == reading[-1][1]


@pytest.mark.parametrize(("clear", "rounds"), [(-1e9, 1), (1e9, 2)])
def test_more_is_measured_where_nothing_is_clear(
    clear: float, rounds: int, talkative: tuple[Any, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sightline.evidence.CLEAR", clear)
    begun: list[int | None] = []

    def heard(phase: str, done: int, total: int | None) -> None:
        if phase == "measuring" and done == 0:
            begun.append(total)

    result = answer(DOCUMENT, QUESTION, model=talkative, max_new_tokens=3, citations=2, progress=heard)
    assert len(result.citations) == 2
    assert len(begun) == rounds


def test_no_citations_are_measured_where_none_are_wanted(talkative: tuple[Any, Any]) -> None:
    heard: list[str] = []
    result = answer(
        DOCUMENT,
        QUESTION,
        model=talkative,
        max_new_tokens=3,
        citations=0,
        progress=lambda phase, *_: heard.append(phase),
    )
    assert result.citations == ()
    assert "measuring" not in heard


def test_a_model_that_says_nothing_gives_an_empty_answer(
    pair: tuple[Any, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    end = pair[1].eos_token_id
    monkeypatch.setattr("sightline.reader.Reader.next_logits", lambda *_: torch.arange(end + 1))
    result = answer(DOCUMENT, QUESTION, model=pair)
    assert (result.text, result.citations) == ("", ())
    assert (result.support, result.supported) == (Support(0, 0, 0, 0, 0), False)


def test_a_document_that_just_fits_is_read_whole_and_one_token_more_is_searched(talkative: tuple[Any, Any]) -> None:
    beside = len(check(Prompt("", QUESTION, talkative[1]), "").stating) - len(Prompt("", QUESTION, talkative[1]).tokens)
    room = CONTEXT - len(Prompt(DOCUMENT, QUESTION, talkative[1]).tokens) - beside
    fits = answer(DOCUMENT, QUESTION, model=talkative, max_new_tokens=room, citations=0)
    assert fits.windows == (Window(None, 0, len(DOCUMENT), 1, DOCUMENT.count("\n")),)
    assert fits.searched == 0
    more = answer(DOCUMENT, QUESTION, model=talkative, max_new_tokens=room + 1, citations=0)
    assert more.searched > 1
    assert sum(window.end - window.start for window in more.windows) < len(DOCUMENT)
    shorter = len(Prompt(DOCUMENT, QUESTION, talkative[1]).tokens) - len(Prompt("", QUESTION, talkative[1]).tokens)
    assert answer(DOCUMENT, QUESTION, model=talkative, max_new_tokens=1, citations=0, reading=shorter).searched == 0
    assert answer(DOCUMENT, QUESTION, model=talkative, max_new_tokens=1, citations=0, reading=shorter - 1).searched > 1


def test_what_the_model_is_asked_beside_the_answer_fits_in_its_context_too(talkative: tuple[Any, Any]) -> None:
    tokenizer = talkative[1]
    words = 1
    while len(Prompt("eggs. " * words, QUESTION, tokenizer).tokens) < CONTEXT - 2:
        words += 1
    text = "eggs. " * words
    assert len(check(Prompt(text, QUESTION, tokenizer), "").inviting) > CONTEXT
    assert answer(text, QUESTION, model=talkative, max_new_tokens=1, citations=0).searched > 0


def test_more_passages_are_read_where_more_are_asked_for(talkative: tuple[Any, Any]) -> None:
    read = [
        answer(LONG, QUESTION, model=talkative, max_new_tokens=1, citations=0, passages=passages, reading=reading)
        for passages, reading in ((1, 200), (2, 200), (100, 200))
    ]
    sizes = [sum(window.end - window.start for window in result.windows) for result in read]
    assert sizes == sorted(sizes)
    assert len(set(sizes)) == 3
    tokens = sum(len(text_tokens(talkative[1], LONG[str(w.source)][w.start : w.end])[0]) for w in read[2].windows)
    assert tokens <= 200


def test_a_context_without_room_for_any_text_is_refused_with_the_numbers(pair: tuple[Any, Any]) -> None:
    with pytest.raises(
        InputError, match=rf"up to {CONTEXT - 80} tokens .* context is {CONTEXT} tokens.* take \d+\. Ask"
    ):
        answer(DOCUMENT * 10, QUESTION, model=pair, max_new_tokens=CONTEXT - 80)


LONG = {"sea.txt": "The tide was low and nobody came. " * 80, "fares.md": DOCUMENT.replace("\n", "\r\n") * 2}


def test_long_documents_are_searched_and_cited_by_name_and_place(talkative: tuple[Any, Any]) -> None:
    result = answer(LONG, QUESTION, model=talkative, max_new_tokens=8, citations=4)
    assert result.searched > len(result.windows)
    # The passage that has the question's words is in another document than most passages are.
    assert any(
        "Fares are paid in eggs." in LONG[str(window.source)][window.start : window.end] for window in result.windows
    )
    assert result.citations
    for citation in result.citations:
        text = LONG[str(citation.source)]
        assert text[citation.start : citation.end] == citation.text
        assert citation.text in text.split("\r\n")[citation.line - 1]
        assert any(
            window.source == citation.source and window.start <= citation.start and citation.end <= window.end
            for window in result.windows
        )
    for window in result.windows:
        lines = LONG[str(window.source)].split("\r\n")
        whole = "\r\n".join(lines[window.line - 1 : window.last_line])
        assert LONG[str(window.source)][window.start : window.end] in whole
    assert result.support.document_drop != 0


def test_texts_by_name_and_documents_are_the_same_and_read_together_where_they_fit(talkative: tuple[Any, Any]) -> None:
    texts = {"a": "The ferry leaves at six.", "b": "Fares are paid in eggs."}
    first = answer(texts, QUESTION, model=talkative, max_new_tokens=4)
    second = answer([Document(*pair) for pair in texts.items()], QUESTION, model=talkative, max_new_tokens=4)
    assert (first.text, first.citations, first.windows) == (second.text, second.citations, second.windows)
    assert first.windows == (Window("a", 0, 24, 1, 1), Window("b", 0, 23, 1, 1))
    assert {(c.source, c.text, c.start) for c in first.citations} == {
        ("a", "The ferry leaves at six.", 0),
        ("b", "Fares are paid in eggs.", 0),
    }


def test_the_pieces_that_are_heard_make_up_the_answer(talkative: tuple[Any, Any]) -> None:
    """The tiny model says random bytes, in part no characters: what is told is never taken back."""
    pieces: list[str] = []
    result = answer(DOCUMENT, QUESTION, model=talkative, max_new_tokens=40, citations=0, wrote=pieces.append)
    assert "".join(pieces) == result.text
    assert len(pieces) > 5
    assert all(pieces)


def test_a_model_with_an_encoder_is_refused_for_what_it_is(pair: tuple[Any, Any]) -> None:
    class Config:
        is_encoder_decoder = True

    class Translator:
        config = Config()
        name_or_path = "marian-en-pt"

    class Slow:  # what its tokenizer lacks is not to blame
        is_fast = False

    with pytest.raises(ModelError, match=r"marian-en-pt was asked to answer; it is an encoder–decoder.* smollm2-135m"):
        answer(DOCUMENT, QUESTION, model=(Translator(), Slow()))


@pytest.mark.parametrize("empty", ["", " \n\t"])
def test_empty_documents_and_questions_are_refused_before_a_model_is_loaded(empty: str) -> None:
    with pytest.raises(InputError, match="it is empty"):
        answer(empty, QUESTION, model="no such model")
    with pytest.raises(InputError, match="the question is empty"):
        answer(DOCUMENT, empty, model="no such model")
    with pytest.raises(InputError, match="'b' was given as the document; it is empty"):
        answer({"a": DOCUMENT, "b": empty}, QUESTION, model="no such model")
    with pytest.raises(InputError, match="no document was given"):
        answer([], QUESTION, model="no such model")


def test_options_that_make_no_sense_are_refused(pair: tuple[Any, Any]) -> None:
    with pytest.raises(SpecError, match="max_new_tokens is 0"):
        answer(DOCUMENT, QUESTION, model=pair, max_new_tokens=0)
    with pytest.raises(SpecError, match="citations is -1"):
        answer(DOCUMENT, QUESTION, model=pair, citations=-1)
    with pytest.raises(SpecError, match="shortlist is 0"):
        answer(DOCUMENT, QUESTION, model=pair, shortlist=0)
    with pytest.raises(SpecError, match="reading is 0"):
        answer(DOCUMENT, QUESTION, model=pair, reading=0)
    with pytest.raises(SpecError, match="passages is 0"):
        answer(DOCUMENT, QUESTION, model=pair, passages=0)


def test_an_unknown_model_is_named_with_the_known_ones() -> None:
    with pytest.raises(ModelError, match=r"'nosuch' was asked for.*Known names: smollm2-135m"):
        answer(DOCUMENT, QUESTION, model="nosuch")


def test_the_meter_sees_memory_that_was_held_and_given_back() -> None:
    with Meter() as small:
        pass
    with Meter() as large:
        held = bytearray(300 * 2**20)
        held[:: 2**12] = b"x" * len(held[:: 2**12])
        del held
    assert large.peak_bytes - small.peak_bytes > 250 * 2**20
    assert 0 <= small.seconds <= large.seconds
