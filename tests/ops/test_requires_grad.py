"""Which gradients are asked for: any combination, each as if asked for alone, and none where there is none."""

from __future__ import annotations

from itertools import combinations

import pytest
import torch
from torch import Tensor

from ops.samples import HK, B, H, M, N, inputs, tensor
from sightline import (
    Alibi,
    AttentionMatrix,
    Causal,
    ColumnMoment,
    DenseBias,
    Entropy,
    Peak,
    Received,
    RelativeBias,
    RowMoment,
    TopK,
    attention,
    observe,
)

NAMES = ("q", "k", "v", "bias", "slopes", "sinks", "f", "w", "weights")


def leaves(wanted: tuple[str, ...]) -> dict[str, Tensor]:
    q, k, v = inputs()
    made = {
        "q": q, "k": k, "v": v,
        "bias": tensor(B, 1, N, M, seed=1), "slopes": tensor(H, seed=2), "sinks": tensor(H, seed=3),
        "f": tensor(1, HK, M, 2, seed=4), "w": tensor(B, 1, N, 2, seed=5), "weights": tensor(N, seed=6),
    }  # fmt: skip
    return {name: t.requires_grad_(name in wanted) for name, t in made.items()}


def gradients(wanted: tuple[str, ...], backend: str = "tiled") -> dict[str, Tensor | None]:
    t = leaves(wanted)
    reductions = {
        "entropy": Entropy(), "f": RowMoment(t["f"]), "w": ColumnMoment(t["w"]), "weights": Received(t["weights"])
    }  # fmt: skip
    bias = DenseBias(t["bias"]) + Alibi(t["slopes"])
    seen = observe(t["q"], t["k"], t["v"], reductions, mask=Causal(), bias=bias, sinks=t["sinks"], backend=backend)
    made = [seen.output, *(seen[name] for name in reductions)]
    total = sum(((r * torch.linspace(1, 2, r.numel()).double().reshape(r.shape)).sum() for r in made), torch.zeros(()))
    assert total.requires_grad == bool(wanted)
    if wanted:
        total.backward()
    return {name: leaf.grad for name, leaf in t.items()}


ALL = gradients(NAMES, "dense")


@pytest.mark.parametrize("wanted", [*((name,) for name in NAMES), *combinations(NAMES[:6], 2), NAMES], ids="-".join)
def test_any_combination_gives_the_gradients_asked_for_and_no_others(wanted: tuple[str, ...]) -> None:
    for name, made in gradients(wanted).items():
        assert (made is not None) == (name in wanted)
        if made is not None:
            torch.testing.assert_close(made, ALL[name], rtol=1e-12, atol=1e-12)


def test_without_any_there_is_no_graph() -> None:
    gradients(())
    with torch.no_grad():
        assert not attention(*inputs(grad=True)).requires_grad
    with torch.inference_mode():
        assert attention(*inputs()).is_inference()


def test_a_learned_table_gets_its_gradient() -> None:
    grads = []
    for backend in ("tiled", "dense"):
        table = tensor(8, H, grad=True)
        attention(*inputs(), bias=RelativeBias(table, max_distance=6), backend=backend).square().sum().backward()
        grads.append(table.grad)
    assert grads[0].abs().amax() > 0
    torch.testing.assert_close(*grads, rtol=1e-12, atol=1e-12)


def test_a_result_that_does_not_matter_changes_no_gradient() -> None:
    grads = []
    for reductions in ({}, {"entropy": Entropy(), "peak": Peak(), "top": TopK(2)}):
        given = inputs(grad=True)
        observe(*given, reductions).output.square().sum().backward()
        grads.append([t.grad for t in given])
    for a, b in zip(*grads, strict=True):
        assert torch.equal(a, b)


def test_a_reduction_alone_gives_gradients_without_the_output() -> None:
    q, k, v = inputs(grad=True)
    observe(q, k, v, {"it": Entropy()})["it"].sum().backward()
    alone_q, alone_k, _ = inputs(grad=True)
    AttentionMatrix(alone_q, alone_k).reduce({"it": Entropy()})["it"].sum().backward()
    torch.testing.assert_close(q.grad, alone_q.grad, rtol=1e-13, atol=1e-13)
    torch.testing.assert_close(k.grad, alone_k.grad, rtol=1e-13, atol=1e-13)
    assert v.grad is None or not v.grad.any()


def test_gradients_accumulate_over_two_backward_passes() -> None:
    q, k, v = inputs(grad=True)
    made = attention(q, k, v).sum()
    made.backward(retain_graph=True)
    once = q.grad.clone()  # type: ignore[union-attr]
    made.backward()
    torch.testing.assert_close(q.grad, 2 * once, rtol=0, atol=0)


def test_writing_into_an_input_before_the_backward_pass_is_noticed() -> None:
    q, k, v = inputs(grad=True)
    k = k.clone()
    made = attention(q, k, v).sum()
    k.add_(1)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        made.backward()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_gradients_have_the_dtype_of_what_they_are_gradients_of(dtype: torch.dtype) -> None:
    q, k, v = inputs(dtype, grad=True)
    sinks, bias = tensor(H, dtype=torch.float32, grad=True), tensor(N, M, dtype=dtype, grad=True)
    f = tensor(M, 2, dtype=torch.float32, grad=True)
    seen = observe(q, k, v, {"it": RowMoment(f)}, sinks=sinks, bias=DenseBias(bias))
    (seen.output.float().square().sum() + seen["it"].sum()).backward()
    for t in (q, k, v, sinks, bias, f):
        assert t.grad is not None
        assert t.grad.dtype == t.dtype
        assert t.grad.isfinite().all()
        assert t.grad.any()


@pytest.mark.parametrize(
    ("backend", "dtype", "kept"),
    [("cpu", torch.float32, True), ("cpu", torch.bfloat16, False), ("tiled", torch.float32, False)],
)
def test_only_results_that_gradients_read_may_not_change_in_place(backend: str, dtype: torch.dtype, kept: bool) -> None:
    q, k, v = (tensor(1, 2, 5, 4, dtype=dtype, seed=seed, grad=True) for seed in range(3))
    output = attention(q, k, v, backend=backend)
    changed = output.mul_(2)
    if kept:
        with pytest.raises(RuntimeError, match="modified by an inplace operation"):
            changed.sum().backward()
        return
    changed.sum().backward()
    again = torch.autograd.grad(2 * attention(q, k, v, backend=backend).sum(), (q, k, v))
    assert all(torch.equal(t.grad, g) for t, g in zip((q, k, v), again, strict=True) if t.grad is not None)
