"""Reports on rows made by hand, whose measures are known."""

from __future__ import annotations

from typing import Any

import pytest

from sightline.bench.focus.reports import RANDOM, SHIPPED, Mean, aopc_sizes, order, report

DROPS = [0.5, 4.0, 2.0, 0.0]


def row(name: str, shown: list[int], drops: list[float] = DROPS, **more: Any) -> dict[str, Any]:
    """An item of four sentences, of which the pipeline shows some."""
    return {
        "tier": "A",
        "name": name,
        "log_prob": -1.0,
        "scores": {"good": [0, 9, 5, 1], "tied": [1, 1, 1, 1], "leave-one-out": drops},
        "ranked": [[i, 1.0 - at / 10] for at, i in enumerate(shown)],
        "shown": [[i, drops[i]] for i in shown],
        "costs": {"prefill": [100, 2.0], "ranking": [30, 1.0]},
        **more,
    }


def test_measures_of_one_item_by_hand() -> None:
    methods = report("A", [row("one", [1, 2, 0])]).methods
    assert methods["good"]["hit@1"].mean == 1
    assert methods["tied"]["hit@1"].mean == 0
    assert methods["tied"]["MRR"].mean == 1 / 2  # ties go to the earlier sentence, and the best is the second
    assert methods["tied"]["drop"].mean == 0.5 / 4
    assert methods[SHIPPED]["drop"].mean == 1
    assert "LDS" not in methods["good"]
    assert "top 3" not in methods["good"]


def test_sets_give_the_drop_of_three_and_the_aopc() -> None:
    # log p = −1 − Σ drops of what is missing: removal is additive here.
    everything = range(4)
    subsets = [[i for i in everything if bits >> i & 1] for bits in range(16)]
    sets = [[kept, -1 - sum(DROPS[i] for i in everything if i not in kept)] for kept in subsets]
    methods = report("A", [row("one", [1, 2, 0], sets=sets, **{"held out": sets})]).methods
    assert methods["good"]["top 3"].mean == pytest.approx(6 / 6.5)  # it takes 1, 2, 3; leave-one-out 1, 2, 0
    assert aopc_sizes(4) == [1, 1, 2]
    assert methods["good"]["comprehensiveness"].mean == pytest.approx((4 + 4 + 6) / 3)
    assert methods["good"]["sufficiency"].mean == pytest.approx((2.5 + 2.5 + 0.5) / 3)
    assert methods["leave-one-out"]["LDS"].mean == pytest.approx(1)
    assert methods["tied"]["LDS"].mean < methods["good"]["LDS"].mean < 1


def test_of_chance_only_what_needs_no_removals_is_told() -> None:
    # Sets are measured for the orders of the methods; chance meets with most of them here.
    subsets = [[i for i in range(4) if bits >> i & 1] for bits in range(16)]
    sets = [[kept, -1 - sum(DROPS[i] for i in range(4) if i not in kept)] for kept in subsets if kept != [1]]
    methods = report("A", [row("one", [1, 2, 0], sets=sets)]).methods
    assert methods["good"]["top 3"].mean == pytest.approx(6 / 6.5)
    assert set(methods[RANDOM]) == {"hit@1", "MRR", "drop"}


def test_items_in_which_no_sentence_matters_do_not_count() -> None:
    found = report("A", [row("one", [1]), row("two", [1], drops=[0.9, 0.1, -3.0, 0.0])])
    assert (found.tried, found.counted) == (2, 1)
    assert found.costs["ranking"][0].mean == 0.3
    assert found.costs["ranking"][1].mean == 0.5
    nothing = report("F", [row("two", [1], drops=[0.9, 0.1, -3.0, 0.0])])
    assert nothing.counted == 0
    assert nothing.methods == {}
    assert nothing.passed is None


def test_a_pipeline_passes_only_above_chance() -> None:
    assert report("A", [row(f"{i}", [1, 2, 0]) for i in range(12)]).passed is True
    # The negative control: what shows another sentence first each time finds the best as often as chance does.
    lucky = report("A", [row(f"{i}", [i % 4, (i + 1) % 4]) for i in range(12)])
    assert lucky.methods[SHIPPED]["hit@1"].mean == 0.25
    assert lucky.methods[RANDOM]["hit@1"].mean == pytest.approx(0.25, abs=0.1)
    assert lucky.passed is False


def test_heads_are_judged_on_items_that_did_not_choose_them() -> None:
    # Head 0 is right in even items, head 1 in odd ones: whoever chooses on the other half chooses wrong, 8 of 20.
    def heads(right: bool) -> list[list[float]]:
        return [[0.0, 1.0, 0.0, 0.0] if right == (h < 8) else [1.0, 0.0, 0.0, 0.0] for h in range(20)]

    rows = [row(f"{i}", [1], heads=heads(i % 2 == 0)) for i in range(6)]
    assert report("A", rows).methods["8 heads, chosen"]["hit@1"].mean == 0
    same = [row(f"{i}", [1], heads=heads(True)) for i in range(6)]
    assert report("A", same).methods["8 heads, chosen"]["hit@1"].mean == 1


def test_a_sentence_without_a_score_is_last_and_a_drop_that_was_not_measured_is_none() -> None:
    assert order([None, 1.0, None, 2.0]) == [3, 1, 0, 2]
    partly = row("one", [1], drops=[None, 4.0, 2.0, None])  # type: ignore[list-item]
    partly["shown"] = [[1, 4.0]]
    assert report("A", [partly]).methods["tied"]["drop"].mean == 0


def test_intervals_hold_the_mean_and_narrow_with_more_items() -> None:
    few, many = Mean.of([0.0, 1.0] * 5), Mean.of([0.0, 1.0] * 500)
    assert few.low < few.mean < few.high
    assert many.high - many.low == pytest.approx(2 * 1.96 * 0.5 / 1000**0.5, rel=0.15)
    assert (few.n, Mean.of([1.0] * 4).low) == (10, 1.0)
