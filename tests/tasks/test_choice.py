"""What is read of long documents: passages, the search by words, the choice by attention."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from sightline.sentences import Span, sentences
from sightline.tasks._prompt import Prompt
from sightline.tasks.answering._attended import attended
from sightline.tasks.answering._passages import Reading, cut, whole
from sightline.tasks.answering._search import bm25, ranked, terms
from sightline.tasks.documents import Document
from tiny_model import DOCUMENT, tiny_tokenizer

TOKENIZER = tiny_tokenizer()


@given(
    st.lists(st.text(alphabet="ab .!\n\r漢é😀ش", min_size=1).filter(str.strip), min_size=1, max_size=3),
    st.integers(2, 40),
    st.data(),
)
def test_what_is_put_together_of_passages_leads_back_to_their_documents(
    texts: list[str], room: int, data: st.DataObject
) -> None:
    documents = [Document(str(at), text) for at, text in enumerate(texts)]
    passages = cut(documents, TOKENIZER, room, room // 4)
    # Every sentence is in a passage.
    for number, document in enumerate(documents):
        held = {at for p in passages if p.document == number for span in p.sentences for at in range(*span)}
        assert held >= {at for span in sentences(document.text) for at in range(*span) if document.text[at].strip()}
    chosen = data.draw(st.lists(st.sampled_from(passages), min_size=1)) if passages else []
    reading = Reading.of(documents, chosen)
    for span in reading.sentences:
        number, place = reading.origin(span)
        assert documents[number].text[place.start : place.end] == reading.text[span.start : span.end] != ""
    assert {(n, s) for n, s in map(reading.origin, reading.sentences)} == {
        (p.document, span) for p in chosen for span in p.sentences
    }
    assert list(reading.sentences) == sorted(reading.sentences)
    for before, after in zip(reading.stretches, reading.stretches[1:], strict=False):
        assert before[0] < after[0] or before[1].end < after[1].start


def test_one_whole_document_is_read_as_it_is() -> None:
    reading = Reading.of([Document(None, DOCUMENT)], whole([Document(None, DOCUMENT)], TOKENIZER))
    assert reading.text == DOCUMENT
    assert list(reading.sentences) == sentences(DOCUMENT)


def test_bm25_is_its_formula() -> None:
    texts = [["a", "b", "a"], ["b"], ["c", "c", "d", "e"], ["a", "e"]]
    mean = sum(map(len, texts)) / len(texts)

    def score(text: list[str], word: str) -> float:
        holding = sum(word in other for other in texts)
        idf = math.log(1 + (len(texts) - holding + 0.5) / (holding + 0.5))
        f = text.count(word)
        return idf * f / (f + 1.5 * (1 - 0.75 + 0.75 * len(text) / mean))

    expected = [score(text, "a") + score(text, "e") for text in texts]
    assert bm25(texts, ["a", "e", "unknown"]) == pytest.approx(expected, rel=1e-5)
    assert bm25(texts, ["unknown"]) == [0.0] * 4
    assert bm25([[], []], ["a"]) == [0.0] * 2


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("The Admiral's STRASSE", ["the", "admiral", "s", "strasse"]),
        ("straße ﬁne Ⅳ", ["strasse", "fine", "iv"]),
        ("猫が魚", ["猫", "が", "魚"]),
        ("well-being l’été", ["well", "being", "l", "été"]),
        ("1,000 — 3.15!", ["1,000", "3.15"]),
    ],
)
def test_words_are_compared_without_case_in_any_script(text: str, words: list[str]) -> None:
    assert terms(text) == words


def test_the_passage_with_the_rare_words_comes_first() -> None:
    passages = [["Nobody came.", "It rained."], ["The fare was paid in eggs.", "It rained."], ["The fare!"]]
    assert ranked(passages, "How was the FARE paid?")[0] == 1
    assert ranked([["犬が走る。"], ["猫が魚を食べた。"]], "猫は何を食べたか")[0] == 1
    assert ranked(passages, "Zebra?") == [0, 1, 2]


def test_attention_of_the_question_is_that_of_the_dense_matrices(pair: tuple[Any, Any]) -> None:
    model, tokenizer = pair
    prompt = Prompt(DOCUMENT, "How is the fare paid?", tokenizer)
    spans = sentences(DOCUMENT)
    found = attended(model, prompt, spans)
    model.set_attn_implementation("eager")
    with torch.no_grad():
        p = torch.cat(model(torch.tensor([list(prompt.tokens)]), output_attentions=True).attentions, 1)[0].double()
    last = max(at for at, place in enumerate(prompt.places) if place is not None)
    for span, score in zip(spans, found, strict=True):
        keys = [
            at for at, place in enumerate(prompt.places) if place is not None and span.start < place.end <= span.end
        ]
        mass = p.sum(0)[:, keys].sum(-1)
        expected = mass[prompt.asked :].mean() - mass[last + 1 : prompt.asked].mean()
        assert score == pytest.approx(float(expected), abs=1e-4)
        # The order's rows matter: without them it is another number.
        assert abs(score - float(mass[prompt.asked :].mean())) > 1e-2


def test_the_question_begins_where_the_prompt_says(tokenizer: Any) -> None:
    for document in (DOCUMENT, "x", "漢字 😀"):
        prompt = Prompt(document, "Who paid?", tokenizer)
        assert tokenizer.decode(prompt.tokens[prompt.asked :]).strip().startswith("Who paid?")
        assert Span(0, 0) not in prompt.places
