from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

import marian_files
from sightline.cli._run import run
from tiny_model import DOCUMENT

Captured = pytest.CaptureFixture[str]


def data(page: Path) -> dict[str, object]:
    found = re.search(r'<script type="application/json" id="report">(.*?)</script>', page.read_text("utf-8"), re.S)
    assert found is not None
    return json.loads(found[1])


def test_a_trace_becomes_a_page(document: str, model: str, tmp_path: Path, capfd: Captured) -> None:
    trace, page = str(tmp_path / "run.safetensors"), tmp_path / "run.html"
    assert run(["record", model, document, "-o", trace]) == 0
    assert run(["report", trace, "--html", str(page), "--title", "The <b>ferry</b>"]) == 0
    out, err = capfd.readouterr()
    assert f"{page}: 0.1 MB. Open it in a browser.\n" in out
    assert err == ""
    assert data(page)["title"] == "The <b>ferry</b>"
    assert data(page)["kind"] == "trace"


def test_a_file_that_is_no_trace_is_bad_input_and_leaves_no_page(
    document: str, tmp_path: Path, capfd: Captured
) -> None:
    page = tmp_path / "run.html"
    assert run(["report", document, "-o", str(page)]) == 2
    assert not page.exists()
    assert "sightline: " in capfd.readouterr().err
    assert run(["report", document, "-o", str(tmp_path / "no" / "run.html")]) == 2
    assert "does not exist" in capfd.readouterr().err


def test_an_answer_is_written_as_a_page_and_printed_as_ever(
    document: str, model: str, tmp_path: Path, capfd: Captured
) -> None:
    page = tmp_path / "answer.html"
    arguments = ["answer", document, "Is it <wise>?", "--model", model, "--max-new-tokens", "4", "--json"]
    assert run([*arguments, "--html", str(page)]) == 0
    result = json.loads(capfd.readouterr().out)
    shown = data(page)
    assert shown["title"] == "Is it <wise>?"
    assert shown["produced"]["text"] == result["answer"]  # type: ignore[index]
    assert shown["documents"][0]["name"] == document  # type: ignore[index]
    (unit,) = shown["units"]  # type: ignore[misc]
    assert [(r["start"], r["drop"]) for r in unit["references"]] == [
        (c["start"], c["drop"]) for c in result["citations"]
    ]
    assert shown["documents"][0]["text"] == DOCUMENT  # type: ignore[index]


def test_a_translation_is_written_as_a_page_and_printed_as_ever(tmp_path: Path, capfd: Captured) -> None:
    pytest.importorskip("sentencepiece", reason="the package sentencepiece is not installed")
    folder = str(marian_files.write_folder(tmp_path / "marian"))
    text, page = tmp_path / "text.md", tmp_path / "page.html"
    text.write_bytes("The red car stopped.\r\n\r\nShe crossed the river 👍.\r\n".encode())
    assert run(["translate", str(text), "--model", folder]) == 0
    printed = capfd.readouterr().out
    assert run(["translate", str(text), "--model", folder, "--html", str(page)]) == 0
    assert capfd.readouterr().out == printed
    assert data(page)["produced"]["text"] == printed  # type: ignore[index]
    assert {unit["level"] for unit in data(page)["units"]} == {"sentence", "word"}  # type: ignore[attr-defined]
    target = tmp_path / "out.md"
    assert run(["translate", str(text), "--model", folder, "--html", str(page), "-o", str(target)]) == 0
    assert target.read_bytes().decode() == printed


def test_an_answer_from_several_documents_names_each(
    document: str, model: str, tmp_path: Path, capfd: Captured
) -> None:
    other, page = tmp_path / "goats.md", tmp_path / "answer.html"
    other.write_text("# Goats\n\nGoats travel <free>. Nobody asks them anything.\n")
    arguments = ["answer", document, str(other), "Who travels free?", "--model", model, "--max-new-tokens", "4"]
    assert run([*arguments, "--citations", "20", "--json", "--html", str(page)]) == 0
    result, shown = json.loads(capfd.readouterr().out), data(page)
    documents: list[dict[str, str]] = shown["documents"]  # type: ignore[assignment]
    assert {d["name"]: d["text"] for d in documents} == {document: DOCUMENT, str(other): other.read_text()}
    assert {citation["source"] for citation in result["citations"]} == {document, str(other)}
    (unit,) = shown["units"]  # type: ignore[misc]
    assert cited(unit, documents) == [(c["source"], c["text"], c["drop"]) for c in result["citations"]]


def test_an_answer_from_a_document_that_was_searched_shows_its_places_in_all_of_it(
    model: str, tmp_path: Path, capfd: Captured
) -> None:
    long, page = tmp_path / "long.md", tmp_path / "answer.html"
    parts = [f"## Chapter {i}\n\nOn day {i} nothing of note was written down by anybody here.\n\n" for i in range(60)]
    long.write_text("".join([*parts[:40], DOCUMENT, "\n", *parts[40:]]))
    arguments = ["answer", str(long), "How is the fare paid?", "--model", model, "--max-new-tokens", "4"]
    assert run([*arguments, "--reading", "260", "--json", "--html", str(page)]) == 0
    result, shown = json.loads(capfd.readouterr().out), data(page)
    assert result["searched"] > len(result["windows"])  # it was longer than what is read at once
    documents: list[dict[str, str]] = shown["documents"]  # type: ignore[assignment]
    assert [(d["name"], d["text"]) for d in documents] == [(str(long), long.read_text())]
    (unit,) = shown["units"]  # type: ignore[misc]
    assert result["citations"]
    assert cited(unit, documents) == [(c["source"], c["text"], c["drop"]) for c in result["citations"]]


def cited(unit: dict[str, Any], documents: list[dict[str, str]]) -> list[tuple[str, str, float]]:
    """What a unit of a page rests on: each document's name, the text that is marked in it, and its drop."""
    found = []
    for reference in unit["references"]:
        of = documents[reference["document"]]
        found.append((of["name"], of["text"][reference["start"] : reference["end"]], reference["drop"]))
    return found


def test_a_summary_is_written_as_a_page_and_printed_as_ever(
    document: str, model: str, tmp_path: Path, capfd: Captured
) -> None:
    page = tmp_path / "summary.html"
    arguments = ["summarize", document, "--model", model, "--max-new-tokens", "6", "--json"]
    assert run([*arguments, "--html", str(page)]) == 0
    result, shown = json.loads(capfd.readouterr().out), data(page)
    documents: list[dict[str, str]] = shown["documents"]  # type: ignore[assignment]
    assert shown["kind"] == "summary"
    assert documents[0]["text"] == DOCUMENT
    assert result["units"]
    assert [unit["supported"] for unit in shown["units"]] == [unit["supported"] for unit in result["units"]]  # type: ignore[attr-defined]
    for unit, said in zip(shown["units"], result["units"], strict=True):  # type: ignore[arg-type]
        assert [(text, drop) for _, text, drop in cited(unit, documents)] == [
            (c["text"], c["drop"]) for c in said["citations"]
        ]


def test_excerpts_are_marked_in_their_document(document: str, model: str, tmp_path: Path, capfd: Captured) -> None:
    page = tmp_path / "excerpts.html"
    arguments = ["summarize", document, "--model", model, "--extractive", "2", "--json"]
    assert run([*arguments, "--html", str(page)]) == 0
    excerpts, shown = json.loads(capfd.readouterr().out)["excerpts"], data(page)
    references = [unit["references"][0] for unit in shown["units"]]  # type: ignore[attr-defined]
    assert [(r["start"], r["end"], r["score"]) for r in references] == [
        (e["start"], e["end"], e["score"]) for e in excerpts
    ]


def test_a_generation_is_written_as_a_page_and_printed_as_ever(model: str, tmp_path: Path, capfd: Captured) -> None:
    page, prompt = tmp_path / "generation.html", "The <ferry> leaves at"
    arguments = ["generate", prompt, "--model", model, "--max-new-tokens", "4"]
    assert run([*arguments, "--json"]) == 0
    printed = json.loads(capfd.readouterr().out)
    assert run([*arguments, "--json", "--html", str(page)]) == 0
    result, shown = json.loads(capfd.readouterr().out), data(page)
    said = [[(unit["text"], unit["log_prob"]) for unit in found["units"]] for found in (printed, result)]
    assert said[0] == said[1]
    assert shown["kind"] == "generation"
    assert shown["produced"]["text"] == result["text"]  # type: ignore[index]
    assert shown["documents"][0]["text"] == prompt  # type: ignore[index]
    assert len(shown["units"]) == len(result["units"]) > 0  # type: ignore[arg-type]
    for unit, made in zip(shown["units"], result["units"], strict=True):  # type: ignore[arg-type]
        shares = sorted((r["start"], r["end"], r["share"]) for r in unit["references"])
        assert shares == sorted((c["start"], c["end"], c["share"]) for c in made["citations"]) != []
    assert run([*arguments, "--html", str(page), "-o", str(page)]) == 2
    assert "Name two files" in capfd.readouterr().err
