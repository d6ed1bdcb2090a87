"""The questions of the benchmark: what they ask, where the answer stands, and that a seed makes them again."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest

from sightline.bench.focus.squad import LONG, SHORT, long_items, passages, short_items
from sightline.bench.focus.templates import LENGTHS, made
from sightline.errors import InputError
from sightline.sentences import sentences

TEMPLATED = "ABCDF"
PASSAGES = [
    ("Bees", f"Bees number {i} live in hive {i}. They fly {i} miles. " * (2 + i % 4), f"Where do bees number {i} live?")
    for i in range(20)
]


@pytest.fixture
def squad(tmp_path: Path) -> Path:
    path = tmp_path / "squad.jsonl.gz"
    with gzip.open(path, "wt") as file:
        for title, passage, question in PASSAGES:
            query = f"Title: {title}\nBackground: {passage.strip()}\nQuestion: {question}\nAnswer:"
            file.write(json.dumps({"doc": {"query": query}}) + "\n")
    return path


@pytest.mark.parametrize("tier", TEMPLATED)
def test_a_seed_makes_the_same_items_and_another_seed_others(tier: str) -> None:
    some = made(tier, 4, 0)
    assert made(tier, 8, 0)[:4] == some
    assert made(tier, 4, 1) != some
    assert len({item.name for item in [*some, *made(tier, 4, 1)]}) == 8


@pytest.mark.parametrize("tier", TEMPLATED)
def test_sentences_of_an_item_are_the_sentences_of_its_document(tier: str) -> None:
    for item in made(tier, 4, 3):
        document = item.document
        assert [document[span.start : span.end] for span in sentences(document)] == list(item.sentences)
        assert len(item.sentences) == 12 or tier == "D"


def test_gold_sentences_are_those_that_answer() -> None:
    for tier in "ACD":
        for item in made(tier, 10, 0):
            thing = item.question.removeprefix("Where was the ").removesuffix(" found?")
            assert [f"The {thing} was found in" in text for text in item.sentences].index(True) == item.gold[0]
            assert len(item.gold) == 1
    for item in made("B", 10, 0):
        owned, lives = sorted((item.sentences[i] for i in item.gold), key=lambda text: " lives in " in text)
        thing = item.question.removeprefix("In which town does the owner of the ").removesuffix(" live?")
        assert owned.startswith(f"The {thing} belongs to ")
        assert lives.startswith(owned.removeprefix(f"The {thing} belongs to ").removesuffix(".") + " lives in ")
    for item in made("F", 10, 0):
        thing = item.question.removeprefix("Where was the ").removesuffix(" found?")
        assert item.gold == ()
        assert thing not in item.document


def test_decoys_repeat_the_answer_and_contradict_it() -> None:
    for item in made("C", 10, 0):
        gold = item.sentences[item.gold[0]]
        place = gold.partition(" in ")[2].removesuffix(".")
        assert sum(place.lower() in text.lower() for text in item.sentences) == 3
        assert any("had been lost in" in text for text in item.sentences)


def test_filler_grows_as_promised() -> None:
    for item, tokens in zip(made("D", len(LENGTHS), 0), LENGTHS, strict=True):
        assert 0.7 < len(item.document) / 4 / tokens < 1.4  # about four characters a token


def test_squad_passages_stand_alone_or_among_others_of_their_article(squad: Path) -> None:
    found = passages(squad)
    assert [(p.title, " ".join(p.sentences), p.question) for p in found] == [(t, d.strip(), q) for t, d, q in PASSAGES]
    short = short_items(found, 0)
    assert len(short) == sum(len(p.sentences) in SHORT for p in found)
    documents = {" ".join(p.sentences) for p in found}
    assert all(item.document in documents for item in short)
    long = long_items(found, 0)
    assert {item.question for item in long} == {item.question for item in short}
    for item in long:
        passage = next(p for p in found if p.question == item.question)
        assert " ".join(passage.sentences) in item.document
        assert len(item.sentences) in LONG
    assert long_items(found, 0) == long
    assert long_items(found, 1) != long


@pytest.mark.parametrize("content", ["not json", "[1]", '{"doc": {"query": "Question: who?"}}', ""])
def test_a_file_of_another_kind_is_refused_in_words(tmp_path: Path, content: str) -> None:
    path = tmp_path / "other.jsonl"
    path.write_text(content)
    with pytest.raises(InputError, match=r"SQuAD's questions were to be read from .*other\.jsonl"):
        passages(path)
    with pytest.raises(InputError, match="No such file"):
        passages(tmp_path / "missing.jsonl")
