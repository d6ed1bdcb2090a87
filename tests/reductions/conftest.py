"""Every reduction is evaluated three ways: by its definition, tiled, and tiled with one head and one row at a time."""

from __future__ import annotations

from typing import Any

import pytest

from reductions.example import RESTRICTIONS
from sightline.backends import _strips


@pytest.fixture(params=["dense", "tiled", "tiled, row by row"])
def backend(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    if request.param == "tiled, row by row":
        monkeypatch.setattr(_strips, "STRIP", 1)
        monkeypatch.setattr(_strips, "MOST_ROWS", 1)
    return request.param.split(",")[0]


@pytest.fixture(params=list(RESTRICTIONS))
def restriction(request: pytest.FixtureRequest) -> dict[str, Any]:
    return RESTRICTIONS[request.param]
