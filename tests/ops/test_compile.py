"""torch.compile, whole graphs only: results and gradients are those of eager mode, for any shape."""

from __future__ import annotations

import shutil
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch._dynamo.testing import CompileCounterWithBackend

from ops.samples import HK, B, D, H, inputs, tensor
from sightline import (
    Alibi,
    AttentionMatrix,
    BlockMass,
    BlockMax,
    Causal,
    ColumnMax,
    ColumnMoment,
    DenseBias,
    Entries,
    Entropy,
    Lengths,
    LogSumExp,
    Packed,
    Peak,
    Prefix,
    Received,
    RelativeBias,
    RowMoment,
    Rows,
    SegmentMass,
    TopK,
    Window,
    attention,
    observe,
    relevance,
    rollout,
)


@pytest.fixture(autouse=True)
def _fresh() -> Iterator[None]:
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


def everything(
    q: Tensor, k: Tensor, v: Tensor, bias: Tensor, sinks: Tensor, w: Tensor, f: Tensor,
    lengths: Tensor, ids: Tensor, keys: Tensor, rows: Tensor,
) -> dict[str, Any]:  # fmt: skip
    reductions = {
        "entropy": Entropy(),
        "lse": LogSumExp(),
        "peak": Peak(),
        "top": TopK(3),
        "entries": Entries(keys),
        "moment": RowMoment(f),
        "segments": SegmentMass(ids, 3),
        "rows": Rows(rows),
        "received": Received(),
        "weighted": Received(w),
        "columns": ColumnMoment(w[..., None]),
        "largest": ColumnMax(),
        "blocks": BlockMass(2, 3),
        "tops": BlockMax(2, 3),
    }
    mask = Causal() & Window(4) & Lengths(k=lengths)
    added = Alibi(sinks.detach().abs()) + DenseBias(bias)
    seen = observe(q, k, v, reductions, mask=mask, bias=added, softcap=5.0, sinks=sinks)
    return {"output": seen.output, **seen}


def leaves(n: int, m: int) -> list[Tensor]:
    """What gradients flow to: q, k, v, bias, sinks, w, f."""
    shapes = [(B, H, n, D), (B, HK, m, D), (B, HK, m, D + 1), (B, 1, n, m), (H,), (B, H, n), (1, HK, m, 2)]
    return [tensor(*shape, seed=at, grad=True) for at, shape in enumerate(shapes)]


def others(n: int, m: int) -> list[Tensor]:
    """lengths, ids, keys, rows."""
    keys = torch.arange(B * n * 2).reshape(B, 1, n, 2) % m
    return [torch.tensor([m, m - 2]), torch.arange(m).expand(B, m) % 3, keys, torch.tensor([0, -1])]


def run(call: Callable[..., dict[str, Any]], n: int, m: int) -> tuple[list[Tensor], list[Tensor]]:
    """Every result, and every gradient of a weighted sum of those that have one."""
    given = leaves(n, m)
    made = torch.utils._pytree.tree_leaves(call(*given, *others(n, m)))
    flowing = [t for t in made if t.requires_grad]
    assert len(flowing) == 11  # the output and ten reductions; selections carry none
    grads = [torch.arange(1.0, t.numel() + 1, dtype=t.dtype).reshape(t.shape).cos() for t in flowing]
    torch.autograd.backward(flowing, grads)
    return made, [t.grad for t in given]  # type: ignore[misc]


def agree(compiled: Callable[..., Any], n: int, m: int) -> None:
    (made, grads), (expected, expected_grads) = run(compiled, n, m), run(everything, n, m)
    for actual, wanted in zip([*made, *grads], [*expected, *expected_grads], strict=True):
        torch.testing.assert_close(actual, wanted, rtol=1e-13, atol=1e-13)


def test_every_reduction_and_gradient_compiles_to_one_graph() -> None:
    count = CompileCounterWithBackend("aot_eager")
    agree(torch.compile(everything, fullgraph=True, backend=count), 5, 7)
    assert count.frame_count == 1


def test_one_graph_serves_every_length() -> None:
    count = CompileCounterWithBackend("aot_eager")
    compiled = torch.compile(everything, fullgraph=True, dynamic=True, backend=count)
    for n, m in ((5, 7), (6, 9), (8, 8), (3, 12)):
        agree(compiled, n, m)
    assert count.frame_count == 1


def test_without_gradients_it_compiles_too() -> None:
    given = [t.detach() for t in leaves(5, 7)] + others(5, 7)
    compiled = torch.compile(everything, fullgraph=True, backend="aot_eager")
    for actual, wanted in zip(
        *map(torch.utils._pytree.tree_leaves, (compiled(*given), everything(*given))), strict=True
    ):
        torch.testing.assert_close(actual, wanted, rtol=0, atol=0)


CALLS: dict[str, Callable[[Tensor, Tensor, Tensor], Any]] = {
    "packed": lambda q, k, v: attention(q, k, v, mask=Packed(torch.tensor([0, 2, 5]))),
    "prefix": lambda q, k, v: attention(q, k, v, mask=Prefix(3)),
    "a learned bias": lambda q, k, v: attention(q, k, v, bias=RelativeBias(torch.ones(8, H, dtype=q.dtype))),
    "the definition": lambda q, k, v: attention(q, k, v, mask=Causal(), backend="dense"),
    # As reductions: dynamo does not trace `@` between a tensor and anything but a tensor.
    "products": lambda q, k, v: AttentionMatrix(q, k).reduce({"P v": RowMoment(v), "Pᵀ q": ColumnMoment(q)}),
    "a slice": lambda q, k, v: AttentionMatrix(q, k, mask=Causal())[..., 1:4:2, -3:],
    "one entry": lambda q, k, v: AttentionMatrix(q, k)[1, -1, 2, 3],
    "rollout": lambda q, k, v: rollout([AttentionMatrix(q, k[:, :, :5])] * 2, torch.ones(B, 5, dtype=q.dtype)),
}


@pytest.mark.parametrize("name", list(CALLS))
def test_the_other_calls_compile_to_one_graph_with_their_gradients(name: str) -> None:
    def outcome(call: Callable[..., Any]) -> list[Tensor | None]:
        given = inputs(grad=True)
        made = torch.utils._pytree.tree_leaves(call(*given))
        torch.autograd.backward(made, [t.detach().cos() for t in made])
        return [*made, *(t.grad for t in given)]

    compiled = outcome(torch.compile(CALLS[name], fullgraph=True, backend="aot_eager"))
    for actual, wanted in zip(compiled, outcome(CALLS[name]), strict=True):
        assert (actual is None) == (wanted is None)
        if actual is not None:
            torch.testing.assert_close(actual, wanted, rtol=1e-13, atol=1e-13)


def test_relevance_compiles_to_one_graph() -> None:
    def call(q: Tensor, k: Tensor, v: Tensor) -> Any:
        P = AttentionMatrix(q, k, mask=Causal())
        reductions = {"it": Received(), "blocks": BlockMass(2, 2)}
        return relevance(P, v, attention(q, k, v).detach(), reductions, part="positive")

    compiled = torch.compile(call, fullgraph=True, backend="aot_eager")(*inputs())
    for name, wanted in call(*inputs()).items():
        torch.testing.assert_close(compiled[name], wanted, rtol=1e-13, atol=1e-13)


@pytest.mark.skipif(not any(map(shutil.which, ("c++", "g++", "clang++"))), reason="inductor needs a C++ compiler")
def test_inductor_gives_the_output_the_reductions_and_the_gradients() -> None:
    def call(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        seen = observe(q, k, v, {"entropy": Entropy(), "received": Received()}, mask=Causal())
        return (seen.output * 2).sum() + seen["entropy"].sum() + seen["received"].square().sum()

    def outcome(call: Callable[..., Tensor]) -> list[Tensor]:
        given = inputs(grad=True)
        made = call(*given)
        made.backward()
        return [made, *(t.grad for t in given)]  # type: ignore[list-item]

    for actual, wanted in zip(outcome(torch.compile(call, fullgraph=True)), outcome(call), strict=True):
        torch.testing.assert_close(actual, wanted, rtol=1e-12, atol=1e-12)


def test_the_first_call_of_a_process_may_be_a_compiled_one(tmp_path: Path) -> None:
    script = """
        import torch
        from sightline import BlockMass, Causal, Entropy, Received, Window, observe

        def call(q, k, v):
            seen = observe(q, k, v, {"entropy": Entropy(), "received": Received(), "blocks": BlockMass(2, 2)},
                           mask=Causal() & Window(2))
            return seen.output.sum() + seen["entropy"].sum() + seen["received"].square().sum() + seen["blocks"].amax()

        def outcome(call):
            g = torch.Generator().manual_seed(0)
            given = [torch.randn(1, 2, 6, 4, generator=g).requires_grad_() for _ in range(3)]
            made = call(*given)
            made.backward()
            return [made, *(t.grad for t in given)]

        compiled = outcome(torch.compile(call, fullgraph=True, backend="aot_eager"))
        for actual, wanted in zip(compiled, outcome(call), strict=True):
            torch.testing.assert_close(actual, wanted, rtol=1e-5, atol=1e-6)
        print("agreed")
    """
    path = tmp_path / "first.py"
    path.write_text(textwrap.dedent(script), encoding="utf-8")
    done = subprocess.run([sys.executable, str(path)], capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.split() == ["agreed"]
