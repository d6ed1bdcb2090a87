from __future__ import annotations

import io
import json
import os
import re
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest

from processes import started
from sightline.cli._run import run
from sightline.tasks import Citation
from tiny_model import DOCUMENT

QUESTION = "How is the fare paid?"

Captured = pytest.CaptureFixture[str]


def test_json_is_all_that_is_printed_and_has_the_promised_keys(document: str, model: str, capfd: Captured) -> None:
    assert run(["answer", document, QUESTION, "--model", model, "--max-new-tokens", "6", "--json"]) == 0
    out, err = capfd.readouterr()
    result = json.loads(out)
    assert list(result) == [
        "answer", "verdict", "citations", "model", "seconds", "peak_bytes", "supported", "document_drop", "refusal",
        "answerable", "stated", "contrast", "strength", "units", "windows", "searched",
    ]  # fmt: skip
    assert result["model"] == model
    assert len(result["citations"]) == 3
    for citation in result["citations"]:
        assert list(citation) == ["text", "start", "end", "line", "relevance", "drop", "direct_drop", "source"]
        assert citation["source"] == document
        assert DOCUMENT[citation["start"] : citation["end"]] == citation["text"]
    assert err == ""


def test_people_get_the_answer_then_each_citation_then_what_it_cost(document: str, model: str, capfd: Captured) -> None:
    arguments = ["answer", document, QUESTION, "--model", model, "--max-new-tokens", "6", "--citations", "2"]
    assert run([*arguments, "--json"]) == 0
    result = json.loads(capfd.readouterr().out)
    assert run(arguments) == 0
    out, err = capfd.readouterr()
    assert result["answer"].splitlines()[0] in out
    for number, citation in enumerate(result["citations"], 1):
        where = (
            f"[{number}] drop {citation['drop']:.2f} nats · relevance {citation['relevance']:.1%} · "
            f"{document}, line {citation['line']}, characters {citation['start']}–{citation['end']}\n"
        )
        assert f"{where}    {' '.join(citation['text'].split())}\n" in out
    assert "[3]" not in out
    assert " s · peak memory " in out.splitlines()[-1]
    assert "\x1b" not in out
    assert err == ""


@pytest.mark.parametrize("least", [-1e9, 1e9])
def test_an_answer_without_support_is_marked_with_the_reason_and_one_with_it_is_not(
    least: float, document: str, model: str, capfd: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in ("sightline.evidence._support", "sightline.evidence"):
        monkeypatch.setattr(f"{module}.SUPPORT", least)
    monkeypatch.setattr("sightline.evidence._support._NEEDED", 1e9)
    arguments = ["answer", document, QUESTION, "--model", model, "--max-new-tokens", "6"]
    assert run([*arguments, "--json"]) == 0
    result = json.loads(capfd.readouterr().out)
    supported = least < 0
    assert result["supported"] is supported
    assert result["verdict"] == ("in the document" if supported else "not in the document")
    assert run(arguments) == 0
    out = capfd.readouterr().out
    said = result["answer"].splitlines()[0]
    assert out.startswith(said) is supported
    weak = f"support {result['strength']:.1f} nats, under {least:g}: " if least > 0 else ""
    hidden = f"not in the document: {weak}hiding all that was read costs the answer {result['document_drop']:.1f} nats;"
    assert out.startswith(hidden) is not supported
    lost = f"without the sentence it rests on most the document tells by {result['contrast']:.1f} less\n"
    assert (lost in out) is not supported
    assert (f"the model said: {said}" in out) is not supported


def test_the_document_may_come_from_standard_input(
    model: str, capfd: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(DOCUMENT.encode())))
    assert run(["answer", "-", QUESTION, "--model", model, "--max-new-tokens", "2", "--json"]) == 0
    assert json.loads(capfd.readouterr().out)["citations"]


def test_a_result_file_holds_what_would_be_printed_and_keeps_its_permissions(
    document: str, model: str, tmp_path: Path, capfd: Captured
) -> None:
    target = tmp_path / "out.json"
    target.write_text("before")
    target.chmod(0o640)
    arguments = ["answer", document, QUESTION, "--model", model, "--max-new-tokens", "4", "--json", "-o", str(target)]
    assert run(arguments) == 0
    assert capfd.readouterr() == ("", "")
    assert json.loads(target.read_text())["citations"]
    assert stat.S_IMODE(target.stat().st_mode) == 0o640
    assert sorted(p.name for p in tmp_path.iterdir()) == ["ferry.md", "out.json"]


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (["answer", "absent.txt", QUESTION], "'absent.txt' was given as the document; there is no such file"),
        (["answer", "folder", QUESTION], "'folder' was given as a folder of documents; it holds no file of UTF-8 text"),
        (["answer", "paper.pdf", QUESTION], "it is a PDF. Convert it to text first"),
        (["answer", "-", "-", QUESTION], "it can be read only once"),
        (["answer", "latin.txt", "ferry.md"], "The question comes last, and 'ferry.md' is a file"),
        (["answer", "empty.txt", QUESTION], "'empty.txt' was given as the document; it is empty"),
        (["answer", "binary.bin", QUESTION], "'binary.bin' was given as the document; it is a binary file"),
        (["answer", "latin.txt", QUESTION], "'latin.txt' was given as the document; it is not UTF-8 text"),
        (["answer", "ferry.md", " "], "the question is empty"),
        (["answer", "ferry.md", QUESTION, "--model", "nosuch"], "Known names: smollm2-135m"),
        (["answer", "ferry.md", QUESTION, "--model", "ferry.md"], "that is a file"),
        (["answer", "ferry.md", QUESTION, "-o", "absent/out.txt"], "the folder 'absent' does not exist"),
        (["answer", "ferry.md", QUESTION, "-o", "."], "that is a folder"),
        (["answer", "ferry.md", QUESTION, "--max-new-tokens", "0"], "0 is not in the range x>=1"),
        (["answer", "ferry.md"], "Missing argument 'DOCUMENT...'"),
        (["anwser"], "No such command 'anwser'"),
    ],
)
def test_bad_input_is_one_message_and_exit_code_2(
    arguments: list[str], why: str, document: str, monkeypatch: pytest.MonkeyPatch, capfd: Captured
) -> None:
    monkeypatch.chdir(Path(document).parent)
    Path("folder").mkdir()
    Path("paper.pdf").write_bytes(b"%PDF-1.7")
    Path("empty.txt").touch()
    Path("binary.bin").write_bytes(b"\x7fELF\x00\x01")
    Path("latin.txt").write_bytes("café".encode("latin-1"))
    assert run(arguments) == 2
    out, err = capfd.readouterr()
    assert out == ""
    assert why in err
    assert "Traceback" not in err


def test_a_context_without_room_is_bad_input(document: str, model: str, capfd: Captured) -> None:
    assert run(["answer", document, QUESTION, "--model", model, "--max-new-tokens", "500"]) == 2
    assert "context is 512 tokens" in capfd.readouterr().err


def test_folders_and_files_are_searched_and_citations_name_the_file(
    document: str, model: str, tmp_path: Path, capfd: Captured
) -> None:
    folder = tmp_path / "more"
    folder.mkdir()
    (folder / "sea.txt").write_text("The tide was low. Nobody came. " * 60)
    (folder / "paper.pdf").write_bytes(b"%PDF-1.7")
    arguments = ["answer", document, str(folder), QUESTION, "--model", model, "--max-new-tokens", "6"]
    assert run([*arguments, "--json"]) == 0
    out, err = capfd.readouterr()
    result = json.loads(out)
    assert err == f"sightline: skipped {folder / 'paper.pdf'} (it is a PDF)\n"
    assert document in {window["source"] for window in result["windows"]}
    assert result["searched"] > len(result["windows"])
    assert run(arguments) == 0
    page = capfd.readouterr().out
    assert f"read, of {result['searched']} passages: " in page
    for window in result["windows"]:
        assert f"{window['source']}, line" in page


def test_on_a_terminal_the_answer_is_written_as_it_is_produced(document: str, model: str) -> None:
    """A terminal of its own: the text is there before the evidence is looked for, and once."""
    import pty

    command = ["answer", document, QUESTION, "--model", model, "--max-new-tokens", "6", "--citations", "1"]
    plain = subprocess.run(
        [sys.executable, "-c", STREAMING, *command, "--json"], stdout=subprocess.PIPE, check=True, text=True
    )
    said = json.loads(plain.stdout[plain.stdout.index("{") :])["answer"]
    ours, theirs = pty.openpty()
    with started([sys.executable, "-c", STREAMING, *command], stdout=theirs, stderr=subprocess.DEVNULL) as run:
        os.close(theirs)
        got = b""
        while True:
            try:
                more = os.read(ours, 4096)
            except OSError:  # Linux's way of saying that the other side has closed
                break
            if not more:
                break
            got += more
        assert run.wait() == 0
    os.close(ours)
    shown = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", got.decode()).replace("\r\n", "\n")
    written, _, rest = shown.partition("<evidence>")
    assert written.strip() == "".join(c if c.isprintable() or c in "\n\t" else "\ufffd" for c in said).strip()
    assert "[1]" in rest
    assert " s · peak memory " in rest


def cited(drop: float, start: int, end: int) -> Citation:
    return Citation(DOCUMENT[start:end], start, end, 1, 0.1, drop, drop)


def test_on_a_terminal_evidence_is_coloured_between_the_words_around_it() -> None:
    from rich.text import Text

    from sightline.cli.answer import _in_context

    starts = [0, *(match.end() for match in re.finditer(r"[.?!]\s+", DOCUMENT))]
    start, end = starts[1], starts[2]
    styles = []
    for drop in (4.0, 2.0, 0.5, -1.0):
        shown = _in_context(cited(drop, start, end), DOCUMENT, 4.0)
        assert isinstance(shown, Text)
        sentence = " ".join(DOCUMENT[start:end].split())
        (span,) = [span for span in shown.spans if shown.plain[span.start : span.end] == sentence]
        styles.append(span.style)
        around = shown.plain.replace(sentence, "", 1)
        assert around.strip()
        assert around.split()[0] in DOCUMENT
        assert all(span.style == "dim" for span in shown.spans if span.style != styles[-1])
    assert styles == ["bold black on yellow", "bold yellow", "yellow", "yellow"]


def test_context_ends_where_the_paragraph_and_whole_words_do() -> None:
    from sightline.cli.answer import _in_context

    text = "Another one.\n\nFirst. " + "word " * 60 + "It is here. " + "after " * 60 + "\n\nA third."
    start = text.index("It is here.")
    citation = Citation("It is here.", start, start + 11, 3, 0.1, 1.0, 1.0)
    plain = _in_context(citation, text, 1.0).plain
    assert set(plain.replace("It is here.", "").split()) == {"word", "after"}
    assert len(plain) < 270
    lone = "Another one.\n\nIt is here.\n\nA third."
    citation = Citation("It is here.", 14, 25, 3, 0.1, 0.0, 0.0)
    assert _in_context(citation, lone, 0.0).plain == "It is here."
    nasty = "Before \x1b[2J it. It is here."
    citation = Citation("It is here.", nasty.index("It is here."), len(nasty), 1, 0.1, 1.0, 1.0)
    assert "\x1b" not in _in_context(citation, nasty, 1.0).plain


STREAMING = """
import sys
from sightline.cli import main
import sightline.tasks.answering.answer as _
module = sys.modules["sightline.tasks.answering.answer"]
measured = module.find_support
def told(*given, **more):
    print("<evidence>", flush=True)
    return measured(*given, **more)
module.find_support = told
sys.exit(main())
"""


def test_debug_adds_the_traceback(document: str, capfd: Captured) -> None:
    assert run(["answer", document, QUESTION, "--model", "nosuch", "--debug"]) == 2
    err = capfd.readouterr().err
    assert "Traceback" in err
    assert err.splitlines()[-1].startswith("sightline: the model 'nosuch' was asked for")


def test_a_defect_is_told_in_one_line_and_exit_code_1(
    document: str, model: str, monkeypatch: pytest.MonkeyPatch, capfd: Captured
) -> None:
    def broken(*_: object) -> None:
        raise ZeroDivisionError("oh")

    monkeypatch.setattr("sightline.reader.Reader.next_logits", broken)
    assert run(["answer", document, QUESTION, "--model", model]) == 1
    assert capfd.readouterr().err == (
        "sightline: unexpected ZeroDivisionError: oh. Run again with --debug for details.\n"
    )


def test_an_interrupt_is_exit_code_130_and_leaves_no_file(document: str, model: str, tmp_path: Path) -> None:
    target = tmp_path / "out.txt"
    target.write_text("before")
    command = [sys.executable, "-c", INTERRUPTIBLE, "answer", document, QUESTION, "--model", model, "-o", str(target)]
    with started(command, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        assert process.stderr.readline() == "answering\n"
        process.send_signal(signal.SIGINT)
        assert process.stderr.read().strip() == "sightline: interrupted"
    assert process.returncode == 130
    assert target.read_text() == "before"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["ferry.md", "out.txt"]


INTERRUPTIBLE = """
import sys, time
from sightline.cli import main
from sightline.reader import Reader
def next_logits(*_):
    print("answering", file=sys.stderr, flush=True)
    time.sleep(60)
Reader.next_logits = next_logits
sys.exit(main())
"""


def test_a_reader_that_goes_away_is_met_with_silence(document: str, model: str) -> None:
    command = [sys.executable, "-m", "sightline.cli", "answer", document, QUESTION, "--model", model]
    read, written = os.pipe()
    os.close(read)
    done = subprocess.run(command, stdout=written, stderr=subprocess.PIPE, text=True, check=False, timeout=120)
    os.close(written)
    assert (done.returncode, done.stderr) == (1, "")


@pytest.mark.skipif(os.name != "posix", reason="needs a pseudo-terminal")
def test_progress_of_every_phase_is_shown_on_a_terminal(document: str, model: str) -> None:
    import pty

    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "sightline.cli", "answer", document, QUESTION, "--model", model]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=theirs, env=os.environ | {"TERM": "xterm"})
    os.close(theirs)
    seen = b""
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        try:
            piece = os.read(ours, 65536)
        except OSError:  # the other end is closed: the process has ended
            break
        if not piece:
            break
        seen += piece
    out, _ = process.communicate(timeout=10)
    os.close(ours)
    assert process.returncode == 0
    assert b"peak memory" in out
    assert b"\x1b" not in out
    for phase in ("Loading the model", "Reading", "Writing the answer", "Measuring the evidence"):
        assert phase.encode() in seen
