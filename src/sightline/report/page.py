"""A report as one page: its data, its script and its styles in one file, and a policy that lets nothing else in."""

from __future__ import annotations

import json
from base64 import b64encode
from hashlib import sha256
from html import escape
from importlib.resources import files
from typing import TYPE_CHECKING

from ..errors import SpecError

if TYPE_CHECKING:
    from .model import Report

__all__ = ["LIMIT", "page"]

LIMIT = 5_000_000
"""Bytes. A report of a document of 8,000 tokens stays below this."""


def page(report: Report) -> str:
    """The page. Texts are data in it, never markup: in JSON, where every "<" is written as an escape.

    The Content-Security-Policy allows this script and these styles, by their hashes, and pictures that the page draws
    itself; no request leaves it.
    """
    static = files("sightline.report") / "static"
    script, style = (_safe((static / name).read_text("utf-8"), name) for name in ("report.js", "report.css"))
    policy = "; ".join(
        (
            "default-src 'none'",
            f"script-src '{_hash(script)}'",
            f"style-src '{_hash(style)}'",
            "img-src data: blob:",
            "base-uri 'none'",
            "form-action 'none'",
        )
    )
    return "\n".join(
        (
            "<!doctype html>",
            '<html lang="en">',
            "<head>",
            '<meta charset="utf-8">',
            f'<meta http-equiv="Content-Security-Policy" content="{escape(policy)}">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            '<meta name="referrer" content="no-referrer">',
            f"<title>{escape(report.title)} – Sightline</title>",
            f"<style>{style}</style>",
            "</head>",
            "<body>",
            '<div id="app"></div>',
            "<noscript>This report is drawn by a script that it carries. Please allow scripts.</noscript>",
            f'<script type="application/json" id="report">{_json(report)}</script>',
            f'<script type="module">{script}</script>',
            "</body>",
            "</html>",
            "",
        )
    )


def _json(report: Report) -> str:
    """JSON that ends no script and begins no comment: "<" and the like occur in strings alone, and are escaped."""
    text = json.dumps(report.to_dict(), ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text


def _hash(text: str) -> str:
    return f"sha256-{b64encode(sha256(text.encode()).digest()).decode()}"


def _safe(text: str, name: str) -> str:
    """What was built, if it can stand between two tags as it is."""
    # "<!--" alone, which the script's templates hold, is harmless: it matters only before another "<script".
    if any(mark in text.lower() for mark in ("<script", "</script", "</style")):
        raise SpecError(f"{name} holds what would end it inside a page. Build it again: `npm run build` in web/.")
    return text
