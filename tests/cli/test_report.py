from __future__ import annotations

import json
import re
from pathlib import Path

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
    assert run(["report", trace, "-o", str(page), "--title", "The <b>ferry</b>"]) == 0
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
