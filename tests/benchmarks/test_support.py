"""Which passages support is asked of, and that answers on some do not pass for answers on others."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest

from benchmarks.focus import support

WORLD = ["What is the capital of France?", "Who wrote Hamlet?"]


def squad(folder: Path, sizes: list[int]) -> Path:
    """A passage of five sentences for each size, in characters; its second sentence alone tells the year."""
    path = folder / "squad.jsonl.gz"
    with gzip.open(path, "wt") as file:
        for at, size in enumerate(sizes):
            passage = f"The mill number {at} stands by the river. It was built in 1850. The wheel still turns. "
            passage += "A road leads to it. People like "
            passage += "a" * (size - len(passage) - 1) + "."
            query = f"Background: {passage}\nQuestion: When was it built?\nAnswer:"
            file.write(json.dumps({"doc": {"id": f"{at:03}", "query": query, "answers_text": ["1850"]}}) + "\n")
    return path


def test_chosen_passages_are_short_and_fresh_ones_longer(tmp_path: Path) -> None:
    path = squad(tmp_path, [300, support.LENGTH, support.LENGTH + 1, support.LONGER, support.LONGER + 1])
    chosen, fresh = (support.items(path, WORLD, part) for part in ("chosen", "fresh"))
    assert sorted(len(item.passage) for item in chosen) == [300, support.LENGTH]
    assert sorted(len(item.passage) for item in fresh) == [support.LENGTH + 1, support.LONGER]
    for item in chosen + fresh:
        assert item.gold == ("1850",)
        assert "1850" in item.passage
        assert "1850" not in item.removed
        assert item.removed.startswith("The mill number")
    assert {item.world for item in chosen} == set(WORLD)


def test_parts_that_are_none_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="'chosen' or 'fresh'; got 'new'"):
        support.items(squad(tmp_path, [300]), WORLD, "new")


@pytest.mark.parametrize("entry", [{"item": 0, "rows": []}, {"item": 0, "part": "fresh", "rows": []}])
def test_answers_on_other_passages_are_not_gone_on_with(
    tmp_path: Path, entry: dict[str, object], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(support.models, "load", lambda name: (None, None))
    rows, world = tmp_path / "rows.jsonl", tmp_path / "world.txt"
    rows.write_text(json.dumps(entry) + "\n")
    world.write_text("\n".join(WORLD))
    with pytest.raises(ValueError, match="name another file"):
        support.main(str(squad(tmp_path, [300])), str(world), str(rows), "any", "chosen")


def test_wilson_intervals_hold_the_shares_whose_deviation_is_z() -> None:
    for hits, n in ((0, 10), (5, 10), (12, 427)):  # |p' - p| = z sqrt(p (1 - p) / n) at both ends (Wilson 1927)
        for p in support.wilson(hits, n):
            assert (hits / n - p) ** 2 == pytest.approx(1.959964**2 * p * (1 - p) / n, abs=1e-12)
