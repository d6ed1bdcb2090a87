from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import marian_files
from processes import started
from sightline.cli._run import run

pytest.importorskip("sentencepiece", reason="the package sentencepiece is not installed")

Captured = pytest.CaptureFixture[str]

TEXT = "The red car stopped.\r\n\r\nShe crossed the river 👍.\r\n"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(marian_files.write_folder(tmp_path_factory.mktemp("marian")))


@pytest.fixture(autouse=True)
def _cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.getbasetemp() / "translate-cache"))


@pytest.fixture
def text(tmp_path: Path) -> str:
    path = tmp_path / "text.md"
    path.write_bytes(TEXT.encode())
    return str(path)


def given(monkeypatch: pytest.MonkeyPatch, data: bytes) -> None:
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(data)))


def test_what_is_printed_written_and_in_json_is_the_same_translation(
    folder: str, text: str, tmp_path: Path, capfd: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert run(["translate", text, "--model", folder, "--json"]) == 0
    out = json.loads(capfd.readouterr().out)
    assert list(out) == ["translation", "units", "model", "seconds", "peak_bytes"]
    assert out["units"][0]["sources"] == [{"text": "The red car stopped.", "start": 0, "end": 20, "weight": 1.0}]
    assert out["units"][0]["words"]
    given(monkeypatch, TEXT.encode())
    assert run(["translate", "-", "--model", folder]) == 0
    assert capfd.readouterr().out == out["translation"]
    target = tmp_path / "out.md"
    assert run(["translate", text, "--model", folder, "-o", str(target)]) == 0
    assert capfd.readouterr().out == ""
    assert target.read_bytes().decode() == out["translation"]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["out.md", "text.md"]


def test_the_alignment_is_a_line_for_each_word(folder: str, text: str, capfd: Captured) -> None:
    assert run(["translate", text, "--model", folder, "--json"]) == 0
    unit = json.loads(capfd.readouterr().out)["units"][0]
    assert run(["translate", text, "--model", folder, "--align"]) == 0
    lines = capfd.readouterr().out.splitlines()
    assert lines[:2] == ["The red car stopped.", unit["text"]]
    assert lines[2].split()[:2] == [unit["words"][0]["text"], "←"]


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"", "the text is empty"),
        (b" \r\n\r\n", "the text is empty"),
        (b"%PDF-1.7\n%\xe2\xe3\xcf\xd3\n", "standard input was given as the text; it is not UTF-8 text"),
        (b"\x7fELF\x00", "standard input was given as the text; it is binary"),
        ("car".encode("utf-16"), "standard input was given as the text; it is binary, or text in another encoding"),
        (b"caf\xc3", "it is not UTF-8 text"),
    ],
)
def test_what_is_no_text_on_standard_input_is_one_message(
    data: bytes, why: str, folder: str, monkeypatch: pytest.MonkeyPatch, capfd: Captured
) -> None:
    given(monkeypatch, data)
    assert run(["translate", "-", "--model", folder]) == 2
    out, err = capfd.readouterr()
    assert out == ""
    assert why in err
    assert "Traceback" not in err


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (["absent.txt"], "there is no such file"),
        (["text.md", "--to", "fr"], "there is a known model for en → pt, pt → en"),
        (["text.md", "-o", "absent/out"], "the folder 'absent' does not exist"),
        (["text.md", "--beams", "0"], "0 is not in the range"),
        (["text.md", "--model", "nosuch"], "Known names: "),
    ],
)
def test_bad_input_is_one_message_and_exit_code_2(
    arguments: list[str], why: str, text: str, monkeypatch: pytest.MonkeyPatch, capfd: Captured
) -> None:
    monkeypatch.chdir(Path(text).parent)
    assert run(["translate", *arguments]) == 2
    out, err = capfd.readouterr()
    assert out == ""
    assert why in err


def test_a_paragraph_on_a_pipe_is_printed_before_the_next_has_come(folder: str) -> None:
    command = [sys.executable, "-m", "sightline.cli", "translate", "-", "--model", folder]
    with started(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(b"The red car stopped.\n\n")
        process.stdin.flush()
        assert process.stdout.readline().strip()
        assert process.stdout.readline() == b"\n"
        process.stdin.write(b"12")
        process.stdin.close()
        assert process.stdout.read() == b"12"
    assert process.returncode == 0


@pytest.mark.parametrize(
    ("number", "code", "said"), [(signal.SIGINT, 130, b"sightline: interrupted"), (signal.SIGTERM, 143, b"")]
)
def test_an_interrupt_leaves_no_file(folder: str, tmp_path: Path, number: int, code: int, said: bytes) -> None:
    target = tmp_path / "out.txt"
    target.write_text("before")
    command = [sys.executable, "-c", INTERRUPTIBLE, "translate", "-", "--model", folder, "-o", str(target)]
    with started(command, stdin=subprocess.PIPE, stderr=subprocess.PIPE, env=dict(os.environ)) as process:
        assert process.stdin is not None
        assert process.stderr is not None
        process.stdin.write(b"The red car stopped.\n\nThe red car.\n\n")
        process.stdin.close()
        assert process.stderr.readline() == b"translating\n"
        process.send_signal(number)
        assert process.stderr.read().strip() == said
    assert process.returncode == code
    assert target.read_text() == "before"
    assert [p.name for p in tmp_path.iterdir()] == ["out.txt"]


INTERRUPTIBLE = """
import sys, time
from sightline.cli import main
from sightline.tasks.translation._encoder_decoder import EncoderDecoder
def write(*_):
    print("translating", file=sys.stderr, flush=True)
    time.sleep(60)
EncoderDecoder.write = write
sys.exit(main())
"""
