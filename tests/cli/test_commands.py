from __future__ import annotations

import subprocess
import sys
from importlib.metadata import version

import pytest

from sightline.cli._run import run

Captured = pytest.CaptureFixture[str]


@pytest.mark.parametrize(
    "arguments",
    [
        ["--help"],
        ["answer", "--help"],
        ["bench", "--help"],
        ["doctor", "-h"],
        ["models", "--help"],
        ["models", "pull", "-h"],
        ["translate", "--help"],
        ["view", "--help"],
        ["inspect", "--help"],
        ["--version"],
    ],
)
def test_help_needs_no_model_library_and_no_torch(arguments: list[str]) -> None:
    look = (
        "import sys\nfrom sightline.cli import main\ncode = main()\n"
        "sys.exit(3 if {'transformers', 'torch'} & set(sys.modules) else code)"
    )
    done = subprocess.run([sys.executable, "-c", look, *arguments], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_the_console_script_sets_how_threads_wait_before_torch_is_loaded() -> None:
    look = (
        "import os, sys\nimport sightline_launch\nassert 'torch' not in sys.modules\nsys.argv[1:] = ['--version']\n"
        "code = sightline_launch.main()\nassert os.environ['OMP_WAIT_POLICY'] == 'passive'\n"
        "assert os.environ['GOMP_SPINCOUNT'] == '20000'\nsys.exit(code)"
    )
    done = subprocess.run([sys.executable, "-c", look], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_the_commands_are_listed_with_what_they_do(capfd: Captured) -> None:
    assert run(["--help"]) == 0
    out = " ".join(capfd.readouterr().out.split())
    assert "answer Answer a question from a document" in out
    assert "bench Measure time and memory of attention" in out
    assert "doctor Show what this installation can do" in out
    assert "inspect Show what stands out in a trace" in out
    assert "record Record the attention of a model" in out
    assert "generate Write what follows a prompt" in out
    assert "summarize Summarise a document" in out
    assert "translate Translate a text" in out
    assert "models List the models known by name" in out


def test_no_command_shows_the_help_as_an_error(capfd: Captured) -> None:
    assert run([]) == 2
    assert "Usage: sightline" in capfd.readouterr().err


def test_the_version_is_the_installed_one(capfd: Captured) -> None:
    assert run(["--version"]) == 0
    assert capfd.readouterr().out == f"sightline {version('sightline')}\n"


def test_doctor_tells_backends_versions_and_models(capfd: Captured) -> None:
    import torch

    import sightline
    from sightline import models

    assert run(["doctor"]) == 0
    out = capfd.readouterr().out
    for backend in sightline.backends():
        assert f"  {backend.name:12} {'available' if backend.available else 'not available'}" in out
        assert all(said in out for said in (*backend.reasons, *backend.runs_on))
    assert f"torch        {torch.__version__}" in out
    assert all(name in out for name in models.KNOWN)


def test_doctor_tells_why_a_backend_cannot_be_used(capfd: Captured, monkeypatch: pytest.MonkeyPatch) -> None:
    import sightline
    from sightline import BackendInfo

    monkeypatch.setattr(sightline, "backends", lambda: [BackendInfo("warp", False, ("no such device", "too slow"))])
    assert run(["doctor"]) == 0
    assert "warp         not available: no such device; too slow" in capfd.readouterr().out


@pytest.mark.parametrize("package", ["transformers", "sentencex"])
def test_a_missing_package_is_named_with_the_extra_that_brings_it(package: str) -> None:
    without = f"import sys\nsys.modules[{package!r}] = None\nfrom sightline.cli import main\nsys.exit(main())"
    command = [sys.executable, "-c", without, "answer", __file__, "What?"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert f"needs {package}" in done.stderr or f"needs the package {package}" in done.stderr
    assert 'pip install "sightline[models]"' in done.stderr
    assert "Traceback" not in done.stderr


def test_the_module_is_the_command() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "sightline.cli", "--version"], capture_output=True, text=True, check=True
    )
    assert done.stdout.startswith("sightline ")
