"""PyTorch's own check of both operators: schema, fakes, autograd registration, tracing with dynamic shapes."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from ops.samples import SAMPLES, WITH_GRADIENTS


def with_gradients(args: list[Any]) -> tuple[list[Any], list[bool], list[torch.Tensor | None]]:
    """The backward operator's arguments, which gradients are asked for, and ones for the gradients of the results."""
    needs = [isinstance(a, torch.Tensor) and a.requires_grad for a in args[:5]]
    needs.append(any(t.requires_grad for t in args[17]))
    bare = [a.detach() if isinstance(a, torch.Tensor) else a for a in args[:17]] + [[t.detach() for t in args[17]]]
    results = torch.ops.sightline.reduce(*bare)
    grads = [torch.ones_like(t) if t.is_floating_point() else None for t in results[1:]]
    return [*bare, needs, results[0], grads, results[1:]], needs, grads


@pytest.mark.parametrize("name", list(SAMPLES))
def test_the_forward_operator_conforms_without_gradients(name: str) -> None:
    checked = torch.library.opcheck(torch.ops.sightline.reduce.default, tuple(SAMPLES[name](False)))
    assert set(checked.values()) == {"SUCCESS"}


@pytest.mark.parametrize("name", WITH_GRADIENTS)
def test_the_forward_operator_conforms_with_gradients(name: str) -> None:
    checked = torch.library.opcheck(torch.ops.sightline.reduce.default, tuple(SAMPLES[name](True)))
    assert set(checked.values()) == {"SUCCESS"}


@pytest.mark.parametrize("name", WITH_GRADIENTS)
def test_the_backward_operator_conforms(name: str) -> None:
    args, needs, _ = with_gradients(SAMPLES[name](True))
    assert needs[0]
    assert needs[1]
    checked = torch.library.opcheck(torch.ops.sightline.reduce_backward.default, tuple(args))
    assert set(checked.values()) == {"SUCCESS"}


@pytest.mark.parametrize("name", WITH_GRADIENTS)
def test_the_backward_operator_needs_no_results(name: str) -> None:
    args, *_ = with_gradients(SAMPLES[name](True))
    with_results = torch.ops.sightline.reduce_backward(*args)
    for without in (args[:-1], [*args[:-1], None], [*args[:-1], [None] * len(args[-1])]):
        for mine, theirs in zip(torch.ops.sightline.reduce_backward(*without), with_results, strict=True):
            torch.testing.assert_close(mine, theirs, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", ["attention alone", "everything"])
def test_the_backward_operator_gives_the_gradients_asked_for_and_no_others(name: str) -> None:
    args, needs, _ = with_gradients(SAMPLES[name](True))
    everything = torch.ops.sightline.reduce_backward(*args)
    operands = [t for t in args[17] if t.is_floating_point()]
    inputs = [t for t, need in zip(args[:5], needs, strict=False) if need]
    assert [g.shape for g in everything] == [t.shape for t in (*inputs, *operands)]
    place = 0
    for at in (at for at in range(6) if needs[at]):
        only = torch.ops.sightline.reduce_backward(*args[:18], [at == other for other in range(6)], *args[19:])
        count = len(operands) if at == 5 else 1
        assert len(only) == count
        for alone, together in zip(only, everything[place : place + count], strict=True):
            torch.testing.assert_close(alone, together, rtol=0, atol=0)
        place += count
