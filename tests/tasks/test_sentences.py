from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sightline.sentences import Span, paragraphs, sentences, words


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


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("One. Two?\nThree!\n\nFour.", ["One. Two?\nThree!", "Four."]),
        ("# A heading\nIts text. So.\n- one\n- two\n  lines", ["A heading", "Its text. So.", "one", "two\n  lines"]),
        ("| a | b |\n|---|---|\n| c | d |\n```\nx = 1\n```", ["| a | b |", "| c | d |", "x = 1"]),
        ("\r\n Only one. \r\n", ["Only one."]),
        (" \n", []),
    ],
)  # fmt: skip
def test_paragraphs_are_what_sentences_do_not_cross(text: str, expected: list[str]) -> None:
    assert [text[s.start : s.end] for s in paragraphs(text)] == expected


@given(st.text(st.sampled_from("aB.?! \n\r\t\"'é😀-#|>`1)*"), max_size=60))
def test_every_sentence_lies_in_one_paragraph_and_every_paragraph_holds_one(text: str) -> None:
    blocks, parts = paragraphs(text), sentences(text)
    holders = [[b for b in blocks if b.start <= s.start and s.end <= b.end] for s in parts]
    assert all(len(holder) == 1 for holder in holders)
    assert {holder[0] for holder in holders} == set(blocks)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Don’t stop, it's 3.15!", ["Don’t", "stop", "it's", "3.15"]),
        ("well-being -- (1,000 eggs) a.b x_1", ["well-being", "1,000", "eggs", "a", "b", "x_1"]),
        ("dogs' 'quoted' end.", ["dogs", "quoted", "end"]),
        ("हिन्दी में cafe\u0301 Straße", ["हिन्दी", "में", "cafe\u0301", "Straße"]),
        ("漢字かな カタカナ 한국어 2026年", ["漢", "字", "か", "な", "カタカナ", "한국어", "2026", "年"]),
        ("😀 … —", []),
        ("", []),
    ],
)
def test_words_are_those_of_any_script(text: str, expected: list[str]) -> None:
    assert [text[s.start : s.end] for s in words(text)] == expected


@given(st.text(max_size=60))
def test_words_hold_every_letter_and_digit_once_and_in_order(text: str) -> None:
    found: list[Span] = words(text)
    assert all(a.end <= b.start for a, b in pairwise(found))
    assert all(span.start < span.end for span in found)
    covered = {at for span in found for at in range(span.start, span.end)}
    assert all(at in covered for at, character in enumerate(text) if character.isalnum() and character.isalpha())
