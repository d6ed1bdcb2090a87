"""Partials: what some keys contribute, merged over any cut of the keys, finish to what reduce gives."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import Tensor

from sightline import (
    Alibi,
    AttentionMatrix,
    BlockMass,
    Causal,
    Entropy,
    LogSumExp,
    Peak,
    Received,
    RowMoment,
    SegmentMass,
    SpecError,
    TopK,
    Unsupported,
    Window,
    merge,
)

B, H, HK, N, M, D = 2, 4, 2, 4, 9, 3


def randn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed + sum(shape)), dtype=torch.float64)


V, SINKS = randn(B, HK, M, 2), randn(H)
OPTIONS: dict[str, dict[str, Any]] = {
    "plain": {},
    "causal": {"mask": Causal()},
    "a window, a bias and a softcap": {"mask": Causal() & Window(3), "bias": Alibi(randn(H).abs()), "softcap": 2.0},
}


def whole(**given: Any) -> AttentionMatrix:
    return AttentionMatrix(randn(B, H, N, D), randn(B, HK, M, D), **given)


def folds() -> dict[str, Any]:
    ids = torch.arange(M).expand(B, M) % 3
    return {
        "entropy": Entropy(), "lse": LogSumExp(), "peak": Peak(), "top": TopK(3),
        "moment": RowMoment(V), "segments": SegmentMass(ids, 3),
    }  # fmt: skip


def equal(made: dict[str, Any], wanted: dict[str, Any]) -> None:
    assert list(made) == list(wanted)
    for name, value in wanted.items():
        torch.testing.assert_close(made[name], value, rtol=1e-12, atol=1e-13, msg=lambda m, name=name: f"{name}: {m}")


@pytest.mark.parametrize("name", list(OPTIONS))
def test_the_part_of_all_keys_finishes_to_reduce(name: str) -> None:
    matrix = whole(**OPTIONS[name])
    equal(matrix.partial(folds()).finish(), matrix.reduce(folds()))


@pytest.mark.parametrize("name", list(OPTIONS))
@pytest.mark.parametrize("cuts", [(0, 4, M), (0, 1, 2, 3, M), (0, 8, M), tuple(range(M + 1))], ids=str)
def test_any_cut_of_the_keys_merges_to_reduce_in_any_order(name: str, cuts: tuple[int, ...]) -> None:
    matrix = whole(**OPTIONS[name])
    parts = [matrix.partial(folds(), j0, j1) for j0, j1 in pairwise(cuts)]
    for order in (parts, parts[::-1]):
        merged = order[0]
        for other in order[1:]:
            merged = merge(merged, other)
        equal(merged.finish(), matrix.reduce(folds()))


def test_sinks_are_given_once_at_the_end() -> None:
    matrix = whole(mask=Causal(), sinks=SINKS)
    merged = merge(matrix.partial(folds(), 0, 5), matrix.partial(folds(), 5))
    equal(merged.finish(SINKS), matrix.reduce(folds()))


def test_a_part_that_no_row_sees_changes_nothing() -> None:
    matrix = whole(mask=Window(0, 0))  # queries stand at positions 5 … 8
    seen, unseen = matrix.partial(folds(), 5, M), matrix.partial(folds(), 0, 5)
    assert (unseen.mass == 0).all()
    assert (unseen.reference == -torch.inf).all()
    for merged in (merge(seen, unseen), merge(unseen, seen)):
        equal(merged.finish(), matrix.reduce(folds()))


def test_a_part_alone_that_no_row_sees_finishes_to_the_results_of_empty_rows() -> None:
    made = whole(mask=Window(0, 0)).partial(folds(), 0, 5).finish(SINKS)
    assert (made["entropy"] == 0).all()
    assert (made["lse"] == -torch.inf).all()
    assert (made["peak"].value == 0).all()
    assert (made["peak"].key == -1).all()
    assert (made["top"] == -1).all()
    assert (made["moment"] == 0).all()
    assert (made["segments"] == 0).all()


def test_merging_leaves_the_parts_as_they_were() -> None:
    matrix = whole()
    a, b = matrix.partial(folds(), 0, 4), matrix.partial(folds(), 4)
    before = a.finish()
    merge(a, b)
    equal(a.finish(), before)


def test_partials_are_float32_at_least() -> None:
    q, k = randn(1, 1, 3, 2).bfloat16(), randn(1, 1, 4, 2).bfloat16()
    made = AttentionMatrix(q, k).partial({"it": Entropy()})
    assert made.mass.dtype == made.reference.dtype == made.states["it"][0].dtype == torch.float32


def test_partials_carry_no_gradient() -> None:
    q, k = randn(1, 1, 3, 2).requires_grad_(), randn(1, 1, 4, 2).requires_grad_()
    made = AttentionMatrix(q, k).partial({"it": Entropy(), "f": RowMoment(randn(4, 2))})
    assert not any(t.requires_grad for state in made.states.values() for t in state)


@pytest.mark.parametrize("reduction", [Received(), BlockMass(2, 2)])
def test_reductions_that_cross_rows_are_refused_by_name(reduction: Any) -> None:
    with pytest.raises(
        Unsupported, match=rf"'it', a {type(reduction).__name__}, which needs rows that are settled.*reduce\(\)"
    ):
        whole().partial({"entropy": Entropy(), "it": reduction})


def test_a_class_in_place_of_a_reduction_is_refused_as_one() -> None:
    with pytest.raises(SpecError, match=r"'it' must be a Reduction.*Write Entropy\(\)"):
        whole().partial({"it": Entropy})  # type: ignore[dict-item]


@pytest.mark.parametrize(("j0", "j1"), [(3, 3), (4, 2), (-1, 3), (0, M + 1)])
def test_keys_that_are_not_there_are_refused(j0: int, j1: int) -> None:
    with pytest.raises(SpecError, match=rf"needs keys 0 ≤ j0 < j1 ≤ {M}; it got {j0}:{j1}"):
        whole().partial({"it": Entropy()}, j0, j1)


def test_partials_of_different_reductions_do_not_merge() -> None:
    matrix = whole()
    a = matrix.partial({"it": Entropy()}, 0, 4)
    for other in ({"it": Peak()}, {"other": Entropy()}, {}, {"it": Entropy(), "more": Peak()}):
        with pytest.raises(SpecError, match="merge needs partials of the same reductions"):
            merge(a, matrix.partial(other, 4))


def test_partials_of_different_top_k_do_not_merge() -> None:
    matrix = whole()
    with pytest.raises(SpecError, match="merge needs partials of the same reductions"):
        merge(matrix.partial({"it": TopK(2)}, 0, 4), matrix.partial({"it": TopK(3)}, 4))
