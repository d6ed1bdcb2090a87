"""relevance reduces R = P ∘ (dO vᵀ); rollout carries weights from the last layer to the first."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from sightline import (
    AttentionMatrix,
    BlockMass,
    BlockMax,
    Causal,
    ColumnMax,
    ColumnMoment,
    Entries,
    Entropy,
    LogSumExp,
    Peak,
    Received,
    RowMoment,
    Rows,
    SegmentMass,
    ShapeError,
    SpecError,
    TopK,
    Unsupported,
    Window,
    relevance,
    rollout,
)

B, H, HK, N, M, D, DV = 2, 4, 2, 5, 7, 3, 2


def randn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed + sum(shape)), dtype=torch.float64)


Q, K, V, G = randn(B, H, N, D), randn(B, HK, M, D), randn(B, HK, M, DV), randn(B, H, N, DV, seed=1)


def P(backend: str = "auto", **given: Any) -> AttentionMatrix:
    return AttentionMatrix(Q, K, mask=Causal(), backend=backend, **given)


def field(part: str) -> Tensor:
    """R by its formula: [b, h, n, m]."""
    r = P("dense").dense() * (G @ V.repeat_interleave(H // HK, 1).mT)
    return {"signed": r, "positive": r.relu(), "absolute": r.abs()}[part]


def near(actual: Tensor, wanted: Tensor) -> None:
    torch.testing.assert_close(actual, wanted, rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("part", ["signed", "positive", "absolute"])
@pytest.mark.parametrize("backend", ["tiled", "dense"])
def test_every_reduction_of_settled_weights_reduces_the_field(backend: str, part: Any) -> None:
    w, keys, r = randn(B, 1, N, 2), torch.arange(N * 2).reshape(N, 2) % M, field(part)
    made = relevance(
        P(backend), V, G,
        {
            "received": Received(), "columns": ColumnMoment(w), "rows": Rows(torch.tensor([3, 0])),
            "entries": Entries(keys), "blocks": BlockMass(2, 3),
        },
        part=part,
    )  # fmt: skip
    near(made["received"], r.sum(-2))
    near(made["columns"], r.mT @ w)
    near(made["rows"], r[:, :, [3, 0]])
    near(made["entries"], r.gather(-1, keys.expand(B, H, N, 2)))
    near(made["blocks"], pooled(r))


def pooled(r: Tensor) -> Tensor:
    by_key = torch.stack([x.sum(-1) for x in r.split(3, -1)], -1)
    return torch.stack([x.sum(-2) for x in by_key.split(2, -2)], -2)


MAXIMA = {"columns": ColumnMax(), "each": BlockMax(1, 1), "blocks": BlockMax(2, 3), "all": BlockMax(9, 1)}


def check_maxima(made: dict[str, Tensor], r: Tensor) -> None:
    near(made["columns"], r.amax(-2))
    near(made["each"], r)
    by_key = torch.stack([x.amax(-1) for x in r.split(3, -1)], -1)
    near(made["blocks"], torch.stack([x.amax(-2) for x in by_key.split(2, -2)], -2))
    near(made["all"], r.amax(-2, keepdim=True))


@pytest.mark.parametrize("part", ["positive", "absolute"])
@pytest.mark.parametrize("backend", ["tiled", "dense"])
def test_the_largest_of_a_field_are_its_maxima(backend: str, part: Any) -> None:
    check_maxima(relevance(P(backend), V, G, MAXIMA, part=part), field(part))


@pytest.mark.parametrize("mask", [None, Causal(), Causal() & Window(2)], ids=["all keys", "causal", "window"])
@pytest.mark.parametrize("backend", ["tiled", "dense"])
def test_the_largest_of_a_signed_field_may_be_negative(backend: str, mask: Any) -> None:
    # Keys that a row does not see are 0 there, so a column that some row does not see has no negative maximum.
    v = V.abs()
    r = AttentionMatrix(Q, K, mask=mask).dense() * (-G.abs() @ v.repeat_interleave(H // HK, 1).mT)
    assert (r.amax(-2) < 0).any() == (mask is None or isinstance(mask, Causal))
    check_maxima(relevance(AttentionMatrix(Q, K, mask=mask, backend=backend), v, -G.abs(), MAXIMA), r)


def test_the_signed_rows_sum_to_the_gradient_times_the_output() -> None:
    made = relevance(P(), V, G, {"rows": Rows(range(N))})["rows"]  # type: ignore[arg-type]
    near(made.sum(-1), (G * (P() @ V)).sum(-1))


def test_signed_is_the_default_part() -> None:
    near(relevance(P(), V, G, {"it": Received()})["it"], field("signed").sum(-2))


def test_the_signed_field_is_what_scaling_a_weight_does_to_the_quantity() -> None:
    # L = Σ G ∘ (P v): ∂L / ∂log P_ij with P as it is, is P_ij (G_i · v_j).
    weights = P("dense").dense().log().requires_grad_()
    (G * (weights.exp() @ V.repeat_interleave(H // HK, 1))).sum().backward()
    near(relevance(P(), V, G, {"rows": Rows(range(N))})["rows"], weights.grad.nan_to_num())  # type: ignore[union-attr,arg-type]


def test_sinks_scale_the_field_as_they_scale_the_weights() -> None:
    sinks = randn(H, seed=2)
    share = P(sinks=sinks).dense().sum(-1, keepdim=True)
    near(relevance(P(sinks=sinks), V, G, {"rows": Rows(range(N))})["rows"], share * field("signed"))  # type: ignore[arg-type]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_coarse_inputs_are_reduced_in_float32(dtype: torch.dtype) -> None:
    q, k, v, g = (t.to(dtype) for t in (Q, K, V, G))
    made = relevance(AttentionMatrix(q, k, mask=Causal()), v, g, {"it": Received()})["it"]
    assert made.dtype == torch.float32
    exact = relevance(
        AttentionMatrix(q.double(), k.double(), mask=Causal()), v.double(), g.double(), {"it": Received()}
    )
    torch.testing.assert_close(made.double(), exact["it"], rtol=1e-5, atol=1e-5)


def test_it_has_no_gradient_of_its_own() -> None:
    q = Q.clone().requires_grad_()
    assert not relevance(AttentionMatrix(q, K), V, G, {"it": Received()})["it"].requires_grad


@pytest.mark.parametrize(
    "reduction",
    [Entropy(), LogSumExp(), Peak(), TopK(2), RowMoment(V), SegmentMass(torch.zeros(M, dtype=torch.int64), 1)],
)
def test_reductions_that_fold_logits_are_refused_by_name(reduction: Any) -> None:
    name = type(reduction).__name__
    with pytest.raises(Unsupported, match=rf"'it', an? {name}, which folds logits.*Received"):
        relevance(P(), V, G, {"fine": Received(), "it": reduction})


def test_a_class_in_place_of_a_reduction_is_refused() -> None:
    with pytest.raises(SpecError, match=r"'it' must be a Reduction.*Write Received\(\)"):
        relevance(P(), V, G, {"it": Received})  # type: ignore[dict-item]


@pytest.mark.parametrize("part", ["pos", "", None, "Signed"])
def test_an_unknown_part_is_refused_with_those_there_are(part: Any) -> None:
    with pytest.raises(SpecError, match=r"is not one of 'signed', 'positive', 'absolute'"):
        relevance(P(), V, G, {"it": Received()}, part=part)


@pytest.mark.parametrize("shape", [(B, H, N, DV + 1), (B, HK, N, DV), (B, H, M, DV), (H, N, DV)])
def test_a_gradient_of_the_wrong_shape_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ShapeError, match=r"grad_out must be \[b, h, n, dv\] = \[2, 4, 5, 2\]; it has shape"):
        relevance(P(), V, torch.zeros(shape, dtype=torch.float64), {"it": Received()})


def test_a_gradient_of_integers_is_refused() -> None:
    with pytest.raises(ShapeError, match=r"grad_out must be floating point"):
        relevance(P(), V, G.long(), {"it": Received()})


def test_values_of_the_wrong_shape_are_refused() -> None:
    with pytest.raises(ShapeError, match=r"v must be \[b, hk, m, dv\] with b=2, hk=2, m=7"):
        relevance(P(), V[:, :, :3], G, {"it": Received()})


# -- rollout --------------------------------------------------------------------------------------------------------


def layers(count: int, **given: Any) -> list[AttentionMatrix]:
    return [
        AttentionMatrix(randn(B, H, N, D, seed=at), randn(B, HK, N, D, seed=at + 50), mask=Causal(), **given)
        for at in range(count)
    ]


@pytest.mark.parametrize("count", [1, 2, 4])
def test_rollout_is_the_product_of_the_mean_maps_with_their_residual(count: int) -> None:
    matrices, target = layers(count), randn(B, N).softmax(-1)
    product = torch.eye(N, dtype=torch.float64)
    for matrix in matrices:  # first layer first: later layers multiply from the left
        product = (matrix.dense().mean(1) + torch.eye(N, dtype=torch.float64)) / 2 @ product
    near(rollout(matrices, target), (target[:, None] @ product)[:, 0])


def test_rollout_keeps_the_targets_mass() -> None:
    target = randn(B, N).softmax(-1)
    near(rollout(layers(3), target).sum(-1), torch.ones(B, dtype=torch.float64))


def test_the_order_of_the_layers_matters() -> None:
    target = randn(B, N).softmax(-1)
    assert not torch.allclose(rollout(layers(2), target), rollout(layers(2)[::-1], target))


def test_rollout_of_one_position_through_one_layer_by_hand() -> None:
    # Query 2 sees keys 0, 1, 2 alike: half its own place, half spread over three.
    zero = torch.zeros(1, 1, 3, 2, dtype=torch.float64)
    made = rollout([AttentionMatrix(zero, zero, mask=Causal())], torch.tensor([[0.0, 0.0, 1.0]], dtype=torch.float64))
    near(made, torch.tensor([[1 / 6, 1 / 6, 4 / 6]], dtype=torch.float64))


def test_rollout_is_differentiable() -> None:
    q, k = randn(1, 2, 3, 2).requires_grad_(), randn(1, 1, 3, 2).requires_grad_()
    target = randn(1, 3).requires_grad_()

    def call(q: Tensor, k: Tensor, target: Tensor) -> Tensor:
        return rollout([AttentionMatrix(q, k, mask=Causal()), AttentionMatrix(2 * q, k)], target)

    assert torch.autograd.gradcheck(call, (q, k, target))


def test_rollout_needs_a_matrix() -> None:
    with pytest.raises(SpecError, match="rollout needs at least one attention matrix"):
        rollout([], randn(B, N))


def test_rollout_needs_square_matrices_over_the_same_positions() -> None:
    with pytest.raises(ShapeError, match=r"same 7 positions in every layer; layer 0 has \(2, 4, 5, 7\)"):
        rollout([P()], randn(B, M))
    few = AttentionMatrix(randn(B, H, 4, D), randn(B, HK, 4, D))
    with pytest.raises(ShapeError, match=r"same 5 positions in every layer; layer 1 has \(2, 4, 4, 4\)"):
        rollout([layers(1)[0], few, layers(1)[0]], randn(B, N))


@pytest.mark.parametrize("target", [torch.zeros(B, N + 1), torch.zeros(N), torch.zeros(B, N, dtype=torch.int64)])
def test_rollout_needs_a_weight_for_every_position(target: Tensor) -> None:
    with pytest.raises(ShapeError, match=r"target must be floating point \[b, m\] = \[2, 5\]; it is torch\."):
        rollout(layers(2), target)
