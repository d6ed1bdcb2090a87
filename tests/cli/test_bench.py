from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from processes import started
from sightline.bench import CONTENDERS, Figures, Point, Settings
from sightline.cli._run import run

Captured = pytest.CaptureFixture[str]
TINY = ["bench", "--tokens", "64,32", "--repeats", "2", "--threads", "1"]
MEASURED = Point(512, "sdpa", "measured", "", [0.002], [0.004], 10, 1_000_000)


def test_json_is_all_that_is_printed_and_has_the_promised_keys(capfd: Captured) -> None:
    assert run([*TINY, "--json"]) == 0
    out, err = capfd.readouterr()
    content = json.loads(out)
    assert list(content) == ["schema", "machine", "threads", "available_bytes", "settings", "points"]
    machine = ["cpu", "flags", "cores", "memory_bytes", "os", "python", "torch", "sightline"]
    assert list(content["machine"]) == machine
    assert content["settings"]["tokens"] == [32, 64]
    assert [(p["tokens"], p["contender"]) for p in content["points"]] == [(n, c) for n in (32, 64) for c in CONTENDERS]
    for point in content["points"]:
        assert (point["state"], point["why"]) == ("measured", None)
        assert point["calls_per_sample"] >= 1
        assert point["peak_growth_bytes"] is None or point["peak_growth_bytes"] >= 0
        for clock in (point["wall"], point["cpu"]):
            assert list(clock) == ["samples", "low", "median", "high"]
            assert len(clock["samples"]) == 2
        assert point["time_over_sdpa"]["median"] > 0
        if point["contender"] == "sdpa":
            assert point["time_over_sdpa"]["median"] == 1
    assert err == ""


def test_people_get_a_table_and_the_picture_is_written(tmp_path: Path, capfd: Captured) -> None:
    picture = tmp_path / "bench.png"
    assert run([*TINY, "--plot", str(picture)]) == 0
    out, err = capfd.readouterr()
    lines = out.splitlines()
    assert lines[0].split() == ["tokens", "contender", "time", "CPU", "×", "SDPA", "peak", "growth", "×", "SDPA"]
    assert sum("Sightline, observing" in line for line in lines) == 2
    assert "causal self-attention, 1 head of width 64, float32" in out
    assert "1 thread, PyTorch" in out
    assert "\x1b" not in out
    assert err == ""
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert list(tmp_path.iterdir()) == [picture]


@pytest.fixture
def found(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Have the measuring come to given points."""

    def found(*points: Point) -> None:
        figures = Figures(Settings(tokens=(512,)), {"cpu": "an abacus", "torch": "2"}, 2, 10**9, points)
        monkeypatch.setattr("sightline.bench.measure", lambda *_, **__: figures)

    return found


def test_who_is_left_out_is_shown_with_the_reason(found: Any, capfd: Captured) -> None:
    found(
        Point(512, "eager", "left out", "would need 68.7 GB, and 9.0 GB are available", needs=68_700_000_000),
        MEASURED,
        Point(512, "sightline", "left out", "would take about 40.0 s a call, and the limit is 15.0 s", takes=40),
        Point(512, "observing", "failed", "was killed, perhaps for want of memory"),
    )
    assert run(["bench"]) == 0
    rows = {line[9:29].strip(): " ".join(line[29:].split()) for line in capfd.readouterr().out.splitlines()[2:6]}
    assert rows == {
        "eager": "would need 68.7 GB",
        "SDPA": "2.00 ms 4.00 ms 1.00 1.00 MB 1.00",
        "Sightline": "would take 40.0 s",
        "Sightline, observing": "failed",
    }


def test_a_wrong_result_has_no_figures_and_the_exit_code_is_1(found: Any, capfd: Captured) -> None:
    found(MEASURED, Point(512, "sightline", "wrong", "the output is off by 0.1, where 1e-06 is allowed"))
    assert run(["bench"]) == 1
    out = capfd.readouterr().out
    assert "Sightline at 512 tokens gave a wrong result: the output is off by 0.1, where 1e-06 is allowed." in out
    assert next(line for line in out.splitlines() if " Sightline " in line).split() == ["Sightline", "wrong"]


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (["--tokens", "512;1024"], "lengths are numbers of tokens, separated by commas"),
        (["--tokens", "512,8"], "a length of 8 tokens was asked for"),
        (["--max-tokens", "100"], "they double from 512"),
        (["--max-tokens", "1024", "--tokens", "512"], "--tokens and --max-tokens were both given"),
        (["--dtype", "float8"], "dtype is 'float8'"),
        (["--heads", "0"], "heads is 0"),
        (["--limit", "-1"], "limit is -1"),
        (["-o", "absent/out.txt"], "the folder 'absent' does not exist"),
        (["--plot", "absent/out.png"], "the folder 'absent' does not exist"),
        (["--plot", "out.jpg"], "Name a file that ends in .png"),
        (["--plot", "out.png", "-o", "out.png"], "Name two files"),
    ],
)
def test_bad_input_is_one_message_and_exit_code_2_before_anything_is_measured(
    arguments: list[str], why: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: Captured
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sightline.bench.measure", None)
    assert run(["bench", *arguments]) == 2
    out, err = capfd.readouterr()
    assert out == ""
    assert why in err
    assert len(err.splitlines()) == 1
    assert list(tmp_path.iterdir()) == []


def test_a_plot_without_matplotlib_is_refused_before_anything_is_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: Captured
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    monkeypatch.setattr("sightline.bench.measure", None)
    assert run(["bench", "--plot", str(tmp_path / "out.png")]) == 2
    assert 'pip install "sightline[plot]"' in capfd.readouterr().err


def children(process: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{process}/task/{process}/children").read_text().split()]


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="processes are looked up in /proc")
def test_an_interrupt_leaves_no_process_and_no_file(tmp_path: Path) -> None:
    for name in ("out.txt", "out.png"):
        (tmp_path / name).write_text("before")
    command = [sys.executable, "-m", "sightline.cli", "bench", "--tokens", "2048", "--repeats", "100000"]
    command += ["--limit", "1000", "-o", str(tmp_path / "out.txt"), "--plot", str(tmp_path / "out.png")]
    with started(command, stderr=subprocess.PIPE, text=True, start_new_session=True) as process:
        workers: list[int] = []
        deadline = time.monotonic() + 60
        while len(workers) < len(CONTENDERS) and time.monotonic() < deadline:
            time.sleep(0.05)
            workers = children(process.pid)
        assert len(workers) == len(CONTENDERS)
        os.killpg(process.pid, signal.SIGINT)
        _, said = process.communicate(timeout=60)
    assert (process.returncode, said.strip()) == (130, "sightline: interrupted")
    assert [child for child in workers if Path(f"/proc/{child}").exists()] == []
    assert sorted(p.name for p in tmp_path.iterdir()) == ["out.png", "out.txt"]
    assert {p.read_text() for p in tmp_path.iterdir()} == {"before"}


@pytest.mark.skipif(os.name != "posix", reason="needs a pseudo-terminal")
def test_progress_of_every_length_is_shown_on_a_terminal() -> None:
    import pty

    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "sightline.cli", *TINY]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=theirs, env=os.environ | {"TERM": "xterm"})
    os.close(theirs)
    seen = b""
    while True:
        try:
            piece = os.read(ours, 65536)
        except OSError:  # the other end is closed: the process has ended
            break
        seen += piece
        if not piece:
            break
    out, _ = process.communicate(timeout=10)
    os.close(ours)
    assert process.returncode == 0
    assert b"\x1b" not in out
    for words in (b"32 tokens", b"64 tokens", b"of 16 steps"):
        assert words in seen
