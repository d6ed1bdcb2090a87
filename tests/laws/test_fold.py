"""Law 1, fold: any cut of the keys, merged in any order and grouping, finishes to the reduction of all of them."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import sightline as sl
from laws.worlds import World, assert_alike, worlds
from sightline.partial import Partial


def cut(world: World, data: st.DataObject) -> list[Partial]:
    """The partials of some cut of the keys, in key order."""
    m = world.dims.m
    inner = data.draw(st.sets(st.integers(1, m - 1))) if m > 1 else set()
    edges = [0, *sorted(inner), m]
    folds = world.folds()
    return [world.matrix.partial(folds, j0, j1) for j0, j1 in pairwise(edges)]


@given(worlds(), st.data())
def test_any_cut_merged_in_any_order_and_grouping_is_the_whole(world: World, data: st.DataObject) -> None:
    folds = world.folds()
    m = world.dims.m
    inner = data.draw(st.sets(st.integers(1, m - 1))) if m > 1 else set()
    edges = [0, *sorted(inner), m]
    parts = [world.matrix.partial(folds, j0, j1) for j0, j1 in pairwise(edges)]
    while len(parts) > 1:
        at = data.draw(st.permutations(range(len(parts))))[:2]
        merged = sl.merge(parts[at[0]], parts[at[1]])
        parts = [part for place, part in enumerate(parts) if place not in at] + [merged]
    assert_alike(parts[0].finish(world.sinks), world.matrix.reduce(folds))


@given(worlds(), st.data())
def test_merge_is_commutative_to_the_bit(world: World, data: st.DataObject) -> None:
    parts = cut(world, data)
    a, b = parts[0], parts[-1]
    left, right = sl.merge(a, b), sl.merge(b, a)
    assert torch.equal(left.reference, right.reference)
    assert torch.equal(left.mass, right.mass)
    for name, state in left.states.items():
        # Keys of rows that have none stand for nothing; what they finish to is compared above.
        live = left.reference > -torch.inf
        for t, other in zip(state, right.states[name], strict=True):
            assert torch.equal(t[live], other[live]), name


@given(worlds(), st.data())
def test_merge_is_associative(world: World, data: st.DataObject) -> None:
    parts = (cut(world, data) * 3)[:3] if world.dims.m < 3 else cut(world, data)
    for a, b, c in zip(parts, parts[1:], parts[2:], strict=False):
        left, right = sl.merge(sl.merge(a, b), c), sl.merge(a, sl.merge(b, c))
        numbers = {name for name in left.folds if name not in ("peak", "top")}
        ends = left.finish(world.sinks), right.finish(world.sinks)
        assert_alike(*({name: end[name] for name in numbers} for end in ends))
        if world.dims.m >= 3:  # the same part twice would name a key twice
            assert_alike(*ends)


@given(worlds(), st.floats(0, 30), st.floats(0, 30))
def test_a_shift_of_the_reference_changes_no_result_and_shifts_add_up(world: World, d: float, more: float) -> None:
    whole = world.matrix.partial(world.folds())
    once = whole.shift(whole.reference + d)
    assert_alike(once.finish(world.sinks), whole.finish(world.sinks))
    twice = once.shift(once.reference + more)
    directly = whole.shift(twice.reference)
    assert torch.allclose(twice.mass, directly.mass, rtol=1e-12, atol=0)
    for name, state in twice.states.items():
        for t, other in zip(state, directly.states[name], strict=True):
            assert torch.allclose(t, other, rtol=1e-9, atol=1e-12), name


@given(worlds())
def test_a_shift_by_nothing_changes_no_bit(world: World) -> None:
    whole = world.matrix.partial(world.folds())
    same = whole.shift(whole.reference)
    assert torch.equal(same.mass, whole.mass)
    for name, state in whole.states.items():
        for t, other in zip(state, same.states[name], strict=True):
            assert torch.equal(t, other), name


@given(worlds(sinks=False), st.data())
def test_a_part_without_keys_is_neutral(world: World, data: st.DataObject) -> None:
    folds = world.folds()
    nobody = sl.DenseMask(torch.zeros(1, dtype=torch.bool))
    none = sl.AttentionMatrix(world.q, world.k, mask=nobody).partial(folds)
    whole = world.matrix.partial(folds)
    for merged in (sl.merge(whole, none), sl.merge(none, whole)):
        assert_alike(merged.finish(), whole.finish())


@given(worlds(sinks=False), st.integers(2, 5))
def test_equal_scores_choose_the_first_keys_whatever_the_cut(world: World, k: int) -> None:
    m = world.dims.m
    matrix = sl.AttentionMatrix(torch.zeros_like(world.q), world.k)
    parts = [matrix.partial({"top": sl.TopK(k), "peak": sl.Peak()}, j, j + 1) for j in reversed(range(m))]
    merged = parts[0]
    for part in parts[1:]:
        merged = sl.merge(merged, part)
    found = merged.finish()
    assert (found["peak"].key == 0).all()
    assert (found["top"] == torch.tensor([j if j < m else -1 for j in range(k)])).all()


def test_partials_of_different_reductions_do_not_merge() -> None:
    matrix = sl.AttentionMatrix(torch.ones(1, 1, 2, 4), torch.ones(1, 1, 3, 4))
    one, other = matrix.partial({"a": sl.Entropy()}, 0, 2), matrix.partial({"a": sl.Peak()}, 2, 3)
    with pytest.raises(sl.SpecError, match="same reductions"):
        sl.merge(one, other)
