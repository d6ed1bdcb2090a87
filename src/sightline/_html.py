"""Values as small pieces of HTML, for notebooks: text that is text, and a matrix as a picture. Nothing runs in them.

Colours are those of the page around them, light or dark; evidence has one hue, a line under it and a number.
"""

from __future__ import annotations

import zlib
from base64 import b64encode
from collections.abc import Iterable, Sequence
from html import escape
from math import log10
from struct import pack

__all__ = ["bars", "box", "picture", "text"]

_HUE = "200,112,16"


def text(content: str, style: str = "") -> str:
    """A paragraph that shows the content as it is: tags in it are letters."""
    return f'<p style="margin:.3em 0;white-space:pre-wrap;{style}">{escape(content)}</p>'


def bars(rows: Iterable[tuple[str, float, Sequence[str]]]) -> str:
    """Evidence: texts with their strength, 0 … 1, and what is said of each."""
    items = "".join(
        f'<li style="margin:.5em 0"><span style="background:rgba({_HUE},{0.08 + 0.3 * strength:.2f});'
        f'border-bottom:2px {_line(strength)} rgb({_HUE})">{escape(content)}</span><br>'
        f'<small style="opacity:.8">{escape(" · ".join(said))}</small></li>'
        for content, strength, said in rows
    )
    return f'<ol style="margin:.3em 0;padding-left:1.8em">{items}</ol>'


def picture(shares: Sequence[Sequence[float]], described: str, *, decades: float = 4.0) -> str:
    """Rows of numbers as a picture, on a logarithmic scale below their largest. `described` stands for it in words."""
    most = max((value for row in shares for value in row), default=0.0)
    rows = [bytes(_level(value, most, decades) for value in row) for row in shares]
    data = b64encode(_png(rows)).decode()
    return (
        f'<img alt="{escape(described)}" title="{escape(described)}" src="data:image/png;base64,{data}" '
        f'style="width:{min(512, 6 * len(shares[0]))}px;image-rendering:pixelated;border:1px solid #8886">'
    )


def box(*parts: str) -> str:
    """Parts one below the other."""
    return f'<div style="max-width:60em;line-height:1.5">{"".join(parts)}</div>'


def _line(strength: float) -> str:
    return "double" if strength > 2 / 3 else "solid" if strength > 1 / 3 else "dashed" if strength > 0.1 else "dotted"


def _level(value: float, most: float, decades: float) -> int:
    """0 for nothing, 255 for the largest."""
    if not (value > 0 and most > 0):
        return 0
    return round(255 * min(1.0, max(0.0, 1 + log10(value / most) / decades)))


def _png(rows: Sequence[bytes]) -> bytes:
    """A picture with a palette from transparent to the hue of evidence (PNG, ISO/IEC 15948: colour type 3)."""
    hue = tuple(map(int, _HUE.split(",")))
    parts = (
        (b"IHDR", pack(">IIBBBBB", len(rows[0]), len(rows), 8, 3, 0, 0, 0)),
        (b"PLTE", bytes(hue) * 256),
        (b"tRNS", bytes(range(256))),
        (b"IDAT", zlib.compress(b"".join(b"\0" + row for row in rows), 9)),
        (b"IEND", b""),
    )
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        pack(">I", len(data)) + kind + data + pack(">I", zlib.crc32(kind + data)) for kind, data in parts
    )
