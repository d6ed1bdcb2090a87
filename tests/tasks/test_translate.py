"""Translations keep all that is not language, and say where each sentence and word came from."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

import marian_files
from sightline import models
from sightline.errors import InputError, ModelError, SpecError, Unsupported
from sightline.sentences import Span, words
from sightline.tasks.translation import Passage, Translation, translate, translating
from sightline.tasks.translation._laid import laid
from sightline.tasks.translation._segments import segments
from sightline.tasks.translation._words import between_words

pytest.importorskip("sentencepiece", reason="the package sentencepiece is not installed")

TEXT = (
    "# The red car\r\n\r\nThe red car stopped in front of the old house. She crossed the\r\nriver twice, "
    "and half of the village saw it.\r\n\r\n- nobody knows why\r\n- 12\r\n\r\n```\r\nthe = code\r\n```\r\n\r\n\r\n"
    "| car | house |\r\n|---|---|\r\n"
)


@pytest.fixture(scope="module")
def marian(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Any]:
    """A tiny Marian model with random weights, and its tokenizer."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        return models.load(str(marian_files.write_folder(tmp_path_factory.mktemp("marian"))))


def check_places(text: str, result: Translation) -> None:
    """Every span holds its text, and between the sentences lies what lies between their sources."""
    at = read = 0
    for sentence in result.sentences:
        (source,) = sentence.sources
        assert result.text[sentence.start : sentence.end] == sentence.text
        assert text[source.start : source.end] == source.text
        assert result.text[at : sentence.start] == text[read : source.start]
        at, read = sentence.end, source.end
        for word in sentence.words:
            assert result.text[word.start : word.end] == word.text
            assert sum(s.weight for s in word.sources) <= 1 + 1e-5
            assert [s.weight for s in word.sources] == sorted((s.weight for s in word.sources), reverse=True)
            for s in word.sources:
                assert text[s.start : s.end] == s.text
                assert source.start <= s.start < s.end <= source.end
    assert result.text[at:] == text[read:]


def test_lines_marks_and_code_stay_and_every_span_is_right(marian: tuple[Any, Any]) -> None:
    result = translate(TEXT, model=marian)
    check_places(TEXT, result)
    assert [s.sources[0].text for s in result.sentences] == [
        "The red car",
        "The red car stopped in front of the old house.",
        "She crossed the\r\nriver twice, and half of the village saw it.",
        "nobody knows why",
        "car",
        "house",
    ]
    assert result.text.count("\r\n") == result.text.count("\n") == TEXT.count("\r\n")
    assert any(word.sources for sentence in result.sentences for word in sentence.words)


def test_alignment_batches_and_chunks_do_not_change_the_text(marian: tuple[Any, Any]) -> None:
    whole = translate(TEXT, model=marian)
    plain = translate(TEXT, model=marian, align=False, batch_size=1)
    assert plain.text == whole.text
    assert all(not sentence.words for sentence in plain.sentences)
    cut = TEXT.index("- nobody")
    passages = list(translating(["\r\n", TEXT[:cut], TEXT[cut:]], model=marian, batch_size=2))
    assert "".join(p.text for p in passages) == "\r\n" + whole.text
    check_places("\r\n" + TEXT, Translation.of(passages, "tiny", 0.0, 0))


def test_a_chunk_is_translated_before_the_next_is_asked_for(marian: tuple[Any, Any]) -> None:
    asked: list[int] = []

    def chunks() -> Any:
        for i in range(3):
            asked.append(i)
            yield "The red car.\n\n"

    run = translating(chunks(), model=marian, align=False)
    assert isinstance(next(run), Passage)
    assert asked == [0]


@pytest.mark.parametrize("kept", ["👍🏽", "שלום עולם", "مرحبا بالعالم", "日本語", "½"])
def test_what_the_vocabulary_lacks_stays_as_it_is(kept: str, marian: tuple[Any, Any]) -> None:
    text = f"The red car {kept} stopped.\n\n{kept}\n"
    result = translate(text, model=marian)
    check_places(text, result)
    assert result.text.count(kept) == 2
    assert [s.sources[0].text for s in result.sentences] == ["The red car", "stopped."]


def test_a_run_too_long_is_cut_and_none_of_it_is_lost(marian: tuple[Any, Any]) -> None:
    text = "the red car, " * 200
    result = translate(text, model=marian, align=False)
    assert len(result.sentences) > 1
    assert "".join(s.sources[0].text for s in result.sentences).replace(" ", "") == text.replace(" ", "")


def test_beams_are_passed_on(marian: tuple[Any, Any]) -> None:
    check_places(TEXT, translate(TEXT, model=marian, num_beams=2))


def test_progress_counts_sentences(marian: tuple[Any, Any]) -> None:
    heard: list[tuple[str, int, int | None]] = []
    translate(TEXT, model=marian, align=False, batch_size=4, progress=lambda *told: heard.append(told))
    assert heard[0] == ("translating", 0, 6)
    assert heard[-1] == ("translating", 6, 6)


def test_to_dict_is_json_with_the_promised_keys(marian: tuple[Any, Any]) -> None:
    made = json.loads(json.dumps(translate(TEXT, model=marian).to_dict()))
    assert list(made) == ["translation", "units", "model", "seconds", "peak_bytes"]
    assert list(made["units"][0]) == ["text", "start", "end", "sources", "words", "complete"]
    assert list(made["units"][0]["words"][0]) == ["text", "start", "end", "sources"]
    assert list(made["units"][0]["sources"][0]) == ["text", "start", "end", "weight"]


@pytest.mark.parametrize("empty", ["", " \r\n\t"])
def test_an_empty_text_is_refused_before_a_model_is_loaded(empty: str) -> None:
    with pytest.raises(InputError, match="the text is empty"):
        translate(empty, model="no such model")


def test_other_mistakes_are_named(marian: tuple[Any, Any], pair: tuple[Any, Any]) -> None:
    with pytest.raises(InputError, match=r"'en' to 'fr' was asked for; there is a known model for en → pt, pt → en"):
        translate("car", target="fr")
    with pytest.raises(SpecError, match="batch_size is 0"):
        translate("car", model=marian, batch_size=0)
    with pytest.raises(SpecError, match="num_beams is 0"):
        translate("car", model=marian, num_beams=0)
    with pytest.raises(InputError, match="'en' to 'fr' by marian-en-pt was asked for; it translates from 'en' to 'pt'"):
        translate("car", target="fr", model="marian-en-pt")
    with pytest.raises(Unsupported, match=r"2 beams by .* it has no encoder"):
        translate("car", model=pair, num_beams=2)


def test_a_model_that_is_not_here_says_how_to_fetch_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr("sightline.models._resolve.sources", lambda entry: [None] * len(entry.parts))
    with pytest.raises(ModelError, match="sightline models pull marian-en-pt"):
        translate("car")


def test_lines_that_were_ended_on_purpose_are_apart() -> None:
    address = "Orla Finn\n12 Harbour Road\nAnsel\n"
    assert [address[a:b] for a, b in segments(address, "en")] == ["Orla Finn", "12 Harbour Road", "Ansel"]
    wrapped = "The ferry to Ansel leaves at six from the old stone\nharbour below the church on the hill."
    assert len(segments(wrapped, "en")) == 1


def test_every_line_break_is_kept_even_without_blanks() -> None:
    assert laid("um dois três", [Span(3, 7)], "one\n  two\r\nthree") == ("um\n  dois\r\ntrês", (Span(5, 9),))
    assert laid("só", [], "on\nly\nme") == ("só\n\n", ())


def test_weights_between_words_are_sums_over_what_they_are_made_of() -> None:
    target, source = "ab cd", "xy z"
    places = [Span(0, 1), Span(1, 2), Span(3, 5), Span(5, 5)]
    read = [Span(0, 2), Span(3, 4)]
    weights = torch.tensor([[0.5, 0.25, 0.25], [0.25, 0.5, 0.25], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]])
    found = between_words(weights, (places, words(target, signs=True)), (read, words(source, signs=True)))
    torch.testing.assert_close(found, torch.tensor([[0.375, 0.375], [0.0, 1.0]]))


def test_the_known_model_aligns_words() -> None:
    if not next(m for m in models.known() if m.name == "marian-en-pt").folder:
        pytest.skip("the model marian-en-pt is not on this machine (sightline models pull marian-en-pt)")
    result = translate("The red car stopped in front of the old house.")
    assert result.text == "O carro vermelho parou na frente da antiga casa."
    found = {word.text: word.sources[0].text for word in result.sentences[0].words}
    assert found["carro"] == "car"
    assert found["vermelho"] == "red"
    assert found["casa"] == "house"
