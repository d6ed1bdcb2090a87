"""The command: what it lists, refuses, and leaves behind when it is stopped."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from click.testing import CliRunner

from benchmarks import base, measure, run
from benchmarks.cases import CASES, Case
from benchmarks.measure import Row
from benchmarks.worker import There

ROOT = Path(__file__).resolve().parents[2]
TINY = Case("tiny", h=1, n=64, m=64, d=16)


def test_list_shows_the_cases_and_who_can_be_measured() -> None:
    done = CliRunner().invoke(run.main, ["--list"])
    assert done.exit_code == 0, done.output
    words = done.stdout.split()
    assert set(CASES) <= set(words)
    assert {"tiled", "sdpa", "sdpa-math", "sdpa-gqa", "sdpa-folded", "eager", "flex", "onnxruntime", "jax"} <= {*words}


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--case", "sideways-*"], "no case matches sideways-*"),
        (["--backend", "abacus"], "--backend abacus is none of Sightline's"),
        (["--case", "decode-f32-d128-8192", "--json", "no/such/folder.json"], "cannot be written"),
        (["--case", "decode-f32-d128-8192", "--base", "no-such-commit"], "'no-such-commit' is no commit here"),
        (["--rounds", "0"], "0 is not in the range"),
    ],
)
def test_mistakes_are_told_before_anything_is_measured(arguments: list[str], said: str) -> None:
    done = CliRunner().invoke(run.main, arguments)
    assert done.exit_code == 2
    assert said in " ".join(done.output.split())


def test_stopping_writes_no_file_and_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stopped(*_: object) -> list[Row]:
        raise KeyboardInterrupt

    monkeypatch.setattr(run, "measure", stopped)
    done = CliRunner().invoke(run.main, ["--case", "decode-f32-d128-8192", "--json", str(tmp_path / "figures.json")])
    assert done.exit_code == 130
    assert "nothing was written" in done.output
    assert list(tmp_path.iterdir()) == []


def test_a_process_measures_as_this_one_does() -> None:
    with There(1) as there:
        assert there.contenders() == measure.Here(1).contenders()
        assert there.judge(TINY, "tiled").state == "ok"
        assert there.open(TINY, "tiled").state == "ok"
        wall, cpu = there.time(TINY, "tiled")
        assert wall > 0
        assert cpu > 0
        with pytest.raises(RuntimeError, match="KeyError"):
            there.judge(TINY, "abacus")


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="peak memory is restarted through /proc")
def test_growth_is_that_of_the_call() -> None:
    case = Case("stored", h=2, n=2048, m=2048, d=16, memory=True)
    with There(1) as fresh:
        grown = fresh.grow(case, "eager")
    assert grown.verdict.state == "ok"
    assert case.matrix < grown.bytes < 6 * case.matrix


def in_a_repository() -> bool:
    asked = ["git", "rev-parse", "--verify", "HEAD"]
    return (ROOT / ".git").exists() and subprocess.run(
        asked, cwd=ROOT, capture_output=True, check=False
    ).returncode == 0


repository = pytest.mark.skipif(not in_a_repository(), reason="needs the repository's history")


def worktrees() -> str:
    return base.git("worktree", "list", error="")


@repository
def test_a_base_is_imported_from_its_own_tree_which_is_gone_afterwards(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(base, "_build", lambda _: None)  # a minute of compiling
    with base.sources(base.resolve("HEAD")) as sources:
        assert str(sources.parent) in worktrees()
        with There(1, sources) as there:
            rows = measure.measure(
                measure.entries(TINY, measure.Here(1), (there, "HEAD"), ["tiled"]), 2, lambda _: None
            )
    assert [(row.entry.contender, row.entry.ref, len(row.wall)) for row in rows] == [
        ("sdpa", "", 2),
        ("tiled", "", 2),
        ("tiled", "HEAD", 2),
    ]
    assert not sources.exists()
    assert str(sources.parent) not in worktrees()


@repository
def test_ctrl_c_leaves_no_worktree_and_no_file(tmp_path: Path) -> None:
    target = tmp_path / "figures.json"
    command = [sys.executable, "-m", "benchmarks.run", "--rounds", "100000", "--case", "forward-f32-d64-512"]
    command += ["--backend", "tiled", "--base", "HEAD", "--json", str(target)]
    started = subprocess.Popen(
        command, cwd=ROOT, env={**os.environ, "TMPDIR": str(tmp_path)}, stderr=subprocess.PIPE, start_new_session=True
    )
    deadline = time.monotonic() + 60
    while str(tmp_path) not in worktrees() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert str(tmp_path) in worktrees()
    os.killpg(started.pid, signal.SIGINT)
    _, said = started.communicate(timeout=60)
    assert started.returncode == 130, said
    assert str(tmp_path) not in worktrees()
    assert [path for path in tmp_path.iterdir() if path.name.startswith(("figures", ".figures", "sightline"))] == []
