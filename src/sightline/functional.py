"""attention and observe: the public calls."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, is_dataclass
from typing import Any

import torch
from torch import Tensor

from ._dims import Dims, check_tensor
from .biases import Bias
from .errors import SpecError
from .masks import Mask
from .ops import evaluate
from .reductions import Reduction, RowMoment
from .request import Request, split
from .scores import Scores


@dataclass(frozen=True)
class Observed(Mapping[str, Any]):
    """What `observe` returns. output: [b, h, n, dv], the attention; [name]: each reduction's result."""

    output: Tensor
    results: Mapping[str, Any]

    def __getitem__(self, name: str) -> Any:
        return self.results[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.results)

    def __len__(self) -> int:
        return len(self.results)


def attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    mask: Mask | None = None,
    bias: Bias | None = None,
    scale: float | None = None,
    softcap: float | None = None,
    sinks: Tensor | None = None,
    backend: str = "auto",
) -> Tensor:
    """softmax(softcap(scale · q kᵀ) + bias) v, exactly, in O(n + m) memory -> [b, h, n, dv] in v's dtype.

    q: [b, h, n, d]; k: [b, hk, m, d]; v: [b, hk, m, dv]; h divisible by hk (grouped-query attention), dv may differ
    from d. mask: which keys a query sees (`Causal() & Window(…)`, …); query i stands at key position i + (m − n).
    bias: added to the logits; scale: 1/√d by default; softcap: c·tanh(x/c) on the scaled products, before the bias;
    sinks: [h], a logit per head that takes weight from every row. A row that sees no key gives 0.

    Differentiable in q, k, v, bias and sinks, in linear memory too. Under autocast, q, k and v take its dtype.

    Raises ShapeError, SpecError; Unsupported when the named backend refuses. Source: Vaswani et al. 2017, eq. 1.

    >>> import torch
    >>> q, k, v = torch.ones(1, 2, 3, 4), torch.ones(1, 1, 5, 4), torch.arange(5.0).reshape(1, 1, 5, 1)
    >>> attention(q, k, v, mask=Causal())[0, 0, :, 0]  # query i sees keys 0 … i + 2, here all alike
    tensor([1.0000, 1.5000, 2.0000])
    """
    return observe(q, k, v, {}, mask=mask, bias=bias, scale=scale, softcap=softcap, sinks=sinks, backend=backend).output


def observe(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    reductions: Mapping[str, Reduction],
    *,
    mask: Mask | None = None,
    bias: Bias | None = None,
    scale: float | None = None,
    softcap: float | None = None,
    sinks: Tensor | None = None,
    backend: str = "auto",
) -> Observed:
    """`attention`, and each reduction of its weights from the same pass.

    The output is bitwise that of `attention`, and no reduction changes another's result. Arguments and errors as
    `attention`.

    >>> import torch
    >>> q, k, v = torch.zeros(1, 1, 2, 4), torch.zeros(1, 1, 4, 4), torch.randn(1, 1, 4, 8)
    >>> seen = observe(q, k, v, {"spread": Entropy(), "received": Received()})
    >>> seen["received"][0, 0]
    tensor([0.5000, 0.5000, 0.5000, 0.5000])
    """
    q, k, v = autocast(q=q, k=k, v=v)
    dims = Dims.of(q, k)
    dims.check_value(v, k)
    scores = Scores.of(dims, q, mask, bias, scale, softcap, sinks)
    output, *results = run(Request(q, k, scores, bound([RowMoment(v), *named(reductions)], dims, q)), backend)
    return Observed(output, dict(zip(reductions, results, strict=True)))


def named(reductions: Mapping[str, Reduction]) -> list[Reduction]:
    """The reductions asked for, checked to be some. Raises SpecError."""
    if not isinstance(reductions, Mapping):
        raise SpecError(
            f'reductions must be named, as in {{"spread": Entropy()}}; they came as {type(reductions).__name__}. '
            "Give each a name."
        )
    for name, r in reductions.items():
        if not isinstance(r, Reduction):
            hint = f"Write {r.__name__}()." if isinstance(r, type) else "Use one of sightline.reductions."
            raise SpecError(f"reduction {name!r} must be a Reduction such as Entropy(); it is {r!r}. {hint}")
        if not is_dataclass(r):
            raise SpecError(
                f"reduction {name!r}, a {type(r).__name__}, must be a dataclass, so that operators can "
                "take it apart; it is none. Decorate its class with @dataclass(frozen=True)."
            )
    return list(reductions.values())


def bound(reductions: list[Reduction], dims: Dims, like: Tensor) -> tuple[Reduction, ...]:
    """The reductions checked against these sizes. Raises ShapeError, SpecError, Unsupported."""
    return tuple(r.bind(dims, like.device) for r in reductions)


def run(request: Request, backend: str) -> list[Any]:
    """Evaluate a request: one packed result per reduction. Raises Unsupported, SpecError."""
    flat = evaluate(request, backend)
    parts = split(flat, request.reductions, request.dims)
    return [r.pack(part) for r, part in zip(request.reductions, parts, strict=True)]


def autocast(**tensors: Tensor) -> tuple[Tensor, ...]:
    """The tensors in autocast's dtype where it is on, as PyTorch's own attention takes them; float64 is left alone."""
    for name, t in tensors.items():
        check_tensor(name, t)
    given = tuple(tensors.values())
    kind = given[0].device.type
    if not torch.amp.is_autocast_available(kind) or not torch.is_autocast_enabled(kind):
        return given
    dtype = torch.get_autocast_dtype(kind)
    return tuple(t.to(dtype) if t.is_floating_point() and t.dtype != torch.float64 else t for t in given)
