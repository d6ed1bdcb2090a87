"""What people wrote is compared with what is picked: the measures, the ways, and the command from file to figures."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from benchmarks import summary
from tiny_model import DOCUMENT, save_tiny


def test_the_shares_of_words_pairs_and_subsequences() -> None:
    assert summary.rouge("the cat sat", "the cat sat") == (1.0, 1.0, 1.0)
    assert summary.rouge("a b", "c d") == (0.0, 0.0, 0.0)
    # 3 of 4 and 4 words; the pairs (the, cat) of 3 and 3; the subsequence "the cat mat".
    assert summary.rouge("The cat, a mat!", "the cat mat ran") == pytest.approx((6 / 8, 2 / 6, 6 / 8))


def test_the_best_sentences_are_taken_in_the_order_of_the_text_and_cut() -> None:
    sentences = ["One two three.", "Four five.", "Six seven eight."]
    assert summary.picked(sentences, [1.0, 3.0, 2.0], 4) == "Four five. Six seven"
    assert summary.picked(sentences, [0.0, 0.0, 0.0], 100) == " ".join(sentences)


def test_sentences_that_share_words_with_many_are_central() -> None:
    sentences = ["Goats travel free by ferry.", "The ferry takes goats.", "Eggs pay.", "By ferry travel goats free."]
    ranks = summary.shared_words(sentences, [])
    assert min(ranks) == ranks[2]
    assert sum(ranks) == pytest.approx(1)


def test_what_a_paper_shares_with_its_abstract_is_left_out() -> None:
    paragraphs = [["We study goats on ferries and eggs."], ["Goats are animals of the mountains."]]
    doc = {
        "abstract": "We study goats on ferries.",
        "full_text": {"section_name": ["Abstract", "Goats"], "paragraphs": paragraphs},
    }
    assert summary.paper(doc) == ("# Goats\n\nGoats are animals of the mountains.", doc["abstract"])


def test_an_interval_holds_its_mean_and_is_a_point_for_equal_values() -> None:
    mean, low, high = summary.interval([0.1, 0.2, 0.4, 0.9])
    assert mean == pytest.approx(0.4)
    assert low < mean < high
    assert summary.interval([0.5] * 4) == pytest.approx((0.5, 0.5, 0.5))


def test_every_way_is_measured_on_every_document(tmp_path: Path) -> None:
    file, target, model = tmp_path / "documents.jsonl", tmp_path / "out.json", save_tiny(tmp_path / "tiny")
    records = [{"text": DOCUMENT, "summary": "A ferry."}, {"text": DOCUMENT * 2, "summary": "Goats and eggs travel."}]
    file.write_text("\n".join(map(json.dumps, records)))
    done = CliRunner().invoke(summary.main, [str(file), "--model", str(model), "--json", str(target)])
    assert done.exit_code == 0, done.output
    found = json.loads(target.read_text())["documents"]
    assert [set(document["rouge"]) for document in found] == [{*summary.WAYS, "random"}] * 2
    assert "2 documents" in done.output


def test_one_document_gets_no_interval(tmp_path: Path) -> None:
    file = tmp_path / "documents.jsonl"
    file.write_text(json.dumps({"text": DOCUMENT, "summary": "A ferry."}))
    done = CliRunner().invoke(summary.main, [str(file), "--model", str(save_tiny(tmp_path / "tiny"))])
    assert done.exit_code == 1
    assert "holds 1 documents" in done.output
