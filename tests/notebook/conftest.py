from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from viewer import worlds

Answers = list[tuple[dict[str, Any], bytes]]


@pytest.fixture(scope="session")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """700 tokens, two layers of two heads, maps of 32 × 32 blocks; a word of the text looks like a script."""
    return worlds.recorded(tmp_path_factory.mktemp("traces") / "small.safetensors", 700, maps=32)


@pytest.fixture
def told() -> Callable[[Any], tuple[Callable[..., Answers], Answers]]:
    """Talks to a widget as a front end does: a message in, and all that was sent out so far."""
    pytest.importorskip("anywidget", reason="anywidget is not installed: pip install sightline[notebook]")

    def of(widget: Any) -> tuple[Callable[..., Answers], Answers]:
        sent: Answers = []
        widget.send = lambda content, buffers: sent.append((content, bytes(buffers[0])))

        def tell(**content: Any) -> Answers:
            widget._handle_custom_msg(content, [])
            return sent

        return tell, sent

    return of
