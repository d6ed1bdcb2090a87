"""Another commit's sightline: its sources in a git worktree that is gone afterwards."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


class BaseError(Exception):
    """The other commit cannot be measured; the message says why."""


def resolve(ref: str) -> str:
    """The commit that a name means. Raises BaseError."""
    return git("rev-parse", "--verify", "--quiet", f"{ref}^{{commit}}", error=f"{ref!r} is no commit here.")


@contextmanager
def sources(commit: str) -> Generator[Path]:
    """The folder that a commit's sightline is imported from, its native kernels built where it has some.

    Raises BaseError.
    """
    folder = Path(tempfile.mkdtemp(prefix="sightline-base-"))
    tree = folder / "tree"
    try:
        git("worktree", "add", "--detach", "--quiet", str(tree), commit, error="the base could not be checked out:")
        if (tree / "CMakeLists.txt").exists():
            _build(tree)
        yield tree / "src"
    finally:
        subprocess.run(["git", "worktree", "remove", "--force", str(tree)], cwd=ROOT, capture_output=True, check=False)
        shutil.rmtree(folder, ignore_errors=True)
        subprocess.run(["git", "worktree", "prune"], cwd=ROOT, capture_output=True, check=False)


def git(*arguments: str, error: str) -> str:
    """What git answers. Raises BaseError."""
    try:
        done = subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        raise BaseError("git is not installed, and another commit is read with it.") from None
    if done.returncode:
        raise BaseError(f"{error} {done.stderr.strip()}".strip())
    return done.stdout.strip()


def _build(tree: Path) -> None:
    """Compile a tree's native kernels into its own sources."""
    build = tree / "build"
    steps = (
        [
            "cmake",
            "-S",
            str(tree),
            "-B",
            str(build),
            "-DCMAKE_BUILD_TYPE=Release",
            f"-DPython_EXECUTABLE={sys.executable}",
        ],
        ["cmake", "--build", str(build), "--parallel"],
        ["cmake", "--install", str(build), "--prefix", str(tree / "src")],
    )
    here = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])  # this environment's CMake
    for step in steps:
        try:
            found = shutil.which(step[0], path=here) or step[0]
            done = subprocess.run([found, *step[1:]], capture_output=True, text=True, check=False)
        except FileNotFoundError:
            raise BaseError("the base has native kernels, and CMake, which builds them, was not found.") from None
        if done.returncode:
            last = "\n".join((done.stdout + done.stderr).splitlines()[-20:])
            raise BaseError(f"the base's native kernels could not be built:\n{last}")
