from __future__ import annotations

import io
import json
from pathlib import Path

import pytest

from sightline.cli._run import run
from tiny_model import DOCUMENT

Captured = pytest.CaptureFixture[str]


def test_json_has_sentences_with_citations_and_support(document: str, model: str, capfd: Captured) -> None:
    assert run(["summarize", document, "--model", model, "--max-new-tokens", "6", "--json"]) == 0
    out, err = capfd.readouterr()
    result = json.loads(out)
    assert err == ""
    assert result["units"]
    for sentence in result["units"]:
        assert sentence["supported"] in (True, False)
        for citation in sentence["citations"]:
            assert DOCUMENT[citation["start"] : citation["end"]] == citation["text"]


def test_people_see_which_sentences_are_not_supported(
    document: str, model: str, capfd: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = ["summarize", document, "--model", model, "--max-new-tokens", "6"]
    for drop, flagged in ((-1e9, True), (1e9, False)):
        monkeypatch.setattr("sightline.tasks.summary._abstract.document_drop", lambda *_, log_prob, drop=drop: drop)
        assert run(arguments) == 0
        assert ("not supported by the document: hiding all of it costs" in capfd.readouterr().out) is flagged


def test_excerpts_are_printed_with_their_place(model: str, capfd: Captured, monkeypatch: pytest.MonkeyPatch) -> None:
    def give() -> None:
        monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(DOCUMENT.encode())))

    give()
    assert run(["summarize", "-", "--model", model, "--extractive", "2", "--json"]) == 0
    excerpts = json.loads(capfd.readouterr().out)["excerpts"]
    assert len(excerpts) == 2
    give()
    assert run(["summarize", "-", "--model", model, "--extractive", "2"]) == 0
    out = capfd.readouterr().out
    for e in excerpts:
        place = f"score {e['score']:.2f} · line {e['line']}, characters {e['start']}–{e['end']}"
        assert f"{e['text']}\n    {place}\n" in out


def test_a_result_file_holds_what_would_be_printed(document: str, model: str, tmp_path: Path, capfd: Captured) -> None:
    target = tmp_path / "out.json"
    arguments = ["summarize", document, "--model", model, "--extractive", "1", "--json", "-o", str(target)]
    assert run(arguments) == 0
    assert capfd.readouterr() == ("", "")
    assert len(json.loads(target.read_text())["excerpts"]) == 1


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (["."], "it is a folder"),
        (["empty.txt"], "it is empty"),
        (["binary.bin"], "it is a binary file"),
        (["ferry.md", "--extractive", "0"], "0 is not in the range x>=1"),
        (["ferry.md", "--model", "nosuch"], "Known names: smollm2-135m"),
        (["ferry.md", "-o", "."], "that is a folder"),
        ([], "Missing argument 'DOCUMENT'"),
    ],
)
def test_bad_input_is_one_message_and_exit_code_2(
    arguments: list[str], why: str, document: str, monkeypatch: pytest.MonkeyPatch, capfd: Captured
) -> None:
    monkeypatch.chdir(Path(document).parent)
    Path("empty.txt").touch()
    Path("binary.bin").write_bytes(b"\x7fELF\x00\x01")
    assert run(["summarize", *arguments]) == 2
    out, err = capfd.readouterr()
    assert out == ""
    assert why in err
    assert "Traceback" not in err
