"""A report as one page: its data, its script and its styles in one file, and a policy that lets nothing else in."""

from __future__ import annotations

import json
from importlib.resources import files
from typing import TYPE_CHECKING

from .._page import whole

if TYPE_CHECKING:
    from .model import Report

__all__ = ["LIMIT", "page"]

LIMIT = 5_000_000
"""Bytes. A report of a document of 8,000 tokens stays below this."""


def page(report: Report) -> str:
    """The page. Texts are data in it, never markup: in JSON, where every "<" is written as an escape."""
    static = files("sightline.report") / "static"
    script, style = ((static / name).read_text("utf-8") for name in ("report.js", "report.css"))
    body = (
        '<div id="app"></div>\n'
        "<noscript>This report is drawn by a script that it carries. Please allow scripts.</noscript>\n"
        f'<script type="application/json" id="report">{_json(report)}</script>'
    )
    return whole(f"{report.title} – Sightline", script, style, body)


def _json(report: Report) -> str:
    """JSON that ends no script and begins no comment: "<" and the like occur in strings alone, and are escaped."""
    text = json.dumps(report.to_dict(), ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text
