"""The two operators PyTorch sees: schemas, shapes without data, gradients and batching. No kernel is imported here.

    sightline::reduce           the log-sum-exp, and any reductions of P or of a gradient field
    sightline::reduce_backward  their gradients

Reductions cross the boundary encoded (see `reductions._law.encode`), so a new reduction needs no new operator. The
autograd functions are what `torch.func` can transform; the operators carry the same gradients for whoever calls them
directly.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad

from .backends import COMPOSITE, ORDER, choose
from .errors import Unsupported
from .reductions._law import decode, encode
from .request import Field, Gradients, Needs, Request, split
from .scores import Scores

#: The first five can have gradients.
_TENSORS = ["q", "k", "relative", "additive", "sinks", "lo", "hi", "allowed", "v", "grad_out"]
_STATICS = "float scale, float? softcap, str kinds, SymInt[] ints, float[] floats, str part, str backend"
_REDUCE = f"Tensor q, Tensor k, {', '.join(f'Tensor? {name}' for name in _TENSORS[2:])}, {_STATICS}, Tensor[] operands"

torch.library.define("sightline::reduce", f"({_REDUCE}) -> Tensor[]")
# Results may be left out: compiled graphs that a cache kept from before there were any still run.
torch.library.define(
    "sightline::reduce_backward",
    f"({_REDUCE}, bool[] needs, Tensor lse, Tensor?[] grads, Tensor?[]? results=None) -> Tensor[]",
)


def evaluate(request: Request, backend: str) -> list[Tensor]:
    """Every result of the request in order, differentiable where the reduction is. Raises Unsupported, SpecError.

    With backend="auto" each reduction has its own choice: asking for one that a backend refuses moves no other.
    """
    chosen: dict[str, list[int]] = {}
    if len(request.reductions) == 1:
        return _run(request, choose(backend, request))
    for at, r in enumerate(request.reductions):
        chosen.setdefault(choose(backend, replace(request, reductions=(r,))), []).append(at)
    if len(chosen) == 1:
        return _run(request, next(iter(chosen)))
    results: dict[int, Sequence[Tensor]] = {}
    for name, places in chosen.items():
        part = replace(request, reductions=tuple(request.reductions[at] for at in places))
        results.update(zip(places, split(_run(part, name), part.reductions, part.dims), strict=True))
    return [t for at in range(len(request.reductions)) for t in results[at]]


def _run(request: Request, name: str) -> list[Tensor]:
    """The results of a request by one backend, the log-sum-exp left out."""
    if name in COMPOSITE:
        return COMPOSITE[name].forward(request)[1:]
    args = _flatten(request, name)
    # The compiler takes the operator, with its gradient, as it is.
    if torch.compiler.is_compiling() or _plain():
        return torch.ops.sightline.reduce(*args[:17], args[17:])[1:]
    return list(_Reduce.apply(*args))[1:]  # type: ignore[no-untyped-call]


def _plain() -> bool:
    """Whether no derivative can be taken here, in reverse or in forward mode: then the operator alone, which costs half
    of what the autograd function around it does, is enough.
    """
    return not torch.is_grad_enabled() and forward_ad._current_level < 0


def _flatten(request: Request, backend: str) -> list[Any]:
    """A request as the arguments of `_Reduce`: tensors, statics, then each operand."""
    s, field, encoded = request.scores, request.field, encode(request.reductions)
    tensors = [request.q, request.k, s.relative, s.additive, s.sinks, s.lo, s.hi, s.allowed]
    tensors += [None, None] if field is None else [field.v, field.grad_out]
    statics = [s.scale, s.softcap, encoded.kinds, encoded.ints, encoded.floats, "" if field is None else field.part]
    return [*tensors, *statics, backend, *encoded.operands]


def _request(args: Sequence[Any]) -> tuple[Request, str]:
    """The request that the operators' arguments stand for, and the backend's name."""
    q, k, relative, additive, sinks, lo, hi, allowed, v, grad_out = args[:10]
    scale, softcap, kinds, ints, floats, part, backend, operands = args[10:18]
    scores = Scores(scale, softcap, lo, hi, allowed, relative, additive, sinks)
    field = None if v is None else Field(v, grad_out, part)
    return Request(q, k, scores, tuple(decode(kinds, ints, floats, operands)), field), backend


# -- what the operators compute, and the shapes of it ------------------------------------------------------------------


@torch.library.impl("sightline::reduce", "CompositeExplicitAutograd")
def _reduce(*args: Any) -> list[Tensor]:
    request, backend = _request(args)
    with torch.autocast(request.q.device.type, enabled=False):
        return ORDER[backend].forward(request)


@torch.library.register_fake("sightline::reduce")
def _reduce_fake(*args: Any) -> list[Tensor]:
    request, _ = _request(args)
    return [request.q.new_empty(shape, dtype=dtype) for shape, dtype in request.like()]


@torch.library.impl("sightline::reduce_backward", "CompositeExplicitAutograd")
def _reduce_backward(*args: Any) -> list[Tensor]:
    request, backend = _request(args)
    flags, lse, grads, *rest = args[18:]
    needs, results = Needs(*flags), (rest[0] if rest else None) or [None] * len(grads)
    with torch.autocast(request.q.device.type, enabled=False):
        return ORDER[backend].backward(request, lse, results, grads, needs).wanted(request, needs)


@torch.library.register_fake("sightline::reduce_backward")
def _reduce_backward_fake(*args: Any) -> list[Tensor]:
    request, _ = _request(args)
    needs = Needs(*args[18])
    return Gradients.zeros(request, needs).wanted(request, needs)


# -- gradients ---------------------------------------------------------------------------------------------------------


class _Reduce(torch.autograd.Function):
    """`reduce` with its gradient; arguments flat: ten tensors, seven statics, operands."""

    generate_vmap_rule = True

    @staticmethod
    def forward(*args: Any) -> tuple[Tensor, ...]:
        return tuple(torch.ops.sightline.reduce(*args[:17], list(args[17:])))

    @staticmethod
    def setup_context(ctx: Any, inputs: Sequence[Any], output: Sequence[Tensor]) -> None:
        _save(ctx, inputs[:10], inputs[10:17], inputs[17:], output)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> Any:
        leading, operands = _gradients(ctx, ctx.needs_input_grad[:5], ctx.needs_input_grad[17:], grads)
        return (*leading, *[None] * 12, *operands)


class _ReduceBackward(torch.autograd.Function):
    """`reduce_backward`, which has no gradient of its own.

    Ten tensors, seven statics, needs, count of operands, lse, operands, gradients, as many results.
    """

    generate_vmap_rule = True

    @staticmethod
    def forward(*args: Any) -> tuple[Tensor, ...]:
        (needs, count, lse), operands, rest = args[17:20], args[20:], args[20 + args[18] :]
        half = len(rest) // 2
        grads, results = list(rest[:half]), list(rest[half:])
        made = torch.ops.sightline.reduce_backward(*args[:17], list(operands[:count]), needs, lse, grads, results)
        return tuple(made)

    @staticmethod
    def setup_context(ctx: Any, inputs: Sequence[Any], output: Sequence[Tensor]) -> None:
        """Nothing to save."""

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> Any:
        return _no_second_order(ctx, *grads)


def _save(ctx: Any, tensors: Sequence[Any], statics: Sequence[Any], operands: Sequence[Tensor], output: Any) -> None:
    ctx.set_materialize_grads(False)
    # Selections are exact copies of no input: a gradient through them would be silently wrong, so there is none.
    request, backend = _request((*tensors, *statics, list(operands)))
    reads = ORDER[backend].READS_RESULTS
    results: list[Tensor | None] = []
    fixed = []
    for r, made in zip(request.reductions, split(output[1:], request.reductions, request.dims), strict=True):
        # Fewer digits than sums have would do the gradient no good.
        results += [t if reads and r.linear and t.dtype == request.dtype else None for t in made]
        fixed += [t for t in made if not r.differentiable or not t.is_floating_point()]
    ctx.mark_non_differentiable(output[0], *fixed)
    ctx.statics = list(statics)
    saved = [*tensors, *operands, *results]
    ctx.absent = [t is None for t in saved]
    ctx.operands = len(operands)
    ctx.save_for_backward(*[t for t in saved if t is not None], output[0])


def _gradients(
    ctx: Any, wanted: Sequence[bool], operands_wanted: Sequence[bool], grads: Sequence[Tensor | None]
) -> tuple[list[Tensor | None], list[Tensor | None]]:
    """The gradients of the first five tensors, and of each operand."""
    *saved, lse = ctx.saved_tensors
    some = iter(saved)
    given: list[Any] = [None if absent else next(some) for absent in ctx.absent]
    tensors, operands, results = given[:10], given[10 : 10 + ctx.operands], given[10 + ctx.operands :]
    needs = [want and t is not None for want, t in zip(wanted, tensors[:5], strict=True)] + [any(operands_wanted)]
    if not any(needs) or all(g is None for g in grads[1:]):
        return [None] * 5, [None] * len(operands)
    if torch.compiler.is_compiling():
        args = (*tensors, *ctx.statics, operands, needs, lse, list(grads[1:]), results)
        made = iter(torch.ops.sightline.reduce_backward(*args))
    else:
        args = (*tensors, *ctx.statics, needs, len(operands), lse, *operands, *grads[1:], *results)
        made = iter(_ReduceBackward.apply(*args))  # type: ignore[no-untyped-call]
    leading = [next(made) if need else None for need in needs[:5]]
    return leading, [next(made) if needs[5] and t.is_floating_point() else None for t in operands]


def _no_second_order(ctx: Any, *grads: Any) -> Any:
    raise Unsupported(
        "a gradient of a gradient of attention was asked for; only the definition has one. Use backend='dense'.",
        {"reduce_backward": ["it is not differentiable"]},
    )


def _reduce_setup(ctx: Any, inputs: Sequence[Any], output: list[Tensor]) -> None:
    _save(ctx, inputs[:10], inputs[10:17], inputs[17], output)


def _reduce_gradient(ctx: Any, grads: list[Tensor | None]) -> Any:
    wanted = ctx.needs_input_grad
    each = wanted[17] if isinstance(wanted[17], list | tuple) else [wanted[17]]
    leading, operands = _gradients(ctx, wanted[:5], each, grads)
    rest: list[Any] = [None] * 12
    # The gradient of an empty list is an empty list, that of a list of numbers is None.
    rest[8], rest[9] = (None if numbers else [] for numbers in (ctx.statics[3], ctx.statics[4]))
    return (*leading, *rest, operands)


torch.library.register_autograd("sightline::reduce", _reduce_gradient, setup_context=_reduce_setup)
torch.library.register_autograd("sightline::reduce_backward", _no_second_order)


# -- batching: one call per entry, as PyTorch's own attention is batched on CPU ----------------------------------------


def _batched(operator: Callable[..., list[Tensor]]) -> Callable[..., tuple[list[Tensor], list[int]]]:
    def pick(value: Any, dim: Any, at: int) -> Any:
        if isinstance(value, list | tuple) and isinstance(dim, list | tuple):
            return [pick(v, d, at) for v, d in zip(value, dim, strict=True)]
        return value.select(dim, at) if isinstance(value, Tensor) and dim is not None else value

    def rule(info: Any, in_dims: Sequence[Any], *args: Any) -> tuple[list[Tensor], list[int]]:
        each = [
            operator(*(pick(a, d, at) for a, d in zip(args, in_dims, strict=True))) for at in range(info.batch_size)
        ]
        stacked = [torch.stack(parts) for parts in zip(*each, strict=True)]
        return stacked, [0] * len(stacked)

    return rule


torch.library.register_vmap("sightline::reduce", _batched(torch.ops.sightline.reduce))
torch.library.register_vmap("sightline::reduce_backward", _batched(torch.ops.sightline.reduce_backward))
