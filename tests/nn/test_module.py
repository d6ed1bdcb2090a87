"""What sightline.nn.MultiheadAttention adds to PyTorch's module, refuses, and shares with it."""

from __future__ import annotations

import copy
import inspect
import io
import math
import pickle
from typing import Any

import pytest
import torch
from torch import nn

import sightline as sl
import sightline.nn
from nn.watching import Seen, close, fused, inputs

OPTIONS: list[dict[str, Any]] = [
    {},
    {"bias": False},
    {"kdim": 3, "vdim": 5},
    {"kdim": 3, "bias": False, "add_bias_kv": True},
    {"add_bias_kv": True, "add_zero_attn": True},
]


def pair(**options: Any) -> tuple[nn.MultiheadAttention, sightline.nn.MultiheadAttention]:
    """PyTorch's module and Sightline's, with the same parameters."""
    torch.manual_seed(3)
    theirs = nn.MultiheadAttention(16, 4, **options)
    ours = sightline.nn.MultiheadAttention(16, 4, **options)
    ours.load_state_dict(theirs.state_dict())
    return theirs, ours


# -- names and state


def test_it_takes_what_pytorchs_takes() -> None:
    def parameters(call: Any) -> list[tuple[str, Any, Any]]:
        return [(p.name, p.default, p.kind) for p in inspect.signature(call).parameters.values()]

    theirs, ours = nn.MultiheadAttention, sightline.nn.MultiheadAttention
    assert issubclass(ours, theirs)
    assert parameters(ours) == parameters(theirs)
    *same, observe = parameters(ours.forward)
    assert same == parameters(theirs.forward)
    assert observe == ("observe", None, inspect.Parameter.KEYWORD_ONLY)
    assert set(sightline.nn.__all__) == {"MultiheadAttention", "replace_attention", "restore_attention"}


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_state_goes_both_ways(options: dict[str, Any]) -> None:
    theirs = nn.MultiheadAttention(16, 4, **options)
    ours = sightline.nn.MultiheadAttention(16, 4, **options)
    assert list(ours.state_dict()) == list(theirs.state_dict())
    assert [(n, p.shape) for n, p in ours.named_parameters()] == [(n, p.shape) for n, p in theirs.named_parameters()]
    before = copy.deepcopy(theirs.state_dict())
    assert str(ours.load_state_dict(theirs.state_dict())) == "<All keys matched successfully>"
    assert all(torch.equal(t, before[name]) for name, t in ours.state_dict().items())
    nn.init.zeros_(ours.out_proj.weight)
    assert str(theirs.load_state_dict(ours.state_dict())) == "<All keys matched successfully>"
    assert not theirs.out_proj.weight.any()


def test_state_of_another_layout_is_refused_as_by_pytorch() -> None:
    packed, apart = nn.MultiheadAttention(16, 4).state_dict(), nn.MultiheadAttention(16, 4, kdim=3).state_dict()
    for options, state in (({"kdim": 3}, packed), ({}, apart), ({"add_bias_kv": True}, packed)):
        said = []
        for kind in (nn.MultiheadAttention, sightline.nn.MultiheadAttention):
            with pytest.raises(RuntimeError) as caught:
                kind(16, 4, **options).load_state_dict(state)  # type: ignore[arg-type]
            said.append(str(caught.value))
        assert said[0] == said[1]


def test_it_copies_pickles_and_saves() -> None:
    _, ours = pair(batch_first=True)
    x = inputs(2, 5, 16)
    saved = io.BytesIO()
    torch.save(ours, saved)
    saved.seek(0)
    copies = [copy.deepcopy(ours), pickle.loads(pickle.dumps(ours)), torch.load(saved, weights_only=False)]
    for one in copies:
        assert type(one) is sightline.nn.MultiheadAttention
        assert torch.equal(one(x, x, x)[0], ours(x, x, x)[0])
        layer = nn.TransformerEncoderLayer(16, 4, batch_first=True).eval()
        layer.self_attn = one.eval()
        assert fused(layer, x) == set()


@pytest.mark.unpoisoned
@pytest.mark.parametrize(
    "form", [{}, {"need_weights": False, "is_causal": True}, {"observe": {"e": sl.Entropy()}}], ids=str
)
def test_it_compiles_into_one_graph(form: dict[str, Any]) -> None:
    _, ours = pair(batch_first=True)
    x = inputs(2, 5, 16)
    compiled = torch.compile(ours, fullgraph=True, backend="aot_eager")
    padding = torch.tensor([[False] * 4 + [True], [False] * 5])
    for options in ({}, {"key_padding_mask": padding}):
        (a, seen), (b, right) = (call(x, x, x, **form, **options) for call in (compiled, ours))
        assert close(a, b)
        if "observe" in form:
            assert close(seen["e"], right["e"])


def test_it_takes_autocast_as_pytorch_does() -> None:
    theirs, ours = pair()
    x = inputs(5, 2, 16)
    with torch.autocast("cpu", torch.bfloat16):
        (a, seen), (b, right) = (module(x, x, x) for module in (ours, theirs))
    assert a.dtype == b.dtype == seen.dtype == right.dtype == torch.bfloat16
    assert torch.allclose(a.float(), b.float(), atol=0.02)
    assert torch.allclose(seen.float(), right.float(), atol=0.02)


# -- observations


REDUCTIONS = {"entropy": sl.Entropy(), "received": sl.Received(), "peak": sl.Peak(), "top": sl.TopK(2)}


@pytest.mark.parametrize("options", [*OPTIONS, {"batch_first": True}], ids=str)
@pytest.mark.parametrize("batched", [True, False])
def test_observations_are_those_of_pytorchs_weights_per_head(options: dict[str, Any], batched: bool) -> None:
    theirs, ours = pair(**options)
    shape = (2, 7) if options.get("batch_first") else (7, 2)
    make = [inputs(*(shape if batched else (7,)), width) for width in (16, theirs.kdim, theirs.vdim)]
    padding = torch.zeros(2, 7, dtype=torch.bool)
    padding[0, 5:] = True
    masks = {
        "attn_mask": torch.ones(7, 7, dtype=torch.bool).triu(2),
        "key_padding_mask": padding if batched else padding[0],
    }
    right, p = theirs(*make, **masks, average_attn_weights=False)
    output, seen = ours(*make, **masks, observe=REDUCTIONS)
    p = p if batched else p[None]
    assert type(seen) is dict
    assert list(seen) == list(REDUCTIONS)
    assert close(output, right)
    assert close(seen["entropy"], -(p * p.clamp(min=1e-30).log()).sum(-1))
    assert close(seen["received"], p.sum(-2) / 7) or close(seen["received"], p.sum(-2))
    assert close(seen["peak"].value, p.amax(-1))
    assert torch.equal(seen["peak"].key, p.argmax(-1))
    assert torch.equal(seen["top"], p.topk(2).indices)


def test_observations_have_gradients() -> None:
    _, ours = pair()
    x = inputs(5, 2, 16).requires_grad_()
    ours(x, x, x, observe={"entropy": sl.Entropy()})[1]["entropy"].sum().backward()
    assert x.grad is not None
    assert x.grad.abs().max() > 1e-4
    assert ours.in_proj_weight.grad is not None


def test_each_form_of_call_has_its_own_second_result() -> None:
    _, ours = pair()
    x = inputs(5, 2, 16)
    assert ours(x, x, x)[1].shape == (2, 5, 5)
    assert ours(x, x, x, average_attn_weights=False)[1].shape == (2, 4, 5, 5)
    assert ours(x, x, x, need_weights=False)[1] is None
    assert ours(x, x, x, observe={})[1] == {}
    assert list(ours(x, x, x, observe={"e": sl.Entropy()}, need_weights=False)[1]) == ["e"]
    outputs = [ours(x, x, x, **form)[0] for form in ({}, {"need_weights": False}, {"observe": REDUCTIONS})]
    assert torch.equal(outputs[0], outputs[1])
    assert torch.equal(outputs[0], outputs[2])


# -- masks


def test_causal_needs_no_mask() -> None:
    theirs, ours = pair(batch_first=True)
    for n, m in ((6, 6), (3, 6), (6, 3)):
        q, k = inputs(2, n, 16), inputs(2, m, 16)
        mask = torch.ones(n, m, dtype=torch.bool).triu(1)
        for options in ({"need_weights": False}, {}):
            right = theirs(q, k, k, attn_mask=mask, is_causal=True, **options)[0]
            assert close(ours(q, k, k, attn_mask=mask, is_causal=True, **options)[0], right)
            assert close(ours(q, k, k, is_causal=True, **options)[0], right)


def test_a_mask_that_is_not_the_causal_one_is_noticed() -> None:
    _, ours = pair(batch_first=True)
    x = inputs(1, 6, 16)
    causal = nn.Transformer.generate_square_subsequent_mask(6)
    with_bias = causal.clone()
    with_bias[3, 1] = 0.5
    for mask, says in (
        (torch.zeros(6, 6, dtype=torch.bool), "i = 0 and j = 1 it says False"),
        (torch.ones(6, 6, dtype=torch.bool).triu(2), "i = 0 and j = 1 it says False"),
        (torch.ones(6, 6, dtype=torch.bool).triu(0), "i = 0 and j = 0 it says True"),
        (with_bias, "i = 3 and j = 1 it says 0.5"),
        (torch.stack([causal, causal, causal, with_bias]), "i = 3 and j = 1"),
    ):
        with pytest.raises(sl.SpecError, match=says):
            ours(x, x, x, attn_mask=mask, is_causal=True)
        ours(x, x, x, attn_mask=mask.triu(1) if mask.dtype == torch.bool else mask)


def test_a_learned_causal_mask_is_learned() -> None:
    _, ours = pair(batch_first=True)
    x = inputs(1, 6, 16)
    mask = nn.Transformer.generate_square_subsequent_mask(6).requires_grad_()
    ours(x, x, x, attn_mask=mask, is_causal=True, need_weights=False)[0].square().sum().backward()
    assert mask.grad is not None
    assert mask.grad.tril().any()


@pytest.mark.parametrize("need_weights", [True, False])
def test_a_query_without_keys_gives_the_bias_alone_where_pytorch_has_no_number(need_weights: bool) -> None:
    theirs, ours = pair(batch_first=True)
    nn.init.normal_(ours.out_proj.bias)
    x = inputs(2, 5, 16).requires_grad_()
    mask = torch.zeros(5, 5, dtype=torch.bool)
    mask[2] = True
    padding = torch.zeros(2, 5, dtype=torch.bool)
    padding[1] = True
    assert theirs(x, x, x, key_padding_mask=padding)[0][1].isnan().all()
    for added in (False, True):
        masks = {"attn_mask": mask, "key_padding_mask": padding}
        if added:
            masks = {name: torch.zeros(t.shape).masked_fill(t, -math.inf) for name, t in masks.items()}
        output, weights = ours(x, x, x, **masks, need_weights=need_weights)
        assert torch.equal(output[0, 2], ours.out_proj.bias)
        assert torch.equal(output[1], ours.out_proj.bias.expand(5, 16))
        assert not (output[0, 1] == ours.out_proj.bias).all()
        if need_weights:
            assert not weights[0, 2].any()
            assert not weights[1].any()
            assert torch.allclose(weights[0, 1].sum(), torch.tensor(1.0))
        (grad,) = torch.autograd.grad(output.sum(), x)
        assert grad.isfinite().all()
        assert grad.any()


def test_nothing_to_see_at_all_is_no_error_either() -> None:
    _, ours = pair(batch_first=True)
    x, all_padded = inputs(1, 5, 16), torch.ones(1, 5, dtype=torch.bool)
    for options in ({}, {"is_causal": True}, {"attn_mask": torch.zeros(5, 5, dtype=torch.bool)}):
        output, weights = ours(x, x, x, key_padding_mask=all_padded, **options)
        assert torch.equal(output, ours.out_proj.bias.expand(1, 5, 16))
        assert not weights.any()


def test_masks_may_be_of_different_types() -> None:
    theirs, ours = pair(batch_first=True)
    x = inputs(2, 5, 16)
    padding = torch.zeros(2, 5, dtype=torch.bool)
    padding[0, 3:] = True
    added = torch.randn(5, 5, generator=torch.Generator().manual_seed(1))
    numbers = torch.zeros(2, 5).masked_fill(padding, -math.inf)
    assert close(
        ours(x, x, x, attn_mask=added, key_padding_mask=padding)[0],
        theirs(x, x, x, attn_mask=added, key_padding_mask=numbers)[0],
    )


# -- refusals


@pytest.mark.parametrize(
    ("shapes", "options", "kind", "says"),
    [
        ([(5,)] * 3, {}, sl.ShapeError, r"query must be \[L, N, E\]"),
        ([(5, 2, 16, 1)] * 3, {}, sl.ShapeError, r"it has shape \(5, 2, 16, 1\)"),
        ([(5, 2, 15)] * 3, {}, sl.ShapeError, "query must have 3 dimensions, as query has, and be 16 wide"),
        ([(5, 2, 16), (5, 16), (5, 2, 16)], {}, sl.ShapeError, "key must have 3 dimensions"),
        ([(5, 2, 16), (5, 2, 16), (5, 2, 8)], {}, sl.ShapeError, "value must have 3 dimensions.* 16 wide"),
        ([(5, 2, 16), (5, 2, 16), (6, 2, 16)], {}, sl.ShapeError, "the same length and batch"),
        ([(5, 2, 16), (5, 3, 16), (5, 3, 16)], {}, sl.ShapeError, "batch size; they have 2 and 3"),
        ([(5, 2, 16)] * 3, {"attn_mask": (5, 4)}, sl.ShapeError, r"\[L, S\] = \[5, 5\] or .* = \[8, 5, 5\]"),
        ([(5, 2, 16)] * 3, {"attn_mask": (2, 5, 5)}, sl.ShapeError, r"it has shape \(2, 5, 5\)"),
        ([(5, 2, 16)] * 3, {"attn_mask": (2, 4, 5, 5)}, sl.ShapeError, "attn_mask must be"),
        ([(5, 2, 16)] * 3, {"key_padding_mask": (5, 2)}, sl.ShapeError, r"\[N, S\] = \[2, 5\]; .* the batch first"),
        ([(5, 2, 16)] * 3, {"key_padding_mask": (5,)}, sl.ShapeError, r"\[N, S\] = \[2, 5\]"),
        ([(5, 16)] * 3, {"key_padding_mask": (1, 5)}, sl.ShapeError, r"no batch, = \[5\]"),
        ([(5, 16)] * 3, {"attn_mask": (2, 5, 5)}, sl.ShapeError, r"= \[4, 5, 5\]"),
    ],
)
def test_what_does_not_fit_is_said(
    shapes: list[tuple[int, ...]], options: dict[str, tuple[int, ...]], kind: type[Exception], says: str
) -> None:
    theirs, ours = pair()
    tensors = [torch.zeros(shape) for shape in shapes]
    masks = {name: torch.zeros(shape, dtype=torch.bool) for name, shape in options.items()}
    with pytest.raises(kind, match=says):
        ours(*tensors, **masks)
    with pytest.raises((RuntimeError, AssertionError, IndexError, ValueError)):  # nothing that PyTorch takes is refused
        theirs(*tensors, **masks)


def test_what_makes_no_sense_is_said() -> None:
    _, ours = pair()
    x = torch.zeros(5, 2, 16)
    for name, shape in (("attn_mask", (5, 5)), ("key_padding_mask", (2, 5))):
        with pytest.raises(sl.SpecError, match=f"{name} must be boolean.*int64"):
            ours(x, x, x, **{name: torch.zeros(shape, dtype=torch.int64)})
    with pytest.raises(sl.SpecError, match="must be a Reduction"):
        ours(x, x, x, observe={"e": sl.Entropy})
    with pytest.raises(sl.SpecError, match="must be named"):
        ours(x, x, x, observe=[sl.Entropy()])
    for sizes in ((0, 1), (16, 0), (16, 3), (-4, 2)):
        with pytest.raises(sl.SpecError, match="positive multiple of num_heads"):
            sightline.nn.MultiheadAttention(*sizes)
    with pytest.raises(sl.Unsupported, match="Pass attn_mask"):
        pair(add_zero_attn=True)[1](x, x, x, is_causal=True)


def test_dropout_is_refused_in_training_and_means_nothing_otherwise() -> None:
    theirs, ours = pair(dropout=0.5)
    x = inputs(5, 2, 16)
    with pytest.raises(sl.Unsupported, match=r"dropout=0\.5 .* Set the module's `dropout` to 0, or call eval"):
        ours(x, x, x)
    assert close(ours.eval()(x, x, x)[0], theirs.eval()(x, x, x)[0])
    ours.train().dropout = 0.0
    assert close(ours(x, x, x)[0], theirs(x, x, x)[0])


# -- nested tensors


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors")
def test_nested_tensors_are_padded_and_nested_again() -> None:
    theirs, ours = pair(batch_first=True)
    a, b = inputs(3, 16), inputs(6, 16)
    x = torch.nested.nested_tensor([a, b])
    y = torch.nested.nested_tensor([b, a])
    with torch.no_grad():
        output, weights = ours.eval()(x, x, x)
        right, expected = theirs.eval()(x, x, x)  # the fused kernel, which alone takes them
    assert output.is_nested
    assert all(close(mine, its) for mine, its in zip(output.unbind(), right.unbind(), strict=True))
    assert close(weights, expected)
    crossed = ours(x, y, y, observe={"entropy": sl.Entropy()})
    for i, (q, k) in enumerate(((a, b), (b, a))):
        one, seen = ours(q, k, k, observe={"entropy": sl.Entropy()})
        assert close(crossed[0].unbind()[i], one)
        assert close(crossed[1]["entropy"][i, :, : len(q)], seen["entropy"][0])
        assert not crossed[1]["entropy"][i, :, len(q) :].any()
    padding = torch.zeros(2, 6, dtype=torch.bool)
    for call, says in (
        (lambda: ours(x, x, x, key_padding_mask=padding), "lengths are their mask"),
        (lambda: pair()[1](x, x, x), "without batch_first"),
        (lambda: ours(x, torch.zeros(2, 3, 16), torch.zeros(2, 3, 16)), "key is not nested"),
        (lambda: ours(*[torch.nested.nested_tensor([a, b], layout=torch.jagged)] * 3), "layout torch.jagged"),
    ):
        with pytest.raises(sl.Unsupported, match=says):
            call()


# -- memory


@pytest.mark.parametrize("backward", [False, True])
def test_no_matrix_is_made_unless_its_weights_are_asked_for(backward: bool) -> None:
    n, limit = 2048, 2 << 20  # a boolean for each pair of tokens takes 4 MiB, inputs and projections 0.25 to 0.75
    _, ours = pair(batch_first=True)
    x = inputs(2, n, 16).requires_grad_(backward)
    padding = torch.zeros(2, n, dtype=torch.bool)
    padding[0, 1700:] = True
    added = torch.zeros(2, n).masked_fill(padding, -math.inf)
    holes = torch.rand(2, n, generator=torch.Generator().manual_seed(0)) < 0.3
    causal = nn.Transformer.generate_square_subsequent_mask(n)

    def largest(**options: Any) -> int:
        with Seen() as seen:
            output, _ = ours(x, x, x, **options)
            if backward:
                output.sum().backward()
        return seen.largest

    for masks in (
        {},
        {"is_causal": True},
        {"is_causal": True, "attn_mask": causal},
        {"is_causal": True, "attn_mask": causal.isinf(), "key_padding_mask": padding},
        {"key_padding_mask": padding},
        {"key_padding_mask": added},
        {"key_padding_mask": holes},
    ):
        assert largest(need_weights=False, **masks) <= limit
        assert largest(observe={"entropy": sl.Entropy(), "received": sl.Received()}, **masks) <= limit
    assert largest() >= 2 * 4 * n * n * 4  # and this would show it
