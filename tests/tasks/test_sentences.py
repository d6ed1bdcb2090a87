from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sightline.sentences import sentences


def texts(text: str) -> list[str]:
    return [text[span.start : span.end] for span in sentences(text)]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("One. Two? Three!", ["One.", "Two?", "Three!"]),
        ("Dr. Vane came at 3.15 p.m. on 4 May, i.e. late. She left.", None),
        ('"It is done," she said. "Go!" He went.', ['"It is done," she said.', '"Go!"', "He went."]),
        ("A line that\nruns on. And\nanother.", ["A line that\nruns on.", "And\nanother."]),
        ("A line\r\nthat runs on.\r\n\r\nAnother.", ["A line\r\nthat runs on.", "Another."]),
        ("# A heading\nIts text follows. At once.", ["A heading", "Its text follows.", "At once."]),
        ("A heading\n=====\nIts text.", ["A heading", "Its text."]),
        ("- eggs vs. fish\n- two. Sentences\n  here", ["eggs vs. fish", "two.", "Sentences\n  here"]),
        ("1. first\n2) second", ["first", "second"]),
        ("> quoted. Twice\n> over", ["quoted.", "Twice", "over"]),
        ("| a. b | c |\n|---|:-:|\n| d | e. f |", ["| a. b | c |", "| d | e. f |"]),
        ("Before\n```py\nx = 1. + y\n\n---\n```\nAfter", ["Before", "x = 1. + y", "---", "After"]),
        ("Above.\n\n---\n\nBelow.", ["Above.", "Below."]),
        ("Él llegó — é😀. “Sí.” Next 漢字。End", None),
        ("x", ["x"]),
        ("", []),
        (" \n\t\r\n ", []),
    ],
)
def test_a_text_is_cut_where_a_reader_would_cut_it(text: str, expected: list[str] | None) -> None:
    if expected is None:
        expected = {
            "Dr.": ["Dr. Vane came at 3.15 p.m. on 4 May, i.e. late.", "She left."],
            "Él ": ["Él llegó — é😀.", "“Sí.”", "Next 漢字。", "End"],
        }[text[:3]]
    assert texts(text) == expected


@given(st.text(st.sampled_from("aB.?! \n\r\t\"'é😀-#|>`1)*"), max_size=60))
def test_spans_are_ordered_and_never_empty_or_overlapping(text: str) -> None:
    at = 0
    for start, end in sentences(text):
        assert at <= start < end <= len(text)
        assert text[start:end] == text[start:end].strip()
        at = end


@given(st.text(st.sampled_from("aB.?! \n\r\t\"'é😀漢。"), max_size=60))
def test_every_character_of_plain_prose_is_in_a_sentence(text: str) -> None:
    covered = "".join(texts(text))
    assert "".join(covered.split()) == "".join(text.split())
