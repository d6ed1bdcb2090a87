"""A page that is one text: its script and its styles are in it, and a policy that lets nothing else in."""

from __future__ import annotations

from base64 import b64encode
from hashlib import sha256
from html import escape

from .errors import SpecError

__all__ = ["whole"]


def whole(title: str, script: str, style: str, body: str) -> str:
    """The page. `body` is markup; the title is text, and "<" in it is a letter.

    The Content-Security-Policy allows this script and these styles, by their hashes, and pictures that the page draws
    itself; no request leaves it. Raises SpecError where script or style hold what would end them inside a page.
    """
    if any(mark in text.lower() for text in (script, style) for mark in ("<script", "</script", "</style")):
        # "<!--" alone, which the scripts' templates hold, is harmless: it matters only before another "<script".
        raise SpecError(
            "a page was asked for; its script or style holds what would end it inside a page. "
            "Build them again: `npm run build` in web/."
        )
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
            f"<title>{escape(title)}</title>",
            f"<style>{style}</style>",
            "</head>",
            "<body>",
            body,
            f'<script type="module">{script}</script>',
            "</body>",
            "</html>",
            "",
        )
    )


def _hash(text: str) -> str:
    return f"sha256-{b64encode(sha256(text.encode()).digest()).decode()}"
