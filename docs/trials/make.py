"""`python docs/trials/make.py [WORD…]`: run the commands on inputs that nobody hopes for, and keep what is shown.

Writes index.md beside this file: for each trial the command line, all that is left on a terminal of 100 columns when it
has ended, and the exit code where it is not 0. Runs on Linux, as root for the full disk (a small tmpfs is mounted),
with `pip install pyte`; fetches some of a model of 1.1 GB, which it interrupts. Ten minutes on two cores. With words,
only the trials whose titles have one of them; the others stay as they are.
"""

from __future__ import annotations

import os
import pty
import re
import select
import signal
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from fcntl import ioctl
from pathlib import Path
from termios import TIOCSWINSZ

import pyte

HERE = Path(__file__).parent
DEMO = HERE.parent.parent / "examples" / "the-weather-book-of-marrow-point.md"
COLUMNS, LINES = 100, 400
INTERRUPT = "Ctrl-C"
HEAD = """# On inputs that nobody hopes for

What is left on a terminal of 100 columns, as `docs/trials/make.py` found it. Exit codes other than 0 are in brackets:
2 for what was asked, 130 for Ctrl-C.
"""


@dataclass(frozen=True)
class Trial:
    """A command line. `stop`: what to do, and after which words on the screen, or after which seconds."""

    line: str
    stop: tuple[str, str | float] | None = None
    shown: int = 40
    """Lines of the screen that are kept, from its top; how many more there are is said."""


TRIALS: dict[str, Sequence[Trial]] = {
    "An empty file": (
        Trial("sightline answer empty.txt 'Who kept the light?'"),
        Trial("sightline summarize empty.txt"),
        Trial("sightline translate empty.txt"),
        Trial("sightline generate --file empty.txt"),
    ),
    "A megabyte on standard input": (
        Trial("stat -c '%s bytes' log.txt"),
        Trial("sightline answer - 'What did Elias call the storm of 1902?' < log.txt"),
        Trial("sightline summarize - --extractive 3 < log.txt", stop=(INTERRUPT, 30.0)),
        Trial("sightline translate - < log.txt 2>/dev/null | head -4"),
        Trial("sightline generate - --max-new-tokens 20 < log.txt"),
    ),
    "Windows line ends": (
        Trial("file windows.txt"),
        Trial("sightline answer windows.txt 'Who is the keeper?'"),
        Trial("sightline summarize windows.txt --extractive 2"),
        Trial("sightline translate windows.txt | file -"),
        Trial("sightline generate --file windows.txt --max-new-tokens 20"),
    ),
    "Emoji, and text from right to left": (
        Trial("cat signs.txt"),
        Trial("sightline answer signs.txt 'Who sells figs?'"),
        Trial("sightline summarize signs.txt --extractive 1"),
        Trial("sightline translate signs.txt"),
        Trial("sightline generate --file signs.txt --focus 2 --max-new-tokens 6"),
    ),
    "A PDF by mistake": (
        Trial("sightline answer paper.pdf 'Who wrote it?'"),
        Trial("sightline summarize paper.pdf"),
        Trial("sightline translate paper.pdf"),
        Trial("sightline generate --file paper.pdf"),
    ),
    "A folder with all of these": (Trial("sightline answer . 'Who sells figs?'"),),
    "No room in the cache": (
        Trial("df -h --output=size,avail small"),
        Trial("XDG_CACHE_HOME=$PWD/small sightline answer windows.txt 'Who is the keeper?'"),
        Trial("XDG_CACHE_HOME=$PWD/small sightline translate signs.txt"),
        Trial("find small -type f"),
    ),
    "A download that is interrupted, and one that is killed": (
        Trial(
            "XDG_CACHE_HOME=$PWD/fetched sightline models pull qwen2.5-coder-1.5b",
            stop=(INTERRUPT, 12.0),
        ),
        Trial("XDG_CACHE_HOME=$PWD/fetched sightline models pull qwen2.5-coder-1.5b", stop=("kill -9", 12.0)),
        Trial("XDG_CACHE_HOME=$PWD/fetched sightline models list | grep -A2 ^qwen2.5-coder-1.5b$"),
        Trial("du -sh fetched"),
    ),
    "Ctrl-C while it works": (
        Trial("sightline generate 'Tell a long story of a lighthouse.'", stop=(INTERRUPT, 9.0)),
        Trial("sightline translate log.txt -o done.txt", stop=(INTERRUPT, 9.0)),
        Trial("ls done.txt"),
    ),
}


def prepare(folder: Path) -> None:
    """The files that the trials name."""
    demo = DEMO.read_text(encoding="utf-8")
    (folder / "empty.txt").write_text("")
    (folder / "windows.txt").write_bytes(demo.replace("\n", "\r\n").encode())
    (folder / "paper.pdf").write_bytes(b"%PDF-1.7\n%\xe2\xe3\xcf\xd3\n1 0 obj\n<</Type /Catalog>>\nendobj\n")
    (folder / "signs.txt").write_text(
        "🍇 Noor sells figs at the gate. 🚢 Her brother repairs boats.\n\nהים שקט היום. البحر هادئ اليوم.\n"
    )
    winds = ("north", "east", "south", "west")
    log = [
        f"On day {day:,} the glass stood at {960 + day * 7 % 80} and the wind blew from the {winds[day % 4]}."
        for day in range(1, 15_000)
    ]
    log.insert(9_000, "Elias called the storm of 1902 the Widow's Broom.")
    (folder / "log.txt").write_text("\n".join(log) + "\n")
    (folder / "small").mkdir()


def screens(line: str, folder: Path, stop: tuple[str, str | float] | None) -> tuple[list[str], int]:
    """What a terminal shows when the command has ended, and its exit code."""
    screen = pyte.Screen(COLUMNS, LINES)
    stream = pyte.ByteStream(screen)
    process, terminal = pty.fork()
    if process == 0:
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # a shell starts background jobs with it ignored
        os.chdir(folder)
        os.environ |= {"TERM": "xterm-256color", "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
        os.execvp("bash", ["bash", "-c", line])
    ioctl(terminal, TIOCSWINSZ, struct.pack("HHHH", 50, COLUMNS, 0, 0))
    start, stopped = time.monotonic(), False
    for data in _reading(terminal):
        if data:
            stream.feed(data)
        if stop is not None and not stopped and time.monotonic() - start > float(stop[1]):
            stopped = True
            if stop[0] == INTERRUPT:
                os.write(terminal, b"\x03")
            else:
                os.killpg(os.tcgetpgrp(terminal), signal.SIGKILL)
    _, status = os.waitpid(process, 0)
    shown = [text.rstrip() for text in screen.display]
    while shown and not shown[-1]:
        shown.pop()
    return shown, os.waitstatus_to_exitcode(status)


def _reading(terminal: int) -> Iterator[bytes]:
    """What is written to a terminal, as it comes, and nothing for each tenth of a second without."""
    while True:
        ready, _, _ = select.select([terminal], [], [], 0.1)
        if not ready:
            yield b""
            continue
        try:
            data = os.read(terminal, 65536)
        except OSError:  # the last one who could write has gone
            return
        if not data:
            return
        yield data


def told(trial: Trial, folder: Path) -> str:
    """The trial as a block of Markdown."""
    shown, code = screens(trial.line, folder, trial.stop)
    places = ((str(folder), "~"), (f"{HERE.parent.parent}/", ""))
    lines = [f"$ {trial.line}", *(_without(line, places) for line in shown[: trial.shown])]
    if len(shown) > trial.shown:
        lines.append(f"… and {len(shown) - trial.shown} lines more")
    if trial.stop is not None:
        lines.insert(1, f"[{trial.stop[0]} after {trial.stop[1]:g} s]")
    if code:
        lines.append(f"[exit code {code}]")
    return "```text\n" + "\n".join(lines) + "\n```\n"


def _without(line: str, places: Iterable[tuple[str, str]]) -> str:
    """A line without what is this machine's own."""
    for place, name in places:
        line = line.replace(place, name)
    return line


def main() -> None:
    page = HERE / "index.md"
    chosen = [title for title in TRIALS if any(word in title for word in sys.argv[1:] or [""])]
    kept = dict(re.findall(r"^## (.*?)\n(.*?)(?=^## |\Z)", page.read_text(encoding="utf-8"), re.M | re.S))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        prepare(folder)
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=30m", "tmpfs", folder / "small"], check=True)
        try:
            for title in chosen:
                kept[title] = ""
                for trial in TRIALS[title]:
                    kept[title] += "\n" + told(trial, folder)
                    print(kept[title].rpartition("\n\n")[2], flush=True)
        finally:
            subprocess.run(["umount", folder / "small"], check=True)
    sections = "\n".join(f"## {title}\n{kept[title].rstrip()}\n" for title in TRIALS)
    page.write_text(f"{HEAD}\n{sections}", encoding="utf-8")


if __name__ == "__main__":
    main()
