"""The documentation's pages as the tests read them: their blocks of code, their links and pictures, their headings."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"

NEEDS_MODEL = "# needs a model"
"""The first line of a block that is not run: it needs a model, a file of the reader's, or a server."""

_SNIPPET = re.compile(r'^(\s*)--8<-- "([^":]+)(?::([\w-]+))?"\s*$')
_FENCE = re.compile(r"^(`{3,})\s*([\w+-]*)(.*)$")
_LINK = re.compile(r"(?=\[(?:[^\[\]]|\[[^\[\]]*\])*\]\(<?([^()\s>]+)>?(?:\s+\"[^\"]*\")?\))")
"""Looks ahead and takes nothing, since a link may hold a picture."""


@dataclass(frozen=True)
class Block:
    """A fenced block: the page's line that it begins on (from 1), its language, and its text."""

    line: int
    language: str
    text: str

    @property
    def runs(self) -> bool:
        return self.language == "python" and not self.text.lstrip().startswith(NEEDS_MODEL)


def pages(under: Path = DOCS) -> list[Path]:
    return sorted(under.rglob("*.md"))


def blocks(text: str) -> list[Block]:
    """The fenced blocks of a page, in order."""
    found: list[Block] = []
    lines = text.split("\n")
    at = 0
    while at < len(lines):
        opening = _FENCE.match(lines[at])
        at += 1
        if opening is None:
            continue
        start = at
        while at < len(lines) and lines[at].strip() != opening[1]:
            at += 1
        if at == len(lines):
            raise ValueError(f"the block of line {start} has no end")
        found.append(Block(start + 1, opening[2], "\n".join(lines[start:at]) + "\n"))
        at += 1
    return found


def prose(text: str) -> str:
    """The page without its blocks and code, line for line: what is left may hold links and headings."""
    kept, fence = [], ""
    for line in text.split("\n"):
        mark = _FENCE.match(line)
        if fence:
            fence = "" if line.strip() == fence else fence
            kept.append("")
        elif mark is not None:
            fence = mark[1]
            kept.append("")
        else:
            kept.append("" if line.startswith("    ") else re.sub(r"`[^`]*`", "code", line))
    return "\n".join(kept)


def snippets(text: str) -> list[tuple[str, str | None]]:
    """The files that a page takes in, each with the section of it."""
    return [(m[2], m[3]) for line in text.split("\n") if (m := _SNIPPET.match(line)) is not None]


def whole(path: Path) -> str:
    """A page with the files that it takes in."""
    lines: list[str] = []
    for line in path.read_text().split("\n"):
        taken = _SNIPPET.match(line)
        lines.append(line if taken is None else section(ROOT / taken[2], taken[3]))
    return "\n".join(lines)


def section(path: Path, name: str | None) -> str:
    """A file, or what lies in it between the marks of a section. Raises ValueError where the marks are not there."""
    text = path.read_text()
    if name is None:
        return text
    found = re.search(rf"--8<-- \[start:{name}\].*?\n(.*?)^.*--8<-- \[end:{name}\]", text, re.DOTALL | re.MULTILINE)
    if found is None:
        raise ValueError(f"{path.name} has no section {name!r}")
    return found[1]


def links(text: str) -> list[str]:
    """The addresses of the page's links and pictures, those of other sites left out."""
    found = [match[1] for match in _LINK.finditer(prose(text))]
    return [address for address in found if not re.match(r"[a-z]+:", address)]


def anchors(text: str) -> set[str]:
    """The anchors of a page's headings, as the site makes them."""
    found = set()
    for line in re.sub(r"`([^`]*)`", r"\1", text).split("\n"):
        heading = re.match(r"#{1,6} (.+)", line)
        if heading is not None:
            plain = re.sub(r"[^\w\s-]", "", heading[1].encode("ascii", "ignore").decode()).strip().lower()
            found.add(re.sub(r"[-\s]+", "-", plain))
    return found
