from __future__ import annotations

import fcntl
import io
import json
import os
import pty
import re
import signal
import struct
import subprocess
import sys
import termios
from contextlib import suppress
from pathlib import Path

import pytest
from rich.console import Console

from processes import started
from sightline.cli._flow import Flow
from sightline.cli._run import run
from sightline.cli._tokens import listing
from sightline.tasks.generation import Produced, Source

PROMPT = "How is the fare paid?"

Captured = pytest.CaptureFixture[str]


@pytest.fixture
def arguments(model: str) -> list[str]:
    return ["--model", model, "--max-new-tokens", "8"]


def test_json_is_all_that_is_printed_and_has_the_promised_keys(arguments: list[str], capfd: Captured) -> None:
    assert run(["generate", PROMPT, *arguments, "--focus", "2", "--json"]) == 0
    out, err = capfd.readouterr()
    result = json.loads(out)
    assert list(result) == ["text", "units", "ended", "model", "seconds", "peak_bytes"]
    assert result["text"] == "".join(unit["text"] for unit in result["units"])
    for unit in result["units"]:
        assert list(unit) == ["text", "start", "end", "log_prob", "citations", "supported"]
        assert result["text"][unit["start"] : unit["end"]] == unit["text"]
        assert unit["supported"] is None
        assert 1 <= len(unit["citations"]) <= 2
        for source in unit["citations"]:
            assert set(source) == {"start", "end", "text", "share", "where"}
    assert err == ""


def test_a_pipe_gets_the_text_alone_from_every_kind_of_prompt(
    arguments: list[str], tmp_path: Path, capfd: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert run(["generate", PROMPT, *arguments, "--json"]) == 0
    text = json.loads(capfd.readouterr().out)["text"]
    assert run(["generate", PROMPT, *arguments]) == 0
    assert capfd.readouterr() == (f"{text}\n", "")
    (tmp_path / "prompt.txt").write_bytes(f"{PROMPT}\r\n".encode())
    assert run(["generate", "--file", str(tmp_path / "prompt.txt"), *arguments]) == 0
    assert capfd.readouterr() == (f"{text}\n", "")
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(f"{PROMPT}\n".encode())))
    assert run(["generate", "-", *arguments]) == 0
    assert capfd.readouterr() == (f"{text}\n", "")
    assert run(["generate", PROMPT, *arguments, "-o", str(tmp_path / "out.txt")]) == 0
    assert capfd.readouterr() == ("", "")
    assert (tmp_path / "out.txt").read_text() == f"{text}\n"


def test_raw_and_the_options_of_drawing_reach_the_model(arguments: list[str], capfd: Captured) -> None:
    said = []
    drawing = ["--temperature", "1", "--top-p", "0.95", "--top-k", "50"]
    for more in ([], ["--raw"], [*drawing, "--seed", "1"], [*drawing, "--seed", "2"], [*drawing, "--seed", "1"]):
        assert run(["generate", PROMPT, *arguments, *more]) == 0
        said.append(capfd.readouterr().out)
    assert said[2] == said[4]
    assert len(set(said)) == 4


def test_focus_lists_each_token_with_its_sources_then_the_text(arguments: list[str], capfd: Captured) -> None:
    assert run(["generate", PROMPT, *arguments, "--focus", "2", "--json"]) == 0
    result = json.loads(capfd.readouterr().out)
    assert run(["generate", PROMPT, *arguments, "--focus", "2"]) == 0
    out, err = capfd.readouterr()
    assert "\x1b" not in out
    head, *lines = out.split("\n")
    assert head.split()[:2] == ["token", "p"]
    for unit, line in zip(result["units"], lines, strict=False):
        line = line.replace("\u200e", "")
        for source in unit["citations"]:
            assert f"{'↑' if source['where'] == 'output' else ''}{source['text']} {source['share']:.0%}" in line
    assert "\n".join(lines[len(result["units"]) :]) == f"\n{result['text']}\n"
    assert err == ""


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        ([], "Give the prompt once"),
        (["a", "--file", "b"], "Give the prompt once"),
        ([" "], "the prompt is empty"),
        (["--file", "absent.txt"], "'absent.txt' was given as the prompt; there is no such file"),
        (["--file", "binary.bin"], "'binary.bin' was given as the prompt; it is a binary file"),
        (["-"], "standard input was given as the prompt; it is a binary file"),
        (["a", "--temperature", "-1"], "temperature is -1.0"),
        (["a", "--top-k", "3"], "top_k was given and temperature is 0"),
        (["a", "--max-new-tokens", "0"], "0 is not in the range x>=1"),
        (["a", "--model", "nosuch"], "Known names: smollm2-135m"),
        (["a", "-o", "absent/out.txt"], "the folder 'absent' does not exist"),
    ],
)
def test_bad_input_is_one_message_and_exit_code_2(
    arguments: list[str], why: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: Captured
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("binary.bin").write_bytes(b"\x7fELF\x00\x01")
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"\x7fELF\x00\x01")))
    assert run(["generate", *arguments]) == 2
    out, err = capfd.readouterr()
    assert out == ""
    assert why in err
    assert "Traceback" not in err


def test_a_prompt_too_long_is_bad_input(model: str, capfd: Captured) -> None:
    assert run(["generate", PROMPT, "--model", model, "--max-new-tokens", "512"]) == 2
    assert "the context of" in capfd.readouterr().err


SLOW = """
import sys, time
from sightline.cli import main
from sightline.reader import Reader
step = Reader.next_logits
def slowly(*a):
    time.sleep(0.5)
    return step(*a)
Reader.next_logits = slowly
sys.exit(main())
"""


@pytest.mark.parametrize("to_file", [False, True])
def test_tokens_come_as_they_are_produced_and_an_interrupt_is_exit_code_130(
    model: str, tmp_path: Path, to_file: bool
) -> None:
    target = tmp_path / "out.txt"
    target.write_text("before")
    # Ready is said when the first token is asked for.
    code = SLOW.replace("    time", '    print("ready", file=sys.stderr, flush=True)\n    time', 1)
    command = [sys.executable, "-c", code, "generate", PROMPT, "--model", model, "--max-new-tokens", "200"]
    command += ["-o", str(target)] if to_file else []
    with started(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stderr.readline() == b"ready\n"
        if not to_file:
            assert os.read(process.stdout.fileno(), 1) != b""  # long before the last of 200 tokens
        process.send_signal(signal.SIGINT)
        rest = process.stdout.read()
        said = process.stderr.read().decode()
    assert process.returncode == 130
    assert said.endswith("sightline: interrupted\n")
    assert "Traceback" not in said
    assert rest == b"" if to_file else rest.endswith(b"\n")
    assert target.read_text() == "before"
    assert list(tmp_path.iterdir()) == [target]


def test_a_reader_that_goes_away_is_met_with_silence(arguments: list[str]) -> None:
    read, written = os.pipe()
    os.close(read)
    command = [sys.executable, "-m", "sightline.cli", "generate", PROMPT, *arguments]
    done = subprocess.run(command, stdout=written, stderr=subprocess.PIPE, text=True, check=False, timeout=120)
    os.close(written)
    assert (done.returncode, done.stderr) == (1, "")


def flowing(pieces: list[str], width: int) -> str:
    printed: list[str] = []
    flow = Flow(printed.append, lambda: width)
    for piece in pieces:
        flow.add(piece)
    flow.close()
    return "".join(printed)


@pytest.mark.parametrize(
    ("pieces", "expected"),
    [
        (["The s", "ea is", " wi", "de"], "The sea is\nwide"),
        (["The sea", " ", " is w"], "The sea\nis w"),  # a word that ends where the line does
        (["one\n\n", "  two\t", "x"], "one\n\n  two\nx"),
        (["a\r", "\nb\rc"], "a\nb\nc"),
        (["unbreakable", "word x"], "unbreakableword x"),  # the terminal cuts it, five columns are left
        (["天気は", "良いです。"], "天気は良い\nです。"),
        (["a", " ", "b "], "a b "),
    ],
)
def test_on_a_terminal_lines_end_between_words(pieces: list[str], expected: str) -> None:
    assert flowing(pieces, 10) == expected
    assert flowing(list("".join(pieces)), 10) == expected


def test_a_wide_terminal_shows_the_text_as_it_is() -> None:
    text = "  Eggs 😀,  שלום\n\n天気 \u00a0x "
    assert flowing([text[at : at + 2] for at in range(0, len(text), 2)], 80) == text


def listed(units: list[Produced], width: int) -> list[str]:
    text = io.StringIO()
    listing(units, Console(file=text, width=width, highlight=False))
    return text.getvalue().split("\n")


def test_sources_that_do_not_fit_go_on_below_the_first() -> None:
    sources = tuple(Source("output", 0, 5, f"word{at}", 0.1) for at in range(9))
    lines = listed([Produced(1, " x", 0, -0.1, sources)], 60)
    assert lines[1] == " x                 90%  ↑word0 10% · ↑word1 10% · ↑word2 10%"
    assert lines[2] == " " * 24 + "↑word3 10% · ↑word4 10% · ↑word5 10%"
    assert len(lines[4]) == 0
    assert max(map(len, lines)) <= 60


def test_no_token_and_no_source_breaks_its_line_or_turns_it_around() -> None:
    sources = (Source("prompt", 0, 4, "שלום", 0.5), Source("prompt", 5, 9, "\u202e\x1b[2J", 0.2))
    long = Source("prompt", 0, 90, "x" * 90, 0.1)
    lines = listed([Produced(1, "\n", 0, -0.1, sources), Produced(1, " ", 1, -0.1, (long,))], 200)
    # The mark keeps the share behind the word; the controls are signs in place of what they would do.
    assert lines[1].endswith("90%  שלום\u200e 50% · \ufffd\ufffd[2J 20%")
    assert lines[1].startswith("⏎ ")
    assert lines[2].startswith("␣ ")
    assert lines[2].endswith(f" {'x' * 23}… 10%")


ON_A_TERMINAL = """
import sys
from sightline.cli import main
sys.exit(main())
"""


def on_a_terminal(arguments: list[str], *, code: str = ON_A_TERMINAL, until: bytes | None = None) -> tuple[int, str]:
    """A command on a terminal of 40 columns, interrupted once it has printed `until`: its exit code, all it printed."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 40, 0, 0))
    environment = {name: value for name, value in os.environ.items() if name not in ("COLUMNS", "LINES", "NO_COLOR")}
    with started(
        [sys.executable, "-c", code, "generate", *arguments],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        env={**environment, "TERM": "xterm-256color"},
        start_new_session=True,
    ) as process:
        os.close(theirs)
        printed = b""
        with suppress(OSError):  # Linux's way to say that the other side has closed
            while piece := os.read(ours, 4096):
                printed += piece
                if until is not None and until in printed:
                    process.send_signal(signal.SIGINT)
                    until = None
    os.close(ours)
    return process.returncode, printed.decode()


def test_a_terminal_is_told_how_fast_it_went_and_how_much_memory_it_took(arguments: list[str]) -> None:
    code, printed = on_a_terminal([PROMPT, *arguments])
    assert code == 0
    said = " ".join(re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", printed).split())
    figures = r"8 tokens \(the limit\) · first after [\d.]+ s, then [\d.]+/s"
    assert re.search(figures + r" · peak [\d.]+ GB$", said)


def test_an_interrupted_list_leaves_the_text_so_far_and_a_clean_terminal(model: str) -> None:
    arguments = [PROMPT, "--model", model, "--max-new-tokens", "200", "--focus", "1"]
    slow = SLOW.replace("Reader.next_logits", "Reader.differentiable_logits")
    code, printed = on_a_terminal(arguments, code=slow, until="↑".encode())
    assert code == 130
    assert printed.rfind("\x1b[?25h") > printed.rfind("\x1b[?25l")  # the cursor is shown again
    assert printed.endswith("sightline: interrupted\r\n")
    # The first token stands in the list, and again in the text below it.
    after = printed[printed.rindex("\x1b[?25h") :]
    assert after.split("\r\n")[1].strip()
