"""AttentionMatrix behaves as the matrix it stands for, and never stores it."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
from torch import Tensor

from sightline import (
    AttentionMatrix,
    Causal,
    DenseBias,
    Entropy,
    Peak,
    Received,
    ShapeError,
    SpecError,
    Unsupported,
    attention,
    matrix,
)

B, H, HK, N, M, D = 2, 4, 2, 5, 7, 3


def randn(*shape: int, dtype: torch.dtype = torch.float64, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed + sum(shape)), dtype=dtype)


Q, K, V = randn(B, H, N, D), randn(B, HK, M, D), randn(B, HK, M, 2)


def stored(q: Tensor = Q, k: Tensor = K) -> Tensor:
    """The matrix by its formula, causal: [b, h, n, m]."""
    s = q @ k.repeat_interleave(q.shape[1] // k.shape[1], 1).mT / q.shape[-1] ** 0.5
    n, m = s.shape[-2:]
    seen = torch.arange(m) <= torch.arange(m - n, m)[:, None]
    return s.masked_fill(~seen, -torch.inf).softmax(-1)


def P(backend: str = "auto", **given: Any) -> AttentionMatrix:
    return AttentionMatrix(Q, K, **({"mask": Causal()} | given), backend=backend)


def near(actual: Tensor, wanted: Tensor) -> None:
    torch.testing.assert_close(actual, wanted, rtol=1e-13, atol=1e-14)


def test_it_has_the_shape_of_the_matrix_and_of_its_transpose() -> None:
    assert P().shape == torch.Size((B, H, N, M))
    assert isinstance(P().shape, torch.Size)
    assert P().mT.shape == torch.Size((B, H, M, N))


def test_transposing_twice_gives_the_matrix_back() -> None:
    whole = P()
    assert whole.mT.mT is whole


def test_it_says_what_it_is() -> None:
    assert repr(P()) == f"AttentionMatrix(b={B}, h={H}, n={N}, m={M}, torch.float64, never stored)"


@pytest.mark.parametrize("backend", ["auto", "tiled", "dense"])
def test_dense_is_the_matrix(backend: str) -> None:
    near(P(backend).dense(), stored())


def test_its_rows_sum_to_one_without_sinks() -> None:
    near(P().dense().sum(-1), torch.ones(B, H, N, dtype=torch.float64))


@pytest.mark.parametrize("backend", ["auto", "dense"])
def test_times_the_values_is_attention(backend: str) -> None:
    near(P(backend) @ V, stored() @ V.repeat_interleave(H // HK, 1))
    near(P(backend) @ V, attention(Q, K, V, mask=Causal()))


@pytest.mark.parametrize("shape", [(M, 2), (B, M, 2), (1, 1, M, 2), (1, HK, M, 2), (B, H, M, 2)])
def test_it_multiplies_from_the_left_whatever_broadcasts(shape: tuple[int, ...]) -> None:
    f = randn(*shape, seed=3)
    full = f[:, None] if f.ndim == 3 else f
    full = full.repeat_interleave(H // HK, 1) if full.ndim == 4 and full.shape[1] == HK else full
    near(P() @ f, stored() @ full)


@pytest.mark.parametrize("shape", [(N, 2), (B, N, 2), (1, 1, N, 2), (1, HK, N, 2), (B, H, N, 2)])
def test_its_transpose_multiplies_from_the_left_whatever_broadcasts(shape: tuple[int, ...]) -> None:
    w = randn(*shape, seed=4)
    full = w[:, None] if w.ndim == 3 else w
    full = full.repeat_interleave(H // HK, 1) if full.ndim == 4 and full.shape[1] == HK else full
    near(P().mT @ w, stored().mT @ full)


def test_products_check_what_they_are_given() -> None:
    with pytest.raises(ShapeError, match=r"m=7; it has shape \(2, 2, 6, 2\)"):
        P() @ V[:, :, :6]
    with pytest.raises(ShapeError, match=r"n=5.*it has shape \(2, 2, 7, 2\)"):
        P().mT @ V
    with pytest.raises(ShapeError, match="must be floating point"):
        P() @ V.long()


def test_lse_is_the_normaliser_of_the_rows() -> None:
    s = Q @ K.repeat_interleave(H // HK, 1).mT / D**0.5
    near(AttentionMatrix(Q, K).lse(), s.logsumexp(-1))


def test_entries_reads_single_weights() -> None:
    keys = torch.tensor([[0, -1], [3, 3], [2, 6], [0, 1], [6, 5]])
    wanted = stored().gather(-1, keys.clamp(min=0).expand(B, H, N, 2)) * (keys >= 0)
    near(P().entries(keys), wanted)


def test_reduce_gives_every_result_by_name_in_the_order_asked() -> None:
    made = P().reduce({"z": Entropy(), "a": Received(), "m": Peak()})
    assert list(made) == ["z", "a", "m"]
    near(made["a"], stored().sum(-2))
    near(made["m"].value, stored().amax(-1))
    assert P().reduce({}) == {}


# -- slices ---------------------------------------------------------------------------------------------------------

SLICES = [slice(None), slice(1, 3), slice(None, None, 2), slice(-2, None), slice(-100, 100), slice(2, 2), slice(3, 1)]
INDICES: list[Any] = [0, -1, *SLICES]


def same(index: Any) -> None:
    made, wanted = P()[index], stored()[index]
    assert made.shape == wanted.shape
    assert made.dtype == wanted.dtype
    near(made, wanted)


@pytest.mark.parametrize("count", [1, 2, 3])
def test_any_index_gives_what_indexing_the_stored_matrix_gives(count: int) -> None:
    for index in itertools.product(INDICES, repeat=count):
        same(index)


@pytest.mark.parametrize("batch", [0, slice(None), slice(1, 2)], ids=str)
def test_any_index_of_all_four_dimensions_gives_what_indexing_the_stored_matrix_gives(batch: Any) -> None:
    for rest in itertools.product([-2, slice(None), slice(1, None, 2), slice(1, 1)], INDICES, INDICES):
        same((batch, *rest))


@pytest.mark.parametrize(
    "index",
    [
        ..., (...,), (..., 0), (0, ...), (..., 1, slice(2, 5)), (0, ..., 3), (0, 1, ..., 2, 3), (..., 0, 1, 2, 3),
        (slice(None), ..., slice(1, 2)), (0, 1, 2, ...), (0, 1, 2, 3, ...), (1, ..., slice(None, None, 3)),
    ],
    ids=str,
)  # fmt: skip
def test_an_ellipsis_stands_for_the_dimensions_left_out(index: Any) -> None:
    same(index)


def test_one_weight_is_a_number() -> None:
    made = P()[1, 2, 3, 4]
    assert made.shape == ()
    near(made, stored()[1, 2, 3, 4])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_slices_are_float32_for_coarser_inputs_and_empty_ones_too(dtype: torch.dtype) -> None:
    whole = AttentionMatrix(Q.to(dtype), K.to(dtype))
    assert whole[0, 0, 1:3].dtype == torch.float32
    assert whole[0, 0, 1:1].dtype == torch.float32
    assert whole[0, 0, 1:1].shape == (0, M)


def test_a_slice_of_masks_biases_and_sinks_keeps_the_rows_places() -> None:
    bias, sinks = randn(N, M, seed=5), randn(H, seed=6)
    whole = P(bias=DenseBias(bias), sinks=sinks, softcap=3.0)
    full = P("dense", bias=DenseBias(bias), sinks=sinks, softcap=3.0).dense()
    for i0, i1 in itertools.combinations(range(N + 1), 2):
        near(whole[:, :, i0:i1], full[:, :, i0:i1])


@pytest.mark.parametrize("step", [-1, -2, 0])
@pytest.mark.parametrize("dimension", range(4))
def test_slices_that_do_not_go_forward_are_refused_as_tensors_refuse_them(dimension: int, step: int) -> None:
    index = (slice(None),) * dimension + (slice(None, None, step),)
    with pytest.raises(ValueError, match="step"):
        stored()[index]
    with pytest.raises(SpecError, match=rf"index {dimension} has step {step}"):
        P()[index]


def test_gradients_flow_through_a_slice() -> None:
    q, k = Q.clone().requires_grad_(), K.clone().requires_grad_()
    AttentionMatrix(q, k, mask=Causal())[0, 1:, 1:4:2, -3:].square().sum().backward()
    q2, k2 = Q.clone().requires_grad_(), K.clone().requires_grad_()
    stored(q2, k2)[0, 1:, 1:4:2, -3:].square().sum().backward()
    near(q.grad, q2.grad)  # type: ignore[arg-type]
    near(k.grad, k2.grad)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("index", "at", "size"), [((2,), 2, B), ((0, -5), -5, H), ((..., 5, 0), 5, N), ((0, 0, 0, 7), 7, M)], ids=str
)
def test_an_index_out_of_range_is_an_index_error_that_names_it(index: Any, at: int, size: int) -> None:
    with pytest.raises(IndexError, match=rf"(?s){at}.*{size}|{size}.*{at}"):
        P()[index]


@pytest.mark.parametrize("index", [(0, 0, 0, 0, 0), (..., 0, ...), (0, ..., 0, 0, 0, 0)], ids=str)
def test_too_many_indices_are_refused(index: Any) -> None:
    with pytest.raises(SpecError, match=r"takes up to four indices, one per dimension of \(2, 4, 5, 7\); it got \d"):
        P()[index]


@pytest.mark.parametrize("wrong", [None, True, 0.5, [0, 1], torch.tensor([0]), "0"], ids=str)
def test_anything_but_integers_and_slices_is_refused_and_the_error_names_what_to_use(wrong: Any) -> None:
    with pytest.raises(
        SpecError, match=rf"takes integers and slices; index 1 is {type(wrong).__name__}.*Rows.*Entries"
    ):
        P()[0, wrong]


def test_a_slice_computes_only_its_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    from sightline.backends import tiled

    seen: list[int] = []
    forward = tiled.forward
    monkeypatch.setattr(tiled, "forward", lambda request: seen.append(request.dims.n) or forward(request))
    AttentionMatrix(randn(1, 1, 1000, 2), randn(1, 1, 1000, 2))[0, 0, 400:403]
    assert seen == [3]


# -- dense() --------------------------------------------------------------------------------------------------------


def test_dense_refuses_a_large_matrix_says_its_size_and_what_to_do() -> None:
    whole = AttentionMatrix(torch.zeros(1, 2, 8192, 1), torch.zeros(1, 1, 8192, 1))
    with pytest.raises(Unsupported, match=r"1 × 2 × 8192 × 8192 weights, 0\.5 GiB.*force=True"):
        whole.dense()


def test_dense_builds_it_when_forced(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(matrix, "DENSE_LIMIT", 100)
    with pytest.raises(Unsupported, match="dense\\(force=True\\)"):
        P().dense()
    near(P().dense(force=True), stored())


def test_dense_builds_a_matrix_of_exactly_the_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(matrix, "DENSE_LIMIT", B * H * N * M)
    near(P().dense(), stored())
    monkeypatch.setattr(matrix, "DENSE_LIMIT", B * H * N * M - 1)
    with pytest.raises(Unsupported):
        P().dense()
