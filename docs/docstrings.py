"""Sightline's docstrings, which are plain text, as Markdown: examples become code, and each field gets its line.

A griffe extension; `make docs` loads it. Docstrings are written to be read in an editor: lines such as
"offsets: int64 [b, t, 2], …" begin a field, a line that begins with >>> an example, and what is indented is a formula.
"""

from __future__ import annotations

import re
from typing import Any

import griffe

_FIELD = re.compile(r"[a-z_]\w*(?:(?:, | and )\w+)*: \S")
"""A line that begins the description of one argument, field or several."""


class Plain(griffe.Extension):
    """Changes each docstring as it is loaded."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        if obj.docstring is not None:
            obj.docstring.value = as_markdown(obj.docstring.value)


def as_markdown(text: str) -> str:
    """The docstring as Markdown that reads as the plain text does.

    >>> print(as_markdown("q: the queries.\\nk: the keys."))
    q: the queries.<br>
    k: the keys.
    """
    lines = text.split("\n")
    done: list[str] = []
    example = False
    for at, line in enumerate(lines):
        starts = line.startswith(">>> ")
        if starts and not example:
            if done and done[-1].strip():
                done.append("")
            done.append("```pycon")
            example = True
        elif example and not line.strip():
            done.append("```")
            example = False
        if not example and at and _FIELD.match(line) and done[-1].strip() and not done[-1].startswith(("    ", "- ")):
            done[-1] += "<br>"
        # Markdown takes an indented line for a formula only after a blank one.
        if not example and line.startswith("    ") and done and done[-1].strip() and not done[-1].startswith("    "):
            done.append("")
        done.append(line)
    if example:
        done.append("```")
    return "\n".join(done)
