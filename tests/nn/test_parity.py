"""Promise: sightline.nn.MultiheadAttention gives what PyTorch's module gives, and the same gradients."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import replace

import pytest
import torch

import sightline.nn
from nn.multihead import Call, draw, wrong
from sightline.functional import Observed, observe
from sightline.nn.multihead import Heads
from sightline.reductions import Reduction

CALLS = 500
GROUP = 25


def ours(call: Call, kind: type[sightline.nn.MultiheadAttention]) -> sightline.nn.MultiheadAttention:
    """A module of Sightline, made by the constructor and given the state of PyTorch's."""
    theirs = call.module
    module = kind(
        theirs.embed_dim,
        theirs.num_heads,
        dropout=theirs.dropout,
        bias=theirs.in_proj_bias is not None,
        add_bias_kv=theirs.bias_k is not None,
        add_zero_attn=theirs.add_zero_attn,
        kdim=theirs.kdim,
        vdim=theirs.vdim,
        batch_first=theirs.batch_first,
        dtype=call.dtype,
    )
    module.load_state_dict(theirs.state_dict())
    return module


@pytest.mark.parametrize("first", range(0, CALLS, GROUP))
def test_random_calls_give_what_pytorch_gives(first: int) -> None:
    found = {}
    for seed in range(first, first + GROUP):
        call = draw(seed)
        if problems := wrong(call, ours(call, sightline.nn.MultiheadAttention)):
            found[str(call)] = problems
    assert not found


class Sharper(sightline.nn.MultiheadAttention):
    """Wrong on purpose: logits 5 % too large."""

    def attend(self, heads: Heads, reductions: Mapping[str, Reduction]) -> Observed:
        scale = 1.05 / heads.q.shape[-1] ** 0.5
        return observe(heads.q, heads.k, heads.v, reductions, mask=heads.mask, bias=heads.bias, scale=scale)


class Unmasked(sightline.nn.MultiheadAttention):
    """Wrong on purpose: all keys are seen."""

    def attend(self, heads: Heads, reductions: Mapping[str, Reduction]) -> Observed:
        return super().attend(replace(heads, mask=None, bias=None), reductions)


class Larger(sightline.nn.MultiheadAttention):
    """Wrong on purpose: values 5 % too large."""

    def attend(self, heads: Heads, reductions: Mapping[str, Reduction]) -> Observed:
        return super().attend(replace(heads, v=heads.v * 1.05), reductions)


def matters(call: Call, kind: type[sightline.nn.MultiheadAttention]) -> bool:
    """Whether what is wrong about the module changes this call: a query that sees one key gives it all its weight."""
    return {Sharper: call.seen > 1, Unmasked: call.hides and call.keys > 1, Larger: True}[kind]


@pytest.mark.parametrize("kind", [Sharper, Unmasked, Larger])
def test_modules_that_are_wrong_are_found_out(kind: type[sightline.nn.MultiheadAttention]) -> None:
    calls = [call for call in map(draw, range(150)) if matters(call, kind) and call.dtype != torch.bfloat16]
    assert len(calls) >= 50
    assert [str(call) for call in calls if not wrong(call, ours(call, kind))] == []


@pytest.mark.parametrize("kind", [Sharper, Unmasked, Larger])
def test_most_modules_that_are_wrong_are_found_out_in_bfloat16(kind: type[sightline.nn.MultiheadAttention]) -> None:
    # 5 % is a few of its roundings; and the float32 calls above have the same code behind them.
    calls = [call for call in map(draw, range(CALLS)) if matters(call, kind) and call.dtype == torch.bfloat16]
    caught = sum(bool(wrong(call, ours(call, kind))) for call in calls)
    assert caught > 0.7 * len(calls) > 35


def test_the_draws_reach_every_option() -> None:
    calls = [draw(seed) for seed in range(CALLS)]
    assert {call.dtype for call in calls} == {torch.float32, torch.float64, torch.bfloat16}
    for has in (
        lambda call: call.module.bias_k is not None,
        lambda call: call.module.add_zero_attn,
        lambda call: call.module.in_proj_weight is None,
        lambda call: call.module.in_proj_bias is None,
        lambda call: call.module.batch_first,
        lambda call: call.tensors["query"].ndim == 2,
        lambda call: call.options["is_causal"],
        lambda call: call.options["is_causal"] and "key_padding_mask" in call.tensors,
        lambda call: call.options["need_weights"] and not call.options["average_attn_weights"],
        lambda call: call.inference,
        lambda call: call.same.get("value") == "key",
        lambda call: "attn_mask" in call.tensors and call.tensors["attn_mask"].ndim == 3,
        lambda call: "attn_mask" in call.tensors and call.tensors["attn_mask"].dtype == torch.bool,
        lambda call: "key_padding_mask" in call.tensors and call.tensors["key_padding_mask"].dtype == torch.bool,
        lambda call: "key_padding_mask" in call.tensors and call.tensors["key_padding_mask"].is_floating_point(),
    ):
        assert 20 < sum(map(has, calls)) < CALLS - 20


def test_the_same_seed_makes_the_same_module() -> None:
    for options in ({}, {"kdim": 3, "vdim": 5}, {"bias": False}, {"add_bias_kv": True}):
        made = []
        for kind in (torch.nn.MultiheadAttention, sightline.nn.MultiheadAttention):
            torch.manual_seed(7)
            module = kind(8, 2, **options)  # type: ignore[arg-type]
            before = copy.deepcopy(module.state_dict())
            module._reset_parameters()
            made.append([*before.values(), *module.state_dict().values()])
        assert all(map(torch.equal, *made))
