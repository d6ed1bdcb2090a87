from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from sightline.cli._run import run

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
        assert list(unit) == ["text", "log_prob", "sources"]
        assert 1 <= len(unit["sources"]) <= 2
        for source in unit["sources"]:
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
    lines = out.split("\n")
    for unit, line in zip(result["units"], lines, strict=False):
        for source in unit["sources"]:
            assert f"{'↑' if source['where'] == 'output' else ''}{source['text']} {source['share']:.0%}" in line
    assert lines[len(result["units"])] == ""
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
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
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
