"""Correctness first: who is wrong is not timed.

Every contender runs the case at a reduced size and is compared with the definition in float64, and so are a few rows of
the full-size output that is timed. The rule, for the root mean square and for the maximum of the error alike:

    error ≤ 2 × (yardstick's error + (ε + √d · ε₃₂) · size of the reference)

The yardstick of the output and of the gradients is the worse of PyTorch's own attention and the definition, both run in
the case's dtype; that of an observation is the definition in float32, whatever the inputs are. ε is the spacing at 1 of
the dtype compared, for its own rounding, and ε₃₂ that of float32, √d times for a logit's sum. Keys are compared by the
float64 weights that they point to, rank by rank.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field
from functools import lru_cache
from typing import Any, Literal

import torch
from torch import Tensor

from .cases import Case, Inputs
from .definition import Results, attend, output, weights
from .peers import Contender, differentiated, sdpa

State = Literal["ok", "red", "refused"]
#: A root mean square and a maximum.
Size = tuple[float, float]


@dataclass(frozen=True)
class Verdict:
    """ok, red (wrong: no figure), or refused (not asked of it). errors: by result, the (rms, maximum) of each error."""

    state: State
    why: str = ""
    errors: dict[str, Size] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True)
class Allowed:
    """The reference of one result in float64, and the error allowed."""

    reference: Tensor
    error: Size


def judge(case: Case, contender: Contender) -> Verdict:
    """Whether a contender computes what the case asks, at a reduced size."""
    from sightline import Unsupported

    if why := contender.absent or contender.refuses(case):
        return Verdict("refused", why)
    small = case.reduced()
    x = Inputs.of(small)
    try:
        got = contender.prepare(small, x)()
    except Unsupported as refusal:
        reasons = [reason for each in refusal.refusals.values() for reason in each]
        return Verdict("refused", "; ".join(reasons) or str(refusal))
    except Exception as error:  # a peer may fail on this machine in any way it likes; Sightline may not
        said = f"it failed: {type(error).__name__}: {(str(error).splitlines() or [''])[0][:160]}"
        return Verdict("red" if contender.ours else "refused", said)
    return compare(comparable(got, _exact_weights(small, x)), allowed(small))


def judge_rows(case: Case, x: Inputs, got: Results) -> Verdict:
    """Whether some rows of the full-size output are right: the first, the middle and the last."""
    plain, rows = case.plain(), torch.tensor(sorted({0, case.n // 2, case.n - 1}))

    def by_definition(dtype: torch.dtype) -> Tensor:
        q, k, v = x.q[:, :, rows].to(dtype), x.k.to(dtype), x.v.to(dtype)
        return output(plain, weights(plain, q, k, rows)[1], v)

    reference = by_definition(torch.float64)
    error = _allowed(size(by_definition(case.torch_dtype).double() - reference), reference, case.torch_dtype, case.d)
    return compare({"output": got["output"][:, :, rows]}, {"output": Allowed(reference, error)})


def compare(got: dict[str, Tensor], asked: dict[str, Allowed]) -> Verdict:
    """The verdict on results, each against what it is allowed."""
    errors: dict[str, Size] = {}
    wrong: list[str] = []
    for name, right in asked.items():
        if name not in got or got[name].shape != right.reference.shape:
            wrong.append(f"{name} is missing, or of the wrong shape")
            continue
        errors[name] = size(got[name].double() - right.reference)
        for kind, error, most in zip(("rms", "largest"), errors[name], right.error):
            if not error <= most:
                wrong.append(f"{name}: {kind} error {error:.2g}, {most:.2g} allowed")
    return Verdict("red" if wrong else "ok", "; ".join(wrong), errors)


@lru_cache(maxsize=4)
def allowed(case: Case) -> dict[str, Allowed]:
    """What every result of a reduced case is compared with."""
    x = Inputs.of(case)
    exact_weights = _exact_weights(case, x)

    def run(function: Any, asked: Case, dtype: torch.dtype) -> dict[str, Tensor]:
        inputs = Inputs(*(t.to(dtype) for t in (x.q, x.k, x.v, x.grad)))
        results = differentiated(asked, inputs, lambda q, k, v: function(asked, q, k, v))()
        return comparable(results, exact_weights)

    plain = case.plain()
    exact = run(attend, case, torch.float64)
    runs = [run(attend, plain, case.torch_dtype), run(sdpa, plain, case.torch_dtype)]
    observed = run(attend, case, torch.float32) if case.observed else {}
    made: dict[str, Allowed] = {}
    for name, reference in exact.items():
        dtype = case.torch_dtype if name in runs[0] else torch.float32
        errors = [size(r[name].double() - reference) for r in (runs if name in runs[0] else [observed])]
        worst = (max(e[0] for e in errors), max(e[1] for e in errors))
        made[name] = Allowed(reference, _allowed(worst, reference, dtype, case.d))
    return made


def comparable(results: Results, exact: Tensor) -> dict[str, Tensor]:
    """Results as floating-point tensors: pairs taken apart, and keys as the exact weights that they point to."""
    flat: dict[str, Tensor] = {}
    for name, result in results.items():
        parts = {name: result} if isinstance(result, Tensor) else dict(zip((f"{name}.value", f"{name}.key"), result))
        flat |= {part: _pointed(t, exact) if not t.is_floating_point() else t.detach() for part, t in parts.items()}
    return flat


def size(t: Tensor) -> Size:
    """The root mean square and the maximum; what is not a number is infinitely large."""
    t = t.abs().nan_to_num(nan=math.inf, posinf=math.inf)
    return float(t.square().mean().sqrt()), float(t.amax())


def _allowed(yardstick: Size, reference: Tensor, dtype: torch.dtype, d: int) -> Size:
    band = torch.finfo(dtype).eps + math.sqrt(d) * torch.finfo(torch.float32).eps
    rms, most = (2 * (error + band * large) for error, large in zip(yardstick, size(reference)))
    return rms, most


def _exact_weights(case: Case, x: Inputs) -> Tensor:
    return weights(case, x.q.double(), x.k.double())[1] if case.observed else torch.empty(0)


def _pointed(keys: Tensor, exact: Tensor) -> Tensor:
    """P at the chosen keys [b, h, n(, k)]: 0 for none (−1), not a number for keys that are not there."""
    index = keys if keys.ndim == 4 else keys[..., None]
    there = (index >= -1) & (index < exact.shape[-1])
    found = exact.gather(-1, index.clamp(0, exact.shape[-1] - 1)).masked_fill(index == -1, 0)
    return found.masked_fill(~there, math.nan).reshape(keys.shape)
