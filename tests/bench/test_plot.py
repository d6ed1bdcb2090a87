"""The picture is a PNG of the size that is meant, whatever there is to draw."""

from __future__ import annotations

import struct
import sys

import pytest

from sightline.bench import CONTENDERS, Figures, Point, Settings, check_drawing, draw
from sightline.bench.plot import DPI, SIZE
from sightline.errors import Unsupported


def figures(*points: Point) -> Figures:
    tokens = tuple({p.tokens for p in points})
    return Figures(Settings(tokens=tokens), {"cpu": "an abacus"}, 2, 10**9, points)


def measured(tokens: int, contender: str, bytes: int | None) -> Point:
    return Point(tokens, contender, "measured", "", [tokens / 1e6], [tokens / 1e6], 1, bytes)


RUNS = {
    "all": [measured(n, name, n * 1000) for n in (512, 1024, 2048) for name in CONTENDERS],
    "one length": [measured(512, name, 1000) for name in CONTENDERS],
    "memory not known": [measured(n, "sdpa", None) for n in (512, 1024)],
    "growth of nothing": [measured(n, "sdpa", 0) for n in (512, 1024)],
    "eager stops": [
        *(measured(512, name, 1000) for name in CONTENDERS),
        Point(1024, "eager", "left out", "would need 9 GB", needs=9 * 10**9),
        measured(1024, "sightline", 2000),
    ],
    "nobody": [Point(512, name, "failed", "was killed") for name in CONTENDERS],
}


@pytest.mark.parametrize("run", RUNS)
def test_it_is_a_png_of_its_size(run: str) -> None:
    image = draw(figures(*RUNS[run]))
    assert image.startswith(b"\x89PNG\r\n\x1a\n")
    assert image.endswith(b"IEND\xaeB`\x82")
    assert struct.unpack(">II", image[16:24]) == tuple(round(inches * DPI) for inches in SIZE)


def test_without_matplotlib_it_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(Unsupported, match=r'pip install "sightline\[plot\]"'):
        check_drawing()
