"""Promise: attention is exact, and what it does at the edges is defined."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

import sightline as sl
from cases import Draw, all_reductions, draw
from engines import Engine
from sightline._dims import Dims
from tolerance import Judge

DIMS = Dims(b=2, h=4, hk=2, n=7, m=9, d=8)


def tensors(dtype: torch.dtype = torch.float32, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    pick = Draw(seed)
    d = DIMS
    return (
        pick.normal(d.b, d.h, d.n, d.d, dtype=dtype),
        pick.normal(d.b, d.hk, d.m, d.d, dtype=dtype),
        pick.normal(d.b, d.hk, d.m, 5, dtype=dtype),
    )


def observe_all(q: Tensor, k: Tensor, v: Tensor, backend: str, **options: object) -> dict[str, Tensor]:
    """The output and every reduction, with the fields of peaks side by side."""
    seen = sl.observe(q, k, v, all_reductions(Draw(1), DIMS, q.dtype), backend=backend, **options)  # type: ignore[arg-type]
    flat = {"output": seen.output}
    for name, result in seen.items():
        parts = result._asdict() if isinstance(result, sl.Peaks) else {"": result}
        flat |= {f"{name} {part}".strip(): t for part, t in parts.items()}
    return flat


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("causal", [True, False])
def test_attention_is_pytorchs_own(engine: Engine, dtype: torch.dtype, causal: bool) -> None:
    engine.serve(dtype)
    pick = Draw(3)
    q, k, v = (pick.normal(2, 4, 33, 16, dtype=torch.float64) for _ in range(3))
    theirs = torch.nn.functional.scaled_dot_product_attention(q, k, v, is_causal=causal)
    mine = sl.attention(*(t.to(dtype) for t in (q, k, v)), mask=sl.Causal() if causal else None, backend=engine.backend)
    assert mine.dtype == dtype
    assert (mine - theirs).abs().amax() < 16 * torch.finfo(dtype).eps


def test_half_precision_inputs_are_observed_in_float32_exactly(engine: Engine) -> None:
    for seed in range(20):
        case = draw(seed, (torch.bfloat16, torch.float16))
        leaves = case.fresh()
        seen = case.observe(leaves, engine.backend)
        assert Judge(case, engine.coarse(case)).results(seen) == [], case
        for name, r in case.reductions.items():
            if isinstance(r, sl.Entropy | sl.LogSumExp | sl.BlockMass | sl.Rows):
                assert seen[name].dtype == torch.float32


@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16])
def test_logits_of_ten_thousand_give_numbers(engine: Engine, dtype: torch.dtype, sign: int) -> None:
    engine.serve(dtype)
    q, k, v = tensors(dtype)
    largest = float((q.double()[:, :, None] @ k.double().repeat_interleave(2, 1).mT[:, :, None]).abs().amax())
    options = {"scale": sign * 1e4 / largest}
    for name, t in observe_all(q, k, v, engine.backend, **options).items():
        assert t.isfinite().all(), name
    q.requires_grad_(), k.requires_grad_(), v.requires_grad_()
    sl.attention(q, k, v, backend=engine.backend, **options).float().sum().backward()
    assert all(t.grad is not None and t.grad.isfinite().all() for t in (q, k, v))


def test_rows_whose_scores_are_all_equal_weigh_every_key_alike(engine: Engine) -> None:
    q, k, v = tensors(engine.finest)
    seen = observe_all(torch.zeros_like(q), k, v, engine.backend)
    m = DIMS.m
    assert torch.allclose(seen["output"], v.mean(-2, keepdim=True).repeat_interleave(2, 1).expand_as(seen["output"]))
    assert torch.allclose(seen["entropy"], torch.full_like(seen["entropy"], math.log(m)))
    assert torch.allclose(seen["lse"], torch.full_like(seen["lse"], math.log(m)))
    assert (seen["peak key"] == 0).all()
    assert (seen["top64"][..., :m] == torch.arange(m)).all()
    assert (seen["top64"][..., m:] == -1).all()


DEAD: dict[str, dict[str, object]] = {
    "by length": {"mask": sl.Lengths(k=torch.tensor([0, 9]))},
    "by a dense mask": {"mask": sl.DenseMask(torch.tensor([False, True])[:, None, None, None])},
    "by a dense bias": {"bias": sl.DenseBias(torch.tensor([-math.inf, 0.0])[:, None, None, None])},
}


@pytest.mark.parametrize("sink", [None, -1e4, -1.0, 1e4])
@pytest.mark.parametrize("how", DEAD)
def test_rows_without_keys_give_their_defined_results(engine: Engine, how: str, sink: float | None) -> None:
    q, k, v = tensors()
    sinks = None if sink is None else torch.full((DIMS.h,), sink)
    first = {name: t[0] for name, t in observe_all(q, k, v, engine.backend, sinks=sinks, **DEAD[how]).items()}
    for name, t in first.items():
        defined = -math.inf if name == "lse" else -1 if name == "peak key" or name.startswith("top") else 0
        assert (t == defined).all(), name


def test_rows_without_keys_get_and_give_no_gradient(engine: Engine) -> None:
    for options in DEAD.values():
        q, k, v = (t.requires_grad_() for t in tensors())
        sinks = torch.zeros(DIMS.h, requires_grad=True)
        seen = sl.observe(
            q, k, v, {"h": sl.Entropy(), "r": sl.Received()}, sinks=sinks, backend=engine.backend, **options
        )  # type: ignore[arg-type]
        (seen.output[0].sum() + seen["h"][0].sum() + seen["r"][0].sum()).backward()
        for t in (q, k, v, sinks):
            assert t.grad is not None
            assert (t.grad == 0).all()


def test_minus_infinity_in_a_dense_bias_admits_no_key(engine: Engine) -> None:
    q, k, v = tensors()
    allowed = Draw(5).normal(DIMS.n, DIMS.m) > 0
    allowed[3] = False
    masked = observe_all(q, k, v, engine.backend, mask=sl.DenseMask(allowed))
    biased = observe_all(q, k, v, engine.backend, bias=sl.DenseBias(torch.where(allowed, 0.0, -math.inf)))
    for name, t in masked.items():
        assert torch.equal(t, biased[name]), name


def test_one_query_and_one_key_is_a_copy_of_the_value(engine: Engine) -> None:
    q, k, v = torch.randn(1, 1, 1, 3), torch.randn(1, 1, 1, 3), torch.randn(1, 1, 1, 2)
    assert torch.equal(sl.attention(q, k, v, backend=engine.backend), v)
