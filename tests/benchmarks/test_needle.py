"""The needle is where the benchmark says, once, between two sentences of the text."""

from __future__ import annotations

from benchmarks.focus.needle import NEEDLES, planted

TEXT = " ".join(f"Sentence number {i} says nothing of interest. " for i in range(100)).strip()


def test_a_needle_lies_in_its_place() -> None:
    starts: list[int] = []
    for place, (needle, _, word) in enumerate(NEEDLES):
        document, start, end = planted(TEXT, needle, place)
        assert document[start:end] == needle
        assert document.count(needle) == 1
        assert document[:start].rstrip() + document[end:] == TEXT
        assert document[:start].rstrip().endswith("of interest.")
        assert word.strip() in needle.lower()
        starts.append(start)
    assert starts == sorted(set(starts))
    assert starts[0] < len(TEXT) / 10
    assert starts[-1] > len(TEXT) * 9 / 10


def test_no_question_gives_its_answer_away() -> None:
    for _, question, word in NEEDLES:
        assert word not in f"{question} ".lower()
