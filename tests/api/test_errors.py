"""Every error says what was asked, what is true, and what to do."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

import sightline as sl
from sightline import (
    Alibi,
    AttentionMatrix,
    BlockMass,
    Causal,
    DenseBias,
    DenseMask,
    Entropy,
    Intervals,
    Lengths,
    Packed,
    Prefix,
    RelativeBias,
    ShapeError,
    SightlineError,
    SpecError,
    TopK,
    Unsupported,
    Window,
    attention,
    observe,
)


def zeros(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.zeros(shape, dtype=dtype)


Q, K, V = zeros(2, 4, 5, 3), zeros(2, 2, 7, 3), zeros(2, 2, 7, 6)


def ints(*values: int) -> Tensor:
    return torch.tensor(values)


def call(**given: Any) -> Callable[[], Any]:
    return lambda: attention(given.pop("q", Q), given.pop("k", K), given.pop("v", V), **given)


def reduce(reduction: Any) -> Callable[[], Any]:
    return lambda: AttentionMatrix(Q, K).reduce({"it": reduction})


#: name: (the call, the error, what it says of what was asked, of what is true, of what to do)
TENSORS: dict[str, tuple[Callable[[], Any], type[SightlineError], str, str, str]] = {
    "q with three dimensions": (call(q=Q[0]), ShapeError, r"q must be \[b, h, n, d\]", r"\(4, 5, 3\)", "unsqueeze"),
    "k with five dimensions": (
        call(k=K[None]), ShapeError, r"k must be \[b, hk, m, d\]", r"\(1, 2, 2, 7, 3\)", "[Aa]dd|Remove|Use",
    ),
    "v with three dimensions": (
        call(v=V[0]), ShapeError, "v must be", r"\(2, 7, 6\)", r"\[b, hk, m, dv\] with b=2, hk=2, m=7",
    ),
    "integers": (call(q=Q.long()), ShapeError, "q must be floating point", "torch.int64", r"\.float\(\)"),
    "complex numbers": (call(k=K.cfloat()), ShapeError, "k must be floating point", "torch.complex64", "Convert"),
    "two dtypes": (
        call(q=Q.double()), ShapeError, "q and k must share a dtype", "torch.float64 and torch.float32", "Convert",
    ),
    "v of another dtype": (
        call(v=V.half()), ShapeError, "v must share dtype", "torch.float16", "with k.*torch.float32",
    ),
    "two batch sizes": (call(q=Q[:1]), ShapeError, "share the batch size", "q has 1, k has 2", "Expand"),
    "two widths": (
        call(k=K[..., :2]), ShapeError, "share the width d", "q has 3, k has 2",
        r"(?i)\. *(project|check|use|cut|pad|give)",
    ),
    "no query": (call(q=Q[:, :, :0]), ShapeError, "every dimension must be at least 1", "n is 0", "Leave out"),
    "no key": (
        call(k=K[:, :, :0], v=V[:, :, :0]), ShapeError, "every dimension must be at least 1", "m is 0", "Leave out",
    ),
    "no width": (
        call(q=Q[..., :0], k=K[..., :0]), ShapeError, "every dimension must be at least 1", "d is 0", "Leave out",
    ),
    "values without width": (call(v=V[..., :0]), ShapeError, "v must be", r"\(2, 2, 7, 0\)", "dv at least 1"),
    "values for other keys": (call(v=V[:, :, :6]), ShapeError, "v must be", r"\(2, 2, 6, 6\)", "m=7"),
    "values with query heads": (call(v=zeros(2, 4, 7, 6)), ShapeError, "v must be", r"\(2, 4, 7, 6\)", "hk=2"),
    "head counts that do not divide": (
        call(k=zeros(2, 3, 7, 3), v=zeros(2, 3, 7, 6)), ShapeError, "query heads must be a multiple of the key heads",
        "q has 4, k has 3", r"(?i)\. *(repeat|use|give|check|reshape|drop|pass)",
    ),
    "more key heads than query heads": (
        call(q=Q[:, :1]), ShapeError, "query heads must be a multiple of the key heads", "q has 1, k has 2",
        r"(?i)\. *(repeat|use|give|check|reshape|drop|pass)",
    ),
    "a list for q": (call(q=[[1.0]]), ShapeError, "q must be", "list", r"(?i)torch\.tensor|tensor"),
    "None for v": (call(v=None), ShapeError, "v must be", "NoneType", "(?i)tensor"),
}  # fmt: skip

OPTIONS: dict[str, tuple[Callable[[], Any], type[SightlineError], str, str, str]] = {
    "a scale that is no number": (call(scale=float("nan")), SpecError, "scale must be finite", "it is nan", "finite"),
    "a softcap of 0": (call(softcap=0.0), SpecError, "softcap must be a positive number", "it is 0.0", "Leave it out"),
    "a negative softcap": (
        call(softcap=-1.0), SpecError, "softcap must be a positive number", "it is -1.0", "Leave it out",
    ),
    "an infinite softcap": (call(softcap=float("inf")), SpecError, "softcap must be", "it is inf", "Leave it out"),
    "sinks for other heads": (
        call(sinks=zeros(3)), ShapeError, r"sinks must be", r"shape \(3,\)", r"floating point \[h\] with h=4",
    ),
    "sinks of integers": (call(sinks=ints(0, 0, 0, 0)), ShapeError, r"sinks must be", "torch.int64", r"floating point"),
    "a list of sinks": (call(sinks=[0.0] * 4), ShapeError, "sinks must be", "list", r"(?i)tensor|\[h\]"),
    "an unknown backend": (call(backend="cuda"), SpecError, "backend='cuda'", "'tiled'.*'dense'", "'auto'"),
    "no backend": (call(backend=None), SpecError, "backend=None", "'tiled'.*'dense'", "'auto'"),
    "a mask's class": (call(mask=Causal), SpecError, "mask must be", "Causal|class|type", r"Write Causal\(\)"),
    "a boolean tensor for a mask": (call(mask=zeros(5, 7).bool()), SpecError, "mask must be", "Tensor", r"DenseMask"),
    "a string for a mask": (call(mask="causal"), SpecError, "mask must be", "str", r"Causal\(\)"),
    "a mask for a bias": (call(bias=Causal()), SpecError, "bias must be", "Causal", "Alibi|bias"),
    "a tensor for a bias": (call(bias=zeros(5, 7)), SpecError, "bias must be", "Tensor", "DenseBias"),
    "a bias's class": (call(bias=Alibi), SpecError, "bias must be", "Alibi|class|type", r"Alibi\(slopes\)|Write Alibi"),
    "a mask and a tensor": (lambda: Causal() & zeros(5, 7).bool(), SpecError, "(?i)mask", "Tensor", "DenseMask"),
    "a mask and nothing": (lambda: Causal() & None, SpecError, "(?i)mask", "None", "(?i)leave|drop|mask"),
    "a bias and a tensor": (lambda: Alibi(zeros(4)) + zeros(5, 7), SpecError, "(?i)bias", "Tensor", "DenseBias"),
}  # fmt: skip

MASKS: dict[str, tuple[Callable[[], Any], type[SightlineError], str, str, str]] = {
    "contradictory masks": (
        call(mask=Causal() & Lengths(k=ints(0, 0))), SpecError, r"Causal\(\) & Lengths",
        "no query may see any of the 7 keys", "Check",
    ),
    "intervals that never meet": (
        call(mask=Window(0, 0) & Intervals(ints(0, 0, 0, 0, 0), ints(1, 1, 1, 1, 1))), SpecError,
        r"Window\(.* & Intervals",
        "contradict each other", "Check",
    ),
    "a negative window": (lambda: Window(-1), SpecError, r"Window\(left=-1\)", "must not be negative", "Use None"),
    "a negative window ahead": (
        lambda: Window(right=-2), SpecError, r"Window\(right=-2\)", "must not be negative", "Use None",
    ),
    "lengths for another batch": (
        call(mask=Lengths(k=ints(1, 2, 3))), ShapeError, "Lengths.k must be", r"\(3,\)", r"integers \[b\] with b=2",
    ),
    "fractional lengths": (
        call(mask=Lengths(q=zeros(2))), ShapeError, "Lengths.q must be", "torch.float32", "integers",
    ),
    "lengths beyond the keys": (
        call(mask=Lengths(k=ints(3, 8))), SpecError, "Lengths.k", "from 3 to 8", "between 0 and 7",
    ),
    "negative lengths": (call(mask=Lengths(q=ints(-1, 2))), SpecError, "Lengths.q", "from -1 to 2", "between 0 and 5"),
    "a prefix beyond the keys": (call(mask=Prefix(8)), SpecError, "Prefix.length", "8", "between 0 and 7"),
    "boundaries that fall": (
        call(mask=Packed(ints(0, 3, 2))), SpecError, "Packed.cu_q", r"\[0, 3, 2\]", "rise from 0 to at most 5",
    ),
    "boundaries that start late": (call(mask=Packed(ints(1, 3))), SpecError, "Packed.cu_q", r"\[1, 3\]", "rise from 0"),
    "boundaries beyond the keys": (
        call(mask=Packed(ints(0, 5), ints(0, 8))), SpecError, "Packed.cu_k", r"\[0, 8\]", "at most 7",
    ),
    "one boundary": (call(mask=Packed(ints(0))), ShapeError, r"Packed.cu_q must be", r"\(1,\)", r"integers \[s \+ 1\]"),
    "different sequences": (
        call(mask=Packed(ints(0, 5), ints(0, 3, 7))), ShapeError, "same sequences", "1 and 2", "must name the same",
    ),
    "intervals for other queries": (
        call(mask=Intervals(ints(0), ints(7))), ShapeError, "Intervals.lo must be", r"\(1, 1\)", r"n=5",
    ),
    "a mask of numbers": (
        call(mask=DenseMask(zeros(5, 7))), SpecError, "DenseMask takes a boolean", "torch.float32", "DenseBias",
    ),
    "a mask of another shape": (
        call(mask=DenseMask(zeros(5, 6).bool())), ShapeError, "DenseMask must broadcast", r"\(1, 1, 5, 6\)|\(5, 6\)",
        "full size or 1",
    ),
    "a mask with five dimensions": (
        call(mask=DenseMask(zeros(1, 1, 1, 5, 7).bool())), ShapeError, "DenseMask must broadcast", r"\(1, 1, 1, 5, 7\)",
        "full size or 1",
    ),
    "a bias of booleans": (
        call(bias=DenseBias(zeros(5, 7).bool())), SpecError, "DenseBias takes floating point", "torch.bool",
        "DenseMask",
    ),
    "a bias of another shape": (
        call(bias=DenseBias(zeros(3, 5, 7))), ShapeError, "DenseBias must broadcast", r"\(1, 3, 5, 7\)|\(3, 5, 7\)",
        "full size or 1",
    ),
    "slopes for other heads": (call(bias=Alibi(zeros(3))), ShapeError, "Alibi.slopes must be", r"\(3,\)", "h=4"),
    "a table for other heads": (
        call(bias=RelativeBias(zeros(8, 3))), ShapeError, "RelativeBias.table must be", r"\(8, 3\)", "h=4",
    ),
    "too few buckets": (call(bias=RelativeBias(zeros(2, 4))), SpecError, "RelativeBias needs", "has 2", "at least 4"),
    "an odd number of buckets": (
        call(bias=RelativeBias(zeros(7, 4))), SpecError, "RelativeBias needs an even", "has 7", "even number",
    ),
    "too short a distance": (
        call(bias=RelativeBias(zeros(32, 4), max_distance=8)), SpecError, "max_distance", "it is 8", "must exceed 8",
    ),
}  # fmt: skip

REDUCTIONS: dict[str, tuple[Callable[[], Any], type[SightlineError], str, str, str]] = {
    "a reduction's class": (
        reduce(Entropy), SpecError, "reduction 'it' must be a Reduction", "class.*Entropy", r"Write Entropy\(\)",
    ),
    "a reduction's class, observed": (
        lambda: observe(Q, K, V, {"e": Entropy}), SpecError, "reduction 'e' must be a Reduction", "class.*Entropy",
        r"Write Entropy\(\)",
    ),
    "a number for a reduction": (
        reduce(3), SpecError, "reduction 'it' must be a Reduction", "it is 3", r"such as Entropy\(\)",
    ),
    "a list of reductions": (
        lambda: observe(Q, K, V, [Entropy()]), SpecError, "(?i)reductions", "list", r"(?i)name|mapping|dict",
    ),
    "too many of the largest": (reduce(TopK(65)), Unsupported, r"TopK\(k=65\)", "at most 64", r"Rows\(i\)"),
    "none of the largest": (reduce(TopK(0)), SpecError, r"TopK\(k=0\)", "must ask for at least one", "at least one"),
    "a fraction of the largest": (reduce(TopK(2.5)), SpecError, r"TopK", "2.5|float", "(?i)integer|int"),
    "a string of the largest": (reduce(TopK("3")), SpecError, r"TopK", "'3'|str", "(?i)integer|int"),
    "fractional blocks": (reduce(BlockMass(2.5, 2)), SpecError, "BlockMass", "2.5|float", "(?i)integer|int|at least 1"),
    "a matrix times a word": (
        lambda: AttentionMatrix(Q, K) @ "v", ShapeError, "RowMoment.f|@|product", "str", "(?i)tensor|floating",
    ),
    "relevance of a tensor": (
        lambda: sl.relevance(zeros(2, 4, 5, 7), V, zeros(2, 4, 5, 6), {}), SpecError, "relevance", "Tensor",
        "AttentionMatrix",
    ),
}  # fmt: skip

CASES = {**TENSORS, **OPTIONS, **MASKS, **REDUCTIONS}


@pytest.mark.parametrize("name", list(CASES))
def test_the_error_says_what_was_asked_what_is_true_and_what_to_do(name: str) -> None:
    make, kind, asked, true, todo = CASES[name]
    with pytest.raises(kind) as why:
        make()
    said = str(why.value)
    for what, pattern in (("was asked", asked), ("is true", true), ("to do", todo)):
        assert re.search(pattern, said, re.DOTALL), f"nothing of what {what} ({pattern}) in: {said}"
    assert said.rstrip().endswith((".", "…")), f"not a sentence: {said}"


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_the_definition_refuses_coarse_inputs_and_a_named_backend_never_falls_back(dtype: torch.dtype) -> None:
    q, k, v = (t.to(dtype) for t in (Q, K, V))
    with pytest.raises(Unsupported, match=rf"backend='dense' cannot serve.*{dtype}.*backend='auto'") as why:
        attention(q, k, v, backend="dense")
    assert list(why.value.refusals) == ["dense"]
    assert len(why.value.refusals["dense"]) == 1
    assert str(dtype) in why.value.refusals["dense"][0]
    assert attention(q, k, v, backend="auto").dtype == dtype


def test_a_refusal_holds_every_reason() -> None:
    q = torch.zeros(1, 1, 2**15, 1, dtype=torch.bfloat16)
    with pytest.raises(Unsupported) as why:
        attention(q, q, q, backend="dense")
    coarse, large = why.value.refusals["dense"]
    assert "bfloat16" in coarse
    assert "32768" in large


@pytest.mark.parametrize("make", [call(backend="dense"), lambda: AttentionMatrix(Q, K, backend="dense").lse()])
def test_the_definition_serves_what_it_does_not_refuse(make: Callable[[], Any]) -> None:
    assert make() is not None


def test_every_error_is_caught_as_a_sightline_error_and_as_the_builtin_it_is() -> None:
    for kind in (ShapeError, SpecError, Unsupported, sl.InputError, sl.ModelError, sl.TraceError):
        assert issubclass(kind, SightlineError)
    assert issubclass(ShapeError, ValueError)
    assert issubclass(SpecError, ValueError)
    assert issubclass(Unsupported, NotImplementedError)
    assert Unsupported("why").refusals == {}


@pytest.mark.parametrize(
    "mask",
    [Lengths(k=ints(0, 0)), Packed(ints(0, 0)), Causal() & DenseMask(zeros(5, 7).bool()), DenseMask(zeros(1).bool())],
)
def test_a_mask_that_admits_nothing_by_itself_is_no_contradiction(mask: Any) -> None:
    v = torch.ones_like(V)
    assert not attention(Q, K, v, mask=mask).any()


def test_masks_that_leave_some_rows_without_keys_are_no_contradiction() -> None:
    made = attention(Q, K, torch.ones_like(V), mask=Causal() & Lengths(q=ints(2, 0)))
    assert made[0, :, :2].all()
    assert not made[0, :, 2:].any()
    assert not made[1].any()
