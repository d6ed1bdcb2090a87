"""What a report holds: every number is the result's, every place is in its text."""

from __future__ import annotations

import json

import pytest

from report.worlds import FERRY, PROMPT, SOURCE, a_generation, a_summary, a_translation, an_answer
from sightline.errors import InputError, SpecError
from sightline.evidence import Support
from sightline.report import MEASURES, Report, report


def referred(made: Report, unit: int) -> list[tuple[str, dict[str, float]]]:
    return [(made.documents[r.document].text[r.start : r.end], dict(r.values)) for r in made.units[unit].references]


def test_an_answer_rests_as_a_whole_on_its_citations() -> None:
    result = an_answer()
    made = report(result, {"ferry.md": FERRY}, title="What does it cost?")
    (unit,) = made.units
    assert made.produced.text[unit.start : unit.end] == result.text
    assert unit.supported is True
    assert referred(made, 0) == [
        (c.text, {"drop": c.drop, "direct_drop": c.direct_drop, "relevance": c.relevance}) for c in result.citations
    ]
    assert made.documents[0].name == "ferry.md"
    assert {fact.label: fact.value for fact in made.facts}["drop without the document"] == 6.5


def test_an_answer_that_names_its_documents_is_laid_on_those() -> None:
    # Citations come to name their document; until then the attribute is put there by hand.
    result = an_answer()
    for citation in result.citations:
        object.__setattr__(citation, "source", "b.md")
    made = report(result, {"a.md": "Fares are paid in eggs.", "b.md": FERRY})
    assert [r.document for r in made.units[0].references] == [1, 1]
    with pytest.raises(InputError, match=r"b\.md"):
        report(result, {"a.md": FERRY, "c.md": FERRY})


def test_an_answer_without_text_has_no_units_and_one_without_support_says_so() -> None:
    assert report(an_answer(text="", citations=()), FERRY).units == ()
    assert report(an_answer(support=Support(0.0, -9.0, 1.0, 0.5, 0.0)), FERRY).units[0].supported is False


def test_a_translation_has_units_of_sentences_and_words() -> None:
    result = a_translation()
    made = report(result, SOURCE)
    assert [unit.level for unit in made.units] == ["sentence", "word", "word", "word", "sentence", "word"]
    assert referred(made, 0) == [("The cat sleeps.", {"weight": 1.0})]
    assert referred(made, 1) == [("The", {"weight": 0.7123}), ("cat", {"weight": 0.2})]
    assert [made.produced.text[s.start : s.end] for s in made.produced.levels["sentence"]] == [
        "O gato dorme.",
        "Sonha.",
    ]


def test_a_summary_has_its_sentences_with_their_support() -> None:
    made = report(a_summary(), FERRY)
    assert [(made.produced.text[u.start : u.end], u.supported) for u in made.units] == [
        ("Fares are eggs.", True),
        ("Goats are free.", False),
    ]
    assert referred(made, 1)[0][1]["drop"] == 0.98765


def test_excerpts_rest_on_themselves() -> None:
    made = report(a_summary(excerpts=True), FERRY)
    assert referred(made, 0) == [("Fares are paid in eggs.", {"score": 3.14159})]
    assert made.measures == ("score",)


def test_a_generation_has_its_tokens_and_two_documents() -> None:
    made = report(a_generation(), PROMPT)
    assert [document.name for document in made.documents] == ["prompt", "output"]
    assert referred(made, 1) == [("hello", {"share": 0.3}), ("Hel", {"share": 0.25})]
    assert [made.produced.text[s.start : s.end] for s in made.produced.levels["token"]] == ["Hel", "lo", " goat"]


def test_documents_that_do_not_hold_what_is_cited_are_refused() -> None:
    with pytest.raises(InputError, match="does not stand"):
        report(an_answer(), "another text")
    with pytest.raises(InputError, match="does not stand"):
        report(a_generation(), "another prompt")
    with pytest.raises(InputError, match="Pass it"):
        report(an_answer())
    with pytest.raises(SpecError, match="Leave out kind"):
        report(an_answer(), FERRY, kind="cross")
    with pytest.raises(SpecError, match="a report of str"):
        report("text", FERRY)


@pytest.mark.parametrize(
    "made",
    [
        report(an_answer(), FERRY),
        report(a_translation(), SOURCE),
        report(a_summary(), FERRY),
        report(a_generation(), PROMPT),
    ],
    ids=lambda made: made.kind,
)
def test_a_report_is_plain_data(made: Report) -> None:
    data = json.loads(json.dumps(made.to_dict()))
    assert data["version"] == 1
    assert [m["name"] for m in data["measures"]] == list(made.measures)
    assert set(made.measures) <= set(MEASURES)
    for text, there in [(made.produced, data["produced"]), *zip(made.documents, data["documents"], strict=True)]:
        for level, spans in text.levels.items():
            at, edges = 0, []
            for step in there["levels"][level]:
                at += step
                edges.append(at)
            assert edges == [edge for span in spans for edge in span]
            assert edges == sorted(edges)
