"""The native kernels, on every instruction set of this machine, at sizes that cross their tiles, blocks and splits."""

from __future__ import annotations

import threading
from itertools import product
from typing import Any

import pytest
import torch
from torch import Tensor

import sightline as sl
from cases import draw
from sightline.backends import cpu
from tolerance import Judge
from tolerance import gradients as judged

SETS = cpu.runs_on()
if not SETS:
    pytest.skip("the native kernels are not built here: `sightline doctor` says why", allow_module_level=True)


@pytest.fixture(params=SETS)
def instructions(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Each instruction set in turn."""
    monkeypatch.setattr(cpu, "INSTRUCTIONS", request.param)
    return request.param


@pytest.fixture(params=[1, 2, 5])
def threads(request: pytest.FixtureRequest):
    """So many threads for one call."""
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


def tensors(b: int, h: int, hk: int, n: int, m: int, d: int, dv: int, dtype: torch.dtype) -> tuple[Tensor, ...]:
    g = torch.Generator().manual_seed(n + m + d)

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=g).to(dtype)

    return normal(b, h, n, d), normal(b, hk, m, d), normal(b, hk, m, dv)


def everything(b: int, h: int, n: int, m: int) -> dict[str, sl.Reduction]:
    g = torch.Generator().manual_seed(1)
    return {
        "entropy": sl.Entropy(),
        "peak": sl.Peak(),
        "top": sl.TopK(8),
        "top40": sl.TopK(40),
        "lse": sl.LogSumExp(),
        "moment": sl.RowMoment(torch.randn(1, h, m, 3, generator=g)),
        "segments": sl.SegmentMass(torch.arange(m)[None] // 37 % 5 - 1, 4),
        "received": sl.Received(),
        "weighted": sl.Received(torch.randn(b, h, n, generator=g)),
        "column max": sl.ColumnMax(),
        "column moment": sl.ColumnMoment(torch.randn(n, 2, generator=g)),
        "map": sl.BlockMass(64, 100),
        "fine map": sl.BlockMass(5, 7),
        "peaks": sl.BlockMax(50, 33),
        "rows": sl.Rows(torch.tensor([0, n - 1, n // 2, 0])),
        "entries": sl.Entries(torch.randint(-1, m, (n, 5), generator=g)),
    }


CASES: dict[str, tuple[tuple[int, ...], dict[str, Any]]] = {
    "causal": ((2, 4, 2, 131, 517, 40, 24), {"mask": sl.Causal()}),
    "square": ((1, 2, 2, 300, 300, 64, 64), {"mask": sl.Causal()}),
    "plain": ((1, 3, 1, 97, 1030, 64, 80), {}),
    "window": ((1, 2, 1, 700, 700, 16, 16), {"mask": sl.Causal() & sl.Window(left=90)}),
    "wide": ((1, 2, 1, 70, 300, 256, 256), {}),
    "shaped": (
        (1, 4, 2, 100, 600, 32, 33),
        {"mask": sl.Causal(), "bias": sl.Alibi.geometric(4), "softcap": 20.0, "sinks": torch.randn(4)},
    ),
    "masked": ((2, 2, 2, 70, 520, 8, 8), {"mask": sl.DenseMask(torch.rand(2, 1, 70, 520) > 0.7), "scale": -0.5}),
    "biased": ((1, 2, 1, 80, 530, 8, 8), {"bias": sl.DenseBias(torch.randn(1, 2, 1, 530).bfloat16())}),
    "decode": ((2, 8, 2, 1, 5000, 64, 64), {}),
    "few": ((1, 4, 2, 9, 4500, 32, 48), {"mask": sl.Causal(), "sinks": torch.zeros(4)}),
}


def close(name: str, got: Tensor, want: Tensor, relative: float) -> None:
    error = (got.double() - want).abs()
    scale = want.abs().amax().clamp(min=1e-30)
    assert got.shape == want.shape, name
    assert (error <= relative * scale).all(), f"{name}: {float((error / scale).max()):.2e} of the largest"


def same_choice(name: str, got: Tensor, want: Tensor, s: Tensor) -> None:
    """The keys chosen score as those of the definition do: only near ties may be chosen otherwise."""
    there = want >= 0
    assert torch.equal(got >= 0, there), name
    mine, right = (torch.where(there, s.gather(-1, keys.clamp(min=0)), 0) for keys in (got, want))
    assert ((mine - right).abs() < 1e-4 * (1 + right.abs())).all(), name


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("case", CASES)
def test_everything_is_what_the_definition_says(case: str, dtype: torch.dtype, instructions: str, threads: int) -> None:
    sizes, options = CASES[case]
    q, k, v = tensors(*sizes, dtype)
    b, h, n, m = *q.shape[:3], k.shape[2]
    asked = everything(b, h, n, m)
    seen = sl.observe(q, k, v, asked, backend="cpu", **options)
    exact = sl.observe(
        q.double(),
        k.double(),
        v.double(),
        {name: r.to(torch.float64) for name, r in asked.items()},
        backend="dense",
        **options,
    )
    dims = sl._dims.Dims.of(q, k)
    s = sl.scores.Scores.of(
        dims, q.double(), options.get("mask"), options.get("bias"), options.get("scale"), options.get("softcap"), None
    ).dense(q.double(), k.double())
    close("output", seen.output, exact.output, 1e-5 if dtype == torch.float32 else 2e-2)
    for name, want in exact.items():
        if isinstance(want, sl.Peaks):
            close(name, seen[name].value, want.value, 2e-5)
            same_choice(name, seen[name].key[..., None], want.key[..., None], s)
        elif name.startswith("top"):
            same_choice(name, seen[name], want, s)
        else:
            close(name, torch.nan_to_num(seen[name]), torch.nan_to_num(want), 2e-5)


@pytest.mark.parametrize("seed", range(40))
def test_small_calls_of_every_kind_are_exact(seed: int, instructions: str) -> None:
    case = draw(seed, (torch.float32, torch.float16))
    with torch.no_grad():
        seen = case.observe(case.leaves, "cpu")
    assert Judge(case).results(seen) == [], case


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("case", CASES)
def test_observing_changes_no_bit(case: str, dtype: torch.dtype, instructions: str) -> None:
    sizes, options = CASES[case]
    q, k, v = tensors(*sizes, dtype)
    asked = everything(q.shape[0], q.shape[1], q.shape[2], k.shape[2])
    together = sl.observe(q, k, v, asked, backend="cpu", **options)
    assert torch.equal(sl.attention(q, k, v, backend="cpu", **options), together.output)
    for name, r in asked.items():
        alone = sl.observe(q, k, v, {name: r}, backend="cpu", **options)
        parts = zip(alone[name], together[name]) if isinstance(r, sl.Peak) else [(alone[name], together[name])]
        assert torch.equal(alone.output, together.output), name
        assert all(torch.equal(a, b) for a, b in parts), name


def test_a_call_is_the_same_every_time(instructions: str, threads: int) -> None:
    q, k, v = tensors(1, 4, 2, 700, 700, 32, 32, torch.float32)
    asked = everything(1, 4, 700, 700)
    first, *others = (sl.observe(q, k, v, asked, mask=sl.Causal(), backend="cpu") for _ in range(4))
    for other in others:
        assert torch.equal(first.output, other.output)
        for name in ("received", "weighted", "column moment", "map", "fine map", "segments"):
            assert torch.equal(first[name], other[name]), name


def test_strides_are_read_as_they_are(instructions: str) -> None:
    q, k, v = tensors(2, 4, 2, 60, 300, 32, 32, torch.float32)
    want = sl.attention(q, k, v, backend="cpu")
    stepped = [torch.stack([t, torch.full_like(t, torch.nan)], -1).flatten(-2)[..., ::2] for t in (q, k, v)]
    transposed = [t.transpose(1, 2).contiguous().transpose(1, 2) for t in (q, k, v)]
    for others in (stepped, transposed):
        assert torch.equal(sl.attention(*others, backend="cpu"), want)


FEW = [  # group, n, d, dv: rows of one key head below and above the number that reads caches as they lie
    (1, 1, 64, 64),
    (2, 1, 40, 65),
    (1, 3, 65, 40),
    (5, 1, 1, 3),
    (4, 1, 128, 128),
    (3, 2, 33, 256),
    (7, 1, 96, 7),
    (4, 4, 16, 1),
    (16, 1, 72, 100),
    (17, 1, 65, 40),
    (4, 6, 32, 24),
    (12, 4, 48, 33),
]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("mask", [None, sl.Causal() & sl.Window(left=600), sl.DenseMask(torch.arange(777) % 3 > 0)])
@pytest.mark.parametrize("sizes", FEW)
def test_few_queries_read_caches_as_they_lie(
    sizes: tuple[int, ...], mask: sl.masks.Mask | None, dtype: torch.dtype, instructions: str
) -> None:
    group, n, d, dv = sizes
    q, k, v = tensors(2, 2 * group, 2, n, 777, d, dv, dtype)
    asked = {"entropy": sl.Entropy(), "received": sl.Received(), "most": sl.ColumnMax(), "map": sl.BlockMass(2, 100)}

    def part(t: Tensor) -> Tensor:
        """A slice of a larger cache, with nothing to be read around it."""
        room = t.new_full((2, 2, 830, t.shape[3] + 3), torch.nan)[:, :, 21:798, 1:-2]
        return room.copy_(t)

    def turned(t: Tensor) -> Tensor:
        return t.transpose(1, 2).contiguous().transpose(1, 2)

    def stepped(t: Tensor) -> Tensor:
        return torch.stack([t, torch.full_like(t, torch.nan)], -1).flatten(-2)[..., ::2]

    exact = sl.observe(q.double(), k.double(), v.double(), asked, mask=mask, backend="dense")
    seen = sl.observe(q, k, v, asked, mask=mask, backend="cpu")
    others = [sl.observe(q, f(k), f(v), asked, mask=mask, backend="cpu") for f in (part, turned, stepped)]
    for name, want in {"output": exact.output, **exact}.items():
        loose = 2e-5 if dtype == torch.float32 or name != "output" else 2e-2
        got, *same = (s.output if name == "output" else s[name] for s in (seen, *others))
        close(name, got, want, loose)
        assert all(torch.equal(got, again) for again in same), name


def test_a_key_may_be_one_for_all(instructions: str) -> None:
    q, k, v = tensors(1, 2, 1, 1, 1, 32, 32, torch.float32)
    got = sl.attention(q, k.expand(-1, -1, 300, -1), v.expand(-1, -1, 300, -1), backend="cpu")
    close("output", got, v.expand(-1, 2, -1, -1).double(), 2e-5)


def test_a_call_that_wants_a_gradient_gives_the_same_bits(instructions: str) -> None:
    q, k, v = tensors(1, 4, 2, 1, 5000, 64, 64, torch.bfloat16)
    plain = sl.observe(q, k, v, {"top": sl.TopK(8), "received": sl.Received()}, backend="cpu")
    q.requires_grad_()
    traced = sl.observe(q, k, v, {"top": sl.TopK(8), "received": sl.Received()}, backend="cpu")
    assert traced.output.requires_grad
    assert not plain.output.requires_grad
    assert torch.equal(traced.output, plain.output)
    assert all(torch.equal(traced[name], plain[name]) for name in plain)


def test_several_threads_may_call_at_once(instructions: str) -> None:
    q, k, v = tensors(1, 4, 2, 200, 400, 32, 32, torch.float32)
    asked = {"received": sl.Received(), "top": sl.TopK(4)}
    want = sl.observe(q, k, v, asked, backend="cpu")
    wrong: list[str] = []

    def call() -> None:
        for _ in range(20):
            got = sl.observe(q, k, v, asked, backend="cpu")
            if not torch.equal(got.output, want.output) or not torch.equal(got["received"], want["received"]):
                wrong.append("differs")

    callers = [threading.Thread(target=call) for _ in range(8)]
    for t in callers:
        t.start()
    for t in callers:
        t.join()
    assert wrong == []


def test_top_k_is_exact_in_any_order_of_scores(instructions: str) -> None:
    n, m = 50, 1500
    for scores in (torch.arange(m), -torch.arange(m), torch.zeros(m), torch.arange(m) // 3, torch.arange(m) % 7):
        k = scores.float()[None, None, :, None]
        q, v = torch.ones(1, 1, n, 1), torch.ones(1, 1, m, 1)
        for top in (1, 3, 8, 17, 64):
            seen = sl.observe(q, k, v, {"top": sl.TopK(top), "peak": sl.Peak()}, scale=0.25, backend="cpu")
            want = scores.sort(descending=True, stable=True).indices[:top]
            assert (seen["top"] == want).all()
            assert (seen["peak"].key == want[0]).all()


@pytest.mark.parametrize("mask", [None, sl.Causal(), sl.Causal() & sl.Window(left=300)])
@pytest.mark.parametrize("climb", [-30.0, 1.0, 5.0, 9.0, 60.0])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_logits_may_climb_from_tile_to_tile(
    dtype: torch.dtype, climb: float, mask: sl.masks.Mask | None, instructions: str
) -> None:
    q, k, v = tensors(1, 2, 1, 1100, 1100, 32, 40, dtype)
    q[..., 0] = 4
    k[..., 0] = climb * (torch.arange(1100) // 256)
    without_lists = {
        "entropy": sl.Entropy(),
        "lse": sl.LogSumExp(),
        "received": sl.Received(),
        "map": sl.BlockMass(64, 64),
    }
    seen = sl.observe(q, k, v, without_lists, mask=mask, scale=0.25, backend="cpu")
    exact = sl.observe(q.double(), k.double(), v.double(), without_lists, mask=mask, scale=0.25, backend="dense")
    close("output", seen.output, exact.output, 4e-5 if dtype == torch.float32 else 2e-2)
    for name, want in exact.items():
        close(name, seen[name], want, 4e-5)
    together = sl.observe(q, k, v, without_lists | {"top": sl.TopK(8)}, mask=mask, scale=0.25, backend="cpu")
    for mine, theirs in zip((seen.output, *seen.values()), (together.output, *together.values())):
        assert torch.equal(mine, theirs)
    assert torch.equal(sl.attention(q, k, v, mask=mask, scale=0.25, backend="cpu"), seen.output)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_rows_without_keys_beside_rows_with_later_ones(dtype: torch.dtype, instructions: str) -> None:
    q, k, v = tensors(1, 2, 1, 48, 1100, 32, 32, dtype)
    lo = torch.cat([torch.full((16,), 900), torch.full((32,), 500)])
    hi = torch.cat([torch.full((16,), 900), torch.full((32,), 1050)])
    asked = {"entropy": sl.Entropy(), "received": sl.Received(), "top": sl.TopK(4)}
    seen = sl.observe(q, k, v, asked, mask=sl.Intervals(lo, hi), backend="cpu")
    exact = sl.observe(q.double(), k.double(), v.double(), asked, mask=sl.Intervals(lo, hi), backend="dense")
    assert not seen.output[:, :, :16].any()
    assert (seen["top"][:, :, :16] == -1).all()
    close("output", seen.output, exact.output, 1e-5 if dtype == torch.float32 else 2e-2)
    for name in ("entropy", "received"):
        close(name, seen[name], exact[name], 2e-5)


def test_rows_may_begin_at_tiles_of_their_own(instructions: str) -> None:
    q, k, v = tensors(1, 1, 1, 100, 1024, 32, 32, torch.float32)
    begin = 256 * (torch.arange(100) % 3)
    options: dict[str, Any] = {"mask": sl.Intervals(begin, torch.full((100,), 1024))}
    asked = {"lse": sl.LogSumExp(), "entropy": sl.Entropy()}
    seen = sl.observe(q, k, v, asked, backend="cpu", **options)
    exact = sl.observe(q.double(), k.double(), v.double(), asked, backend="dense", **options)
    close("output", seen.output, exact.output, 1e-5)
    for name, want in exact.items():
        close(name, seen[name], want, 2e-5)


def test_what_is_not_served_is_refused_with_reasons() -> None:
    q = torch.randn(1, 1, 4, 300)
    with pytest.raises(sl.Unsupported, match="widths up to 256"):
        sl.attention(q, q, q, backend="cpu")
    with pytest.raises(sl.Unsupported, match="float64"):
        sl.attention(q[..., :8].double(), q[..., :8].double(), q[..., :8].double(), backend="cpu")


def differentiable(b: int, h: int, n: int, m: int, linear: bool = False) -> dict[str, sl.Reduction]:
    return {name: r for name, r in everything(b, h, n, m).items() if r.differentiable and (r.linear or not linear)}


def gradients(
    inputs: dict[str, Tensor],
    options: dict[str, Any],
    backend: str,
    dtype: torch.dtype | None = None,
    linear: bool = False,
) -> dict[str, Tensor]:
    """The gradients of q, k, v, sinks, a bias and every operand, where the output and all there is flow back.

    In the inputs' own dtypes or all in `dtype`. linear: nothing but what is linear in the weights of its row.
    """
    leaves = {n: (t if dtype is None else t.to(dtype)).detach().requires_grad_() for n, t in inputs.items()}
    q, k, v = leaves["q"], leaves["k"], leaves["v"]
    asked = {}
    for name, r in differentiable(*q.shape[:3], k.shape[2], linear).items():
        floats = [t if dtype is None else t.to(dtype) for t in r.floating()]
        for at, t in enumerate(floats):
            leaves[f"{name}.{at}"] = t.requires_grad_()
        given = iter(floats)
        asked[name] = r.map(lambda _, given=given: next(given))
    more: dict[str, Any] = {"bias": sl.DenseBias(leaves["dense"])} if "dense" in leaves else {}
    if "slopes" in leaves:
        more["bias"] = sl.Alibi(leaves["slopes"])
    if "sinks" in leaves:
        more["sinks"] = leaves["sinks"]
    seen = sl.observe(q, k, v, asked, backend=backend, **{**options, **more})
    results = [seen.output, *seen.values()]
    g = torch.Generator().manual_seed(3)
    towards = [torch.randn(t.shape, generator=g).to(inputs["q"].dtype).to(t.dtype) for t in results]
    finite = [t.where(t.detach().isfinite(), 0) for t in results]
    return dict(zip(leaves, torch.autograd.grad(finite, list(leaves.values()), towards)))


@pytest.fixture
def native_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """The strips that the backend may fall back to are not there."""
    monkeypatch.setattr(cpu._by_strips, "backward", None)


@pytest.mark.parametrize("offsets", ["known", "strips", "twice"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("case", CASES)
def test_gradients_are_those_of_the_definition(
    case: str,
    dtype: torch.dtype,
    offsets: str,
    instructions: str,
    native_only: None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if offsets == "twice":
        monkeypatch.setattr(cpu, "STRIP_BYTES", 0)
    linear = offsets == "known"
    sizes, options = CASES[case]
    inputs = dict(zip("qkv", tensors(*sizes, dtype)))
    inputs["sinks"] = torch.randn(sizes[1], generator=torch.Generator().manual_seed(2))
    if case == "shaped":
        inputs["slopes"] = sl.Alibi.geometric(4).slopes
    if case == "biased":
        inputs["dense"] = options["bias"].values.float()
    mine = gradients(inputs, options, "cpu", linear=linear)
    right = gradients(inputs, options, "dense", torch.float64, linear)
    for name, want in right.items():
        assert mine[name].dtype == (dtype if name in ("q", "k", "v") else mine[name].dtype)
        close(name, mine[name], want, 5e-5 if dtype == torch.float32 else 2e-2)


@pytest.mark.parametrize("seed", range(60))
def test_gradients_of_small_calls_of_every_kind_are_exact(
    seed: int, instructions: str, native_only: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cpu, "STRIP_BYTES", cpu.STRIP_BYTES if seed % 2 else 0)
    case = draw(seed, (torch.float32, torch.float16))
    leaves = case.fresh()
    assert Judge(case).gradients(judged(case, case.observe(leaves, "cpu"), leaves)) == [], case


LONG: dict[str, dict[str, Any]] = {
    "plain": {},
    "causal": {"mask": sl.Causal(), "softcap": 20.0},
    "window": {"mask": sl.Causal() & sl.Window(left=300)},
    "masked": {"mask": sl.DenseMask(torch.rand(150, 2500) > 0.5)},
}


@pytest.mark.parametrize("remade", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("case", LONG)
def test_gradients_of_attention_alone_over_many_keys(
    case: str,
    dtype: torch.dtype,
    remade: bool,
    instructions: str,
    native_only: None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if remade:
        monkeypatch.setattr(cpu, "STRIP_BYTES", 0)
    inputs = tensors(1, 4, 2, 150, 2500, 40, 72, dtype)
    towards = torch.randn(1, 4, 150, 72, generator=torch.Generator().manual_seed(6)).to(dtype)

    def of(backend: str, dtype: torch.dtype) -> list[Tensor]:
        leaves = [t.to(dtype).requires_grad_() for t in inputs]
        output = sl.attention(*leaves, backend=backend, **LONG[case])
        return list(torch.autograd.grad(output, leaves, towards.to(dtype)))

    for name, mine, right in zip("qkv", of("cpu", dtype), of("dense", torch.float64)):
        close(name, mine, right, {torch.float32: 1e-5, torch.float16: 2e-3, torch.bfloat16: 2e-2}[dtype])


@pytest.mark.parametrize("n", [1, 50, 300])
def test_where_one_key_has_all_the_weight_its_logit_has_no_gradient(n: int, instructions: str) -> None:
    q, k, v = (t.requires_grad_() for t in tensors(1, 2, 2, n, n, 40, 24, torch.float32))
    # Each query sees one key.
    output = sl.attention(q, k, v, mask=sl.Intervals(torch.arange(n), torch.arange(n) + 1), backend="cpu")
    output.backward(torch.randn(output.shape, generator=torch.Generator().manual_seed(1)))
    assert not q.grad.any()
    assert not k.grad.any()
    assert v.grad.any()


@pytest.mark.parametrize("shape", list(product(*((1, size) for size in (2, 4, 100, 300)))))
def test_a_dense_bias_of_any_shape_has_its_gradient(shape: tuple[int, ...], native_only: None, threads: int) -> None:
    inputs = dict(zip("qkv", tensors(2, 4, 2, 100, 300, 16, 16, torch.float32)))
    inputs["dense"] = torch.randn(shape, generator=torch.Generator().manual_seed(5))
    options = {"mask": sl.Causal(), "softcap": 5.0}
    mine, right = gradients(inputs, options, "cpu"), gradients(inputs, options, "dense", torch.float64)
    for name in ("q", "k", "v", "dense"):
        close(name, mine[name], right[name], 2e-5)


@pytest.mark.parametrize("sizes", [(1, 4, 1, 1700, 300, 32, 32), (1, 1, 1, 3000, 5, 16, 40), (1, 2, 1, 3, 6000, 64, 8)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_gradients_are_the_same_on_any_number_of_threads(
    sizes: tuple[int, ...], dtype: torch.dtype, instructions: str, native_only: None
) -> None:
    inputs = dict(zip("qkv", tensors(*sizes, dtype)))
    inputs["slopes"] = sl.Alibi.geometric(sizes[1]).slopes
    options = {"mask": sl.Window(left=2000)}
    right = gradients(inputs, options, "dense", torch.float64)
    before = torch.get_num_threads()
    made = []
    for threads in (1, 2, 2, 5):
        torch.set_num_threads(threads)
        made.append(gradients(inputs, options, "cpu"))
    torch.set_num_threads(before)
    for name, want in right.items():
        close(name, made[0][name], want, 1e-4 if dtype == torch.float32 else 2e-2)
        assert all(torch.equal(made[0][name], other[name]) for other in made), name


def test_only_too_many_moments_have_no_native_gradients(monkeypatch: pytest.MonkeyPatch) -> None:
    q, k, v = (t.requires_grad_() for t in tensors(1, 2, 2, 9, 30, 8, 8, torch.float32))
    given: list[Any] = []
    strips = cpu._by_strips.backward
    monkeypatch.setattr(cpu._by_strips, "backward", lambda *args: given.append(args) or strips(*args))
    for count in (7, 8):  # the output is one more
        seen = sl.observe(q, k, v, {str(at): sl.RowMoment(v) for at in range(count)}, backend="cpu")
        (seen.output + sum(seen.values())).sum().backward()
        assert len(given) == count - 7
    assert cpu.backward_refusals(given[0][0], given[0][3]) == ["its backward takes at most 8 moments"]


@pytest.mark.parametrize("part", ["signed", "positive", "absolute"])
@pytest.mark.parametrize("case", ["causal", "window", "decode", "few"])
def test_gradient_weighted_attention_is_what_the_definition_says(
    case: str, part: Any, instructions: str, threads: int
) -> None:
    sizes, options = CASES[case]
    q, k, v = tensors(*sizes, torch.float32)
    grad_out = torch.randn(*q.shape[:3], v.shape[-1], generator=torch.Generator().manual_seed(4))
    b, h, n, m = *q.shape[:3], k.shape[2]
    asked = {
        name: r
        for name, r in everything(b, h, n, m).items()
        if isinstance(r, sl.Received | sl.ColumnMoment | sl.BlockMass | sl.Rows | sl.Entries)
    }
    mine = sl.relevance(sl.AttentionMatrix(q, k, backend="cpu", **options), v, grad_out, asked, part=part)
    options = {name: t.double() if name == "sinks" else t for name, t in options.items()}
    exact = sl.AttentionMatrix(q.double(), k.double(), backend="dense", **options)
    asked = {name: r.to(torch.float64) for name, r in asked.items()}
    right = sl.relevance(exact, v.double(), grad_out.double(), asked, part=part)
    for name, want in right.items():
        close(name, mine[name], want, 2e-5)


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_outputs_are_no_further_from_float64_than_pytorchs_own(
    dtype: torch.dtype, instructions: str, causal: bool
) -> None:
    q, k, v = tensors(1, 4, 4, 600, 600, 64, 64, dtype)
    attend = torch.nn.functional.scaled_dot_product_attention
    exact = attend(q.double(), k.double(), v.double(), is_causal=causal)
    theirs = (attend(q, k, v, is_causal=causal).double() - exact).square().mean().sqrt()
    mine = (sl.attention(q, k, v, mask=sl.Causal() if causal else None, backend="cpu").double() - exact).square()
    limit = 1.02
    if dtype == torch.float32:  # sums of floats are made in other orders; of thirds, with fewer roundings
        limit = 0.7 if instructions == "amx_bf16" else 1.1
    assert mine.mean().sqrt() < limit * theirs


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("n", [600, 1500])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_gradients_are_no_further_from_float64_than_pytorchs_own(
    dtype: torch.dtype, n: int, instructions: str, causal: bool, native_only: None
) -> None:
    inputs = tensors(1, 2, 2, n, n, 64, 64, dtype)
    towards = torch.randn(inputs[0].shape, generator=torch.Generator().manual_seed(6)).to(dtype)
    attend = torch.nn.functional.scaled_dot_product_attention

    def of(given: tuple[Tensor, ...], call: Any) -> list[Tensor]:
        leaves = [t.detach().requires_grad_() for t in given]
        made = torch.autograd.grad(call(*leaves), leaves, towards.to(given[0].dtype))
        return [t.double() for t in made]

    exact = of(tuple(t.double() for t in inputs), lambda *x: attend(*x, is_causal=causal))
    theirs = of(inputs, lambda *x: attend(*x, is_causal=causal))
    mine = of(inputs, lambda *x: sl.attention(*x, mask=sl.Causal() if causal else None, backend="cpu"))
    for name, a, b, want in zip("qkv", mine, theirs, exact):
        own, other = ((t - want).square().mean().sqrt() for t in (a, b))
        limit = 1.02 if dtype == torch.bfloat16 else 1.3  # sums of floats are made in other orders
        assert own < limit * other, f"{name}: {own / other:.3f}"


def ranked(keys: str, m: int) -> Tensor:
    """Keys [m, 4], of integers: any product with a query of integers is exact, so that equals are equal."""
    if keys == "tied":
        return torch.randint(-1, 2, (m, 4), generator=torch.Generator().manual_seed(m)).float()
    if keys == "equal":
        return torch.ones(m, 4)
    steps = torch.arange(m, dtype=torch.float32)[:, None]
    up = torch.cat([steps // 64, steps % 64, torch.zeros(m, 2)], 1)  # each fits a bf16
    return up if keys == "ascending" else up.flip(0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("count", [1, 2, 5, 8, 9, 16, 40])
@pytest.mark.parametrize("keys", ["tied", "equal", "ascending", "descending"])
def test_the_largest_come_in_order_and_of_equals_the_first(
    keys: str, count: int, dtype: torch.dtype, instructions: str
) -> None:
    g = torch.Generator().manual_seed(count)
    for n, m in ((70, 1500), (3, 5000)):
        k = ranked(keys, m).to(dtype)[None, None]
        q = torch.tensor([64.0, 1.0, 0.0, 0.0]).expand(n, 4) if keys.endswith("scending") else None
        q = (torch.randint(-2, 3, (n, 4), generator=g).float() if q is None else q).to(dtype)[None, None]
        asked = {"top": sl.TopK(count), "peak": sl.Peak()}
        seen = sl.observe(q, k, k, asked, mask=sl.Causal(), scale=0.5, backend="cpu")
        s = (q.double() @ k.double().mT).masked_fill(~torch.ones(n, m).tril(m - n).bool(), -torch.inf)
        best = s.sort(stable=True, dim=-1, descending=True).indices[..., :count]
        assert torch.equal(seen["top"], best)
        assert torch.equal(seen["peak"].key, best[..., 0])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_least_finite_logit_is_in_a_list_that_has_room(dtype: torch.dtype, instructions: str) -> None:
    """Masks of the field are often the least number in place of -inf: such keys are admitted, and come last."""
    n, m = 70, 1500
    q, k = torch.ones(1, 1, n, 4, dtype=dtype), torch.ones(1, 1, m, 4, dtype=dtype)
    bias = torch.full((1, 1, n, m), torch.finfo(torch.float32).min)
    bias[..., 700] = 0
    seen = sl.observe(q, k, k, {"top": sl.TopK(3)}, bias=sl.DenseBias(bias), backend="cpu")
    assert torch.equal(seen["top"], torch.tensor([700, 0, 1]).expand(1, 1, n, 3))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_what_long_strips_are_kept_for_changes_no_bit(dtype: torch.dtype, instructions: str) -> None:
    """Blocks have fewer rows where a strip of weights would be long: a row has the same bits in any block."""
    n, m = 400, 4000
    q, k, v = (torch.randn(1, 1, s, 16, generator=torch.Generator().manual_seed(s)).to(dtype) for s in (n, m, m + 1))
    v = v[:, :, :m]
    asked = {"entropy": sl.Entropy(), "top": sl.TopK(3), "output": sl.RowMoment(v)}
    alone = sl.observe(q, k, v, asked, mask=sl.Causal(), backend="cpu")
    beside = sl.observe(q, k, v, {**asked, "received": sl.Received()}, mask=sl.Causal(), backend="cpu")
    assert torch.equal(alone.output, beside.output)
    for name in asked:
        assert torch.equal(alone[name], beside[name]), name


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
@pytest.mark.parametrize(
    "factors", [(1e18, 1e-18, 1e30), (1e-36, 1e30, 1e-36), (1, 1, 1e-36), (30, 1, 60000), (0, 1, 0)]
)
def test_floats_may_be_huge_or_tiny(factors: tuple[float, float, float], dtype: torch.dtype, instructions: str) -> None:
    """Matrix registers multiply parts of floats, which overflow, or underflow, before they do."""
    q, k, v = (t * factor for t, factor in zip(tensors(1, 4, 2, 90, 300, 40, 24, torch.float32), factors, strict=True))
    q, k, v = (t.to(dtype).clamp(torch.finfo(dtype).min, torch.finfo(dtype).max) for t in (q, k, v))
    asked = {"entropy": sl.Entropy(), "received": sl.Received(), "more": sl.RowMoment(torch.randn(1, 1, 300, 3) * 1e30)}
    seen = sl.observe(q, k, v, asked, mask=sl.Causal(), backend="cpu")
    exact = sl.observe(
        q.double(),
        k.double(),
        v.double(),
        {name: r.to(torch.float64) for name, r in asked.items()},
        mask=sl.Causal(),
        backend="dense",
    )
    unit = factors[2] or 1
    close("output", seen.output.double() / unit, exact.output / unit, 2e-5 if dtype == torch.float32 else 1e-3)
    for name, want in exact.items():
        close(name, seen[name], want, 2e-5)


@pytest.mark.parametrize("factors", [(1, 1e30), (1, 1e-36), (1e30, 1e-30), (1e-36, 1), (1, 0)])
def test_what_gradients_are_made_of_may_be_huge_or_tiny(factors: tuple[float, float], instructions: str) -> None:
    q, k, v = tensors(1, 4, 2, 90, 300, 40, 24, torch.float32)
    v, towards = v * factors[0], torch.randn(1, 4, 90, 24, generator=torch.Generator().manual_seed(7)) * factors[1]

    def of(backend: str, dtype: torch.dtype) -> list[Tensor]:
        leaves = [t.to(dtype).requires_grad_() for t in (q, k, v)]
        output = sl.attention(*leaves, mask=sl.Causal(), backend=backend)
        return list(torch.autograd.grad(output, leaves, towards.to(dtype)))

    for name, mine, right in zip("qkv", of("cpu", torch.float32), of("dense", torch.float64)):
        unit = right.abs().amax().item() or 1.0
        close(name, mine.double() / unit, right / unit, 1e-5)


@pytest.mark.parametrize("value", [torch.inf, torch.nan, 3.4e38])
@pytest.mark.parametrize("where", ["q", "k", "v", "more"])
def test_what_is_not_finite_stays_where_it_is(where: str, value: float, instructions: str) -> None:
    """Rows that such a number is no part of are as close as ever; other results than the values' own keep every bit."""
    q, k, v = tensors(1, 2, 1, 120, 300, 32, 32, torch.float32)
    given = {"q": q, "k": k, "v": v, "more": torch.randn(1, 1, 300, 3)}

    def observed() -> dict[str, Tensor]:
        asked = {"entropy": sl.Entropy(), "more": sl.RowMoment(given["more"])}
        seen = sl.observe(given["q"], given["k"], given["v"], asked, mask=sl.Causal(), backend="cpu")
        return {"output": seen.output, "entropy": seen["entropy"], "more": seen["more"]}

    before = observed()
    given[where] = given[where].clone()
    given[where][0, 0, 110 if where == "q" else 250, 2] = value
    after = observed()
    apart = {"q": set(), "k": set(), "v": {"entropy", "more"}, "more": {"entropy", "output"}}[where]
    for name, was in before.items():
        if name in apart:
            assert torch.equal(was, after[name]), name
        elif where in "qk":  # keys before 250, and query 110 apart
            close(name, after[name][:, :, :70], was[:, :, :70].double(), 1e-5)
    if where in ("v", "more"):  # queries from 70 on admit key 250
        mine = after["output" if where == "v" else "more"][:, :, 70:, 2]
        assert torch.isnan(mine).all() if value != value else (mine > 1e30).all()
