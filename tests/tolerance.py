"""The one tolerance rule: error against float64 ≤ 2 × (a same-dtype torch run's error + its rounding band).

*Float64* is the definition of `definition` below, written here from the formula alone and evaluated in float64 on the
given inputs, which float64 holds exactly. The *same-dtype run* is that definition in float32 (float64 for float64
inputs), rounded once to the dtype of the result: observations of half-precision inputs are float32, and exact for the
inputs given. For float64 inputs that run *is* the reference; nothing finer measures its error, so it is one band.

The *rounding band* of a result is ε × its natural scale: the sum of the magnitudes of the terms it is a sum of, each
weighted by how many roundings it carries. ε is the spacing of the accumulator's dtype at 1. Entry by entry:

    logit     s_ij      μ_ij = Σ_c |scale·q_ic·k_jc| (by its slope under a softcap, + |capped|) + Σ |biases|
    weight    P_ij      P_ij κ_ij; κ_ij = 1 + √m + √n + μ_ij + Σ_j' P_ij' μ_ij' + the sink's P |sink|;
                        and the smallest normal number: what is less may be 0, as on processors that flush
    linear    Σ a P b   Σ |a| P κ |b|
    entropy             Σ P κ (1 + |log P|)
    log-sum-exp         |LSE| + 1 + √m + Σ P μ + the sink's P |sink|
    maxima              the largest change among what they are the maximum of
    dS = P ∘ (D − δ)    P κ (|D| + Σ P κ |D|), with |D| the sum of the magnitudes of ∂L/∂P over the reductions
    gradients           of q, k, biases, sinks and operands: the sums of the magnitudes of their own products with |dS|

and where weights are rounded to a coarser dtype of spacing ε' before they multiply numbers of that dtype, as PyTorch's
own attention does in bfloat16, the results and gradients that are sums of such products have on top

    output, moments     ε' √Σ (P v)²; gradients of q: ε' √Σ (dS k)²; of k: ε' √Σ (dS q)²; of values: ε' √Σ (P g)²

because an absolute error of a logit is a relative error of its weight and of the row's normaliser; 1 stands for e^x and
the quotient, √m and √n for sums over keys and queries: c roundings, in any order, add up to about √c of them (Higham
and Mary 2019). One spacing of the result is added where its dtype is coarser than the accumulator. Nothing is fitted.

Keys (TopK, Peak) are right when, rank by rank, the float64 logit of the chosen key is that of the right key within the
tolerance of the two logits: equal keys wherever logits differ by more, and wherever logits carry no rounding at all.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

import sightline as sl
from cases import Case
from sightline.reductions import Reduction
from sightline.reductions._law import gather_heads

SELECTIONS = (sl.TopK, sl.Peak)


@dataclass(frozen=True)
class Weights:
    """Logits, weights and log-sum-exp of one case in one dtype, and what they were made of."""

    x: Tensor  # scaled products, before the softcap
    s: Tensor
    p: Tensor
    lse: Tensor
    share: Tensor  # the sink's weight in each row, 0 without one


def spread(t: Tensor, h: int) -> Tensor:
    """Repeat the heads of [·, hk, …] to h query heads."""
    return t.repeat_interleave(h // t.shape[1], 1)


def weights(case: Case, leaves: Mapping[str, Tensor]) -> Weights:
    """softmax(softcap(scale · q kᵀ) + bias) over the admitted keys and the sink: the definition, all of it stored."""
    options = case.options(leaves)
    x = case.multiplier * leaves["q"] @ spread(leaves["k"], case.dims.h).mT
    s = x if case.softcap is None else case.softcap * (x / case.softcap).tanh()
    if options["bias"] is not None:
        s = s + options["bias"].dense(case.dims)
    if case.mask is not None:
        s = s.masked_fill(~case.mask.dense(case.dims), -math.inf)
    dead = (s == -math.inf).all(-1)
    sink = torch.full((case.dims.h,), -math.inf, dtype=s.dtype) if "sinks" not in leaves else leaves["sinks"]
    logits = torch.cat([s, sink[:, None, None].expand(*s.shape[:-1], 1)], -1)
    logits = torch.where(dead[..., None], 0, logits)  # any finite value: these rows are 0 by definition
    p = torch.where(dead[..., None], 0, logits.softmax(-1))
    lse = torch.where(dead, -math.inf, logits.logsumexp(-1))
    return Weights(x, s, p[..., :-1], lse, p[..., -1])


def bound(case: Case, leaves: Mapping[str, Tensor]) -> dict[str, Reduction]:
    """The output, as the reduction that it is, and the case's reductions."""
    asked = {"output": sl.RowMoment(leaves["v"]), **case.on(leaves)}
    return {name: r.bind(case.dims, torch.device("cpu")) for name, r in asked.items()}


def definition(case: Case, leaves: Mapping[str, Tensor]) -> tuple[dict[str, Any], Weights]:
    """Every result by the `dense` of its reduction, with selections detached."""
    w = weights(case, leaves)
    results: dict[str, Any] = {}
    for name, r in bound(case, leaves).items():
        if isinstance(r, sl.LogSumExp):
            results[name] = w.lse
        elif r.differentiable:
            results[name] = r.dense(w.s, w.p)
        else:
            results[name] = r.dense(w.s.detach(), w.p.detach())
    return results, w


def gradients(case: Case, results: Mapping[str, Any], leaves: Mapping[str, Tensor]) -> dict[str, Tensor | None]:
    """The gradients of Σ result · grad for the wanted leaves; None for those that none of the results reads."""
    inputs = [leaves[name] for name in case.wanted]
    outputs = {n: results[n] for n in case.grads if results[n].requires_grad}
    if not inputs or not outputs:
        return dict.fromkeys(case.wanted)
    grads = [case.grads[name].to(t.dtype) for name, t in outputs.items()]
    return dict(zip(case.wanted, torch.autograd.grad(list(outputs.values()), inputs, grads, allow_unused=True)))


# -- the rounding band --------------------------------------------------------------------------------


@dataclass(frozen=True)
class Scales:
    """Natural scales, in float64: of logits (mu), of weights (p κ), of each result, and of each leaf's gradient."""

    mu: Tensor
    weights: Tensor
    results: dict[str, Tensor]
    gradients: dict[str, Tensor]


def scales(case: Case, leaves: Mapping[str, Tensor], w: Weights) -> Scales:
    """The sums of magnitudes that the roundings of a case are relative to. leaves: in float64."""
    with torch.no_grad():
        leaves = {name: t.detach() for name, t in leaves.items()}
        q, k = leaves["q"].abs(), spread(leaves["k"], case.dims.h).abs()
        products = abs(case.multiplier) * q @ k.mT
        slope, capped = torch.ones_like(products), torch.zeros_like(products)
        if case.softcap is not None:
            turn = (w.x / case.softcap).tanh()
            slope, capped = 1 - turn**2, case.softcap * turn.abs()
        mu = slope * products + capped
        if case.bias is not None:
            for name, t in leaves.items():
                if name.startswith("bias."):
                    mu = mu + _bias_alone(case, leaves, name, t).abs()
        mu = torch.where(w.s > -math.inf, mu, 0)
        sink = leaves["sinks"].abs()[:, None] if "sinks" in leaves else torch.zeros(1, 1, dtype=q.dtype)
        row = (w.p * mu).sum(-1) + w.share * sink
        kappa = 1 + math.sqrt(case.dims.m) + math.sqrt(case.dims.n) + mu + row[..., None]
        fine = torch.finfo(case.accumulator)
        p = w.p * kappa + torch.where(w.s > -math.inf, fine.tiny / fine.eps, 0)
        magnitudes = {name: r.map(Tensor.abs) for name, r in bound(case, leaves).items()}
        results = {name: _result(r, w, p, row) for name, r in magnitudes.items() if not _selects(r)}
    return Scales(mu, p, results, _gradient_scales(case, leaves, w, magnitudes, products, slope, kappa, p, sink, row))


def _selects(r: Reduction) -> bool:
    return not r.differentiable


def _bias_alone(case: Case, leaves: Mapping[str, Tensor], name: str, t: Tensor) -> Tensor:
    """What one of the biases adds to each logit; −inf counts as nothing."""
    assert case.bias is not None
    others = {n: torch.zeros_like(o) for n, o in leaves.items() if n.startswith("bias.")}
    return case.bias({**others, name: t.masked_fill(t == -math.inf, 0)}).dense(case.dims)


def _result(r: Reduction, w: Weights, p: Tensor, row: Tensor) -> Tensor:
    if isinstance(r, sl.LogSumExp):
        return torch.where(w.lse == -math.inf, 0, w.lse.abs()) + 1 + math.sqrt(w.s.shape[-1]) + row
    if isinstance(r, sl.Entropy):
        return (p * (1 + _log(w.p).abs())).sum(-1)
    return r.dense(w.s, p)


def _log(p: Tensor) -> Tensor:
    return torch.where(p > 0, p, 1).log()


def _gradient_scales(
    case: Case,
    leaves: Mapping[str, Tensor],
    w: Weights,
    magnitudes: Mapping[str, Reduction],
    products: Tensor,
    slope: Tensor,
    kappa: Tensor,
    p: Tensor,
    sink: Tensor,
    row: Tensor,
) -> dict[str, Tensor]:
    d, made = case.dims, {name: torch.zeros_like(t) for name, t in leaves.items()}
    towards, lse_grad = torch.zeros_like(p), torch.zeros_like(row)
    for name, grad in case.grads.items():
        r, g = magnitudes[name], grad.double().abs()
        if isinstance(r, sl.LogSumExp):
            lse_grad = lse_grad + g
        elif isinstance(r, sl.Entropy):
            towards = towards + g[..., None] * (_log(w.p).abs() + kappa)
        else:  # linear in P with coefficients that are at least 0: its own gradient is the sum of magnitudes
            at = p.clone().requires_grad_()
            operands = [t.clone().requires_grad_() for t in r.floating()]
            given = iter(operands)
            result = r.map(lambda _, given=given: next(given)).dense(w.s, at)
            first, *rest = torch.autograd.grad(result, [at, *operands], g)
            towards = towards + first
            for t in rest:
                leaf = "v" if name == "output" else f"{name}.0"
                made[leaf] = made[leaf] + t.reshape(made[leaf].shape)
    delta = (p * towards).sum(-1) + lse_grad
    ds = p * (towards + delta[..., None])
    for name, t in leaves.items():
        if name.startswith("bias."):
            at = torch.zeros_like(t).requires_grad_()
            made[name] = torch.autograd.grad(_bias_alone(case, leaves, name, at).expand_as(ds), at, ds)[0].abs()
    if "sinks" in leaves:
        made["sinks"] = (w.share * (1 + math.sqrt(d.m) + math.sqrt(d.n) + sink + row) * delta).sum((0, 2))
    if case.softcap is not None:  # 1 − tanh² loses its own last digits near the cap, where it is small
        plain = w.p * (towards + delta[..., None])
        ds = ds * slope + plain * (1 + 2 * slope * products / case.softcap)
    k = spread(leaves["k"], d.h).abs()
    made["q"] = abs(case.multiplier) * ds @ k
    made["k"] = gather_heads(abs(case.multiplier) * ds.mT @ leaves["q"].abs(), leaves["k"])
    return made


# -- weights of a coarser dtype ----------------------------------------------------------------------


def rounding(
    case: Case, coarse: torch.dtype, leaves: Mapping[str, Tensor], results: Mapping[str, Any], w: Weights
) -> dict[str, Tensor]:
    """How much wider bands become by name of a result, and of "gradient of" a leaf. leaves, results: in float64."""
    epsilon, made = torch.finfo(coarse).eps, {}
    flowing = {n: case.grads[n].double() for n in case.grads if results[n].requires_grad}
    for name, r in bound(case, leaves).items():
        leaf = "v" if name == "output" else f"{name}.0"
        if not isinstance(r, sl.RowMoment) or case.leaves[leaf].dtype != coarse:
            continue
        values = r.f.detach().square().requires_grad_()
        squares = r.map(lambda _, values=values: values).dense(w.s.detach(), w.p.detach().square())
        made[name] = epsilon * squares.detach().sqrt()
        if name in flowing:
            (by_value,) = torch.autograd.grad(squares, values, flowing[name].square())
            made[f"gradient of {leaf}"] = epsilon * by_value.reshape(leaves[leaf].shape).sqrt()
    if flowing and w.x.requires_grad:
        outputs = [results[n] for n in flowing]
        (dx,) = torch.autograd.grad(outputs, w.x, list(flowing.values()), retain_graph=True, allow_unused=True)
        if dx is not None:
            q, k = (leaves[name].detach().square() for name in ("q", "k"))
            squares = (case.multiplier * dx).square()
            made["gradient of q"] = epsilon * (squares @ spread(k, case.dims.h)).sqrt()
            made["gradient of k"] = epsilon * gather_heads(squares.mT @ q, k).sqrt()
    return made


# -- the rule -----------------------------------------------------------------------------------------


def tolerance(reference: Tensor, run: Tensor, scale: Tensor, accumulator: torch.dtype) -> Tensor:
    """2 × (the run's error + the rounding band), entry by entry. run: in the result's dtype; scale: its natural one."""
    return 2 * (run_error(run, reference, scale, accumulator) + band(reference, scale, run.dtype, accumulator))


def run_error(run: Tensor, reference: Tensor, scale: Tensor, accumulator: torch.dtype) -> Tensor:
    """How far the same-dtype run is off, or may be where it is the reference itself."""
    if accumulator == torch.float64:
        return band(reference, scale, run.dtype, accumulator)
    return apart(run, reference)


def band(reference: Tensor, scale: Tensor, dtype: torch.dtype, accumulator: torch.dtype) -> Tensor:
    """ε of the accumulator × the natural scale, and one spacing of a result in a coarser dtype."""
    fine = torch.finfo(accumulator)
    band = fine.eps * scale + fine.tiny
    coarse = torch.finfo(dtype)
    if coarse.eps > fine.eps:
        size = torch.where(reference.isinf(), 0, reference.abs())
        band = band + coarse.eps * size + coarse.tiny * coarse.eps
    return band


def apart(a: Tensor, b: Tensor) -> Tensor:
    """|a − b| in float64, where equal infinities are equal and what is not a number is infinitely far."""
    a, b = a.double(), b.double()
    return torch.where(a == b, 0.0, (a - b).abs()).nan_to_num(nan=math.inf)


def beyond(name: str, got: Tensor, reference: Tensor, allowed: Tensor) -> list[str]:
    """What is wrong with a result, if anything."""
    if got.shape != reference.shape:
        return [f"{name} has shape {tuple(got.shape)}, not {tuple(reference.shape)}"]
    largest = torch.finfo(got.dtype).max
    got, reference = got.detach().double(), reference.detach()
    if reference.isfinite().all():  # what overflows the result's dtype is infinite in it, or the largest number
        got, reference = (
            torch.where(reference.abs() > largest / 2, t.clamp(-largest, largest), t) for t in (got, reference)
        )
    error = apart(got, reference)
    bad = error > allowed
    if not bad.any():
        return []
    worst = (error - allowed).nan_to_num(posinf=1e300).argmax()
    at = torch.unravel_index(worst, error.shape)
    where = [int(i) for i in at]
    return [
        f"{name}{where} is {float(got[at])!r}, float64 says {float(reference[at])!r}: {float(error[at]):.3g} apart, "
        f"{float(allowed[at]):.3g} allowed; {int(bad.sum())} of {bad.numel()} entries are beyond"
    ]


def wrong_keys(name: str, got: Tensor, reference: Tensor, s: Tensor, allowed: Tensor) -> list[str]:
    """What is wrong with chosen keys [b, h, n, k]. s: float64 logits; allowed: the tolerance of each, [b, h, n, m]."""
    if got.shape != reference.shape or got.dtype != torch.int64:
        return [f"{name} is {got.dtype} {tuple(got.shape)}, not int64 {tuple(reference.shape)}"]
    if ((got < -1) | (got >= s.shape[-1])).any() or ((got == -1) != (reference == -1)).any():
        return [f"{name} names keys that are not there, or leaves out some that are: {got.tolist()}"]
    order = got.sort(-1).values
    if ((order[..., 1:] == order[..., :-1]) & (order[..., 1:] >= 0)).any():
        return [f"{name} names a key twice: {got.tolist()}"]

    def of(t: Tensor, keys: Tensor) -> Tensor:
        return torch.where(keys >= 0, t.gather(-1, keys.clamp(min=0)), 0)

    bad = apart(of(s, got), of(s, reference)) > of(allowed, got) + of(allowed, reference)
    same = (of(allowed, got) == 0) & (of(allowed, reference) == 0)
    bad |= same & (got != reference)
    if not bad.any():
        return []
    some = f"{got[bad].tolist()[:5]} not {reference[bad].tolist()[:5]}"
    return [f"{name} chose other keys in {int(bad.sum())} places: {some}"]


class Judge:
    """The reference of one case, and what any implementation of it is allowed.

    coarse: the dtype that weights are rounded to where they multiply numbers of it, if to any.
    """

    def __init__(self, case: Case, coarse: torch.dtype | None = None) -> None:
        self.case = case
        exact, same = case.fresh(torch.float64), case.fresh(case.accumulator)
        self.reference, w = definition(case, exact)
        self.rounding = {} if coarse is None else rounding(case, coarse, exact, self.reference, w)
        self.run, run_w = definition(case, same)
        self.reference_gradients = gradients(case, self.reference, exact)
        self.run_gradients = gradients(case, self.run, same)
        self.w = Weights(*(t.detach() for t in (w.x, w.s, w.p, w.lse, w.share)))
        self.scales = scales(case, exact, self.w)
        self.logits = tolerance(self.w.s, run_w.s.detach(), self.scales.mu, case.accumulator)
        self.logits = torch.where(self.scales.mu == 0, 0, self.logits)  # products with 0: nothing was rounded
        self.weights = tolerance(self.w.p, run_w.p.detach(), self.scales.weights, case.accumulator)

    def results(self, got: Mapping[str, Any]) -> list[str]:
        """What is wrong with the results, if anything."""
        case, found = self.case, []
        if list(got) != list(self.reference):
            found.append(f"results are {list(got)}, not {list(self.reference)}")
        for name, r in bound(case, case.leaves).items():
            mine, right = got[name], self.reference[name]
            dtype = r.like(case.dims, case.accumulator)[0][1]
            value = mine.value if isinstance(mine, sl.Peaks) else mine
            if value.dtype != dtype:
                found.append(f"{name} is {value.dtype}, not {dtype}")
            elif isinstance(r, sl.TopK):
                found += wrong_keys(name, mine, right, self.w.s, self.logits)
            elif isinstance(r, sl.Peak):
                value, key = right
                found += wrong_keys(f"{name}.key", mine.key[..., None], key[..., None], self.w.s, self.logits)
                found += beyond(f"{name}.value", mine.value, value, self.weights.amax(-1))
            elif not r.differentiable:  # maxima: no maximum moves by more than what it is the maximum of
                found += beyond(name, mine, right, r.dense(self.w.s, self.weights))
            else:
                run = self.run[name].detach().to(dtype)
                allowed = tolerance(right.detach(), run, self.scales.results[name], case.accumulator)
                found += beyond(name, mine, right, allowed + 2 * self.rounding.get(name, 0))
            if not r.differentiable and any(t.requires_grad for t in (mine if isinstance(mine, tuple) else (mine,))):
                found.append(f"{name} is a selection and carries a gradient")
        return found

    def gradients(self, got: Mapping[str, Tensor | None]) -> list[str]:
        """What is wrong with the gradients, if anything. No gradient is the same as 0."""
        found = []
        if list(got) != list(self.reference_gradients):
            found.append(f"gradients are of {list(got)}, not of {list(self.reference_gradients)}")
        for name, right in self.reference_gradients.items():
            leaf = self.case.leaves[name]
            mine, run = got[name], self.run_gradients[name]
            mine = torch.zeros_like(leaf) if mine is None else mine
            right = torch.zeros(leaf.shape, dtype=torch.float64) if right is None else right
            run = torch.zeros_like(leaf) if run is None else run.to(leaf.dtype)
            if mine.dtype != leaf.dtype:
                found.append(f"the gradient of {name} is {mine.dtype}, not {leaf.dtype}")
            allowed = tolerance(right, run, self.scales.gradients[name], self.case.accumulator)
            allowed = allowed + 2 * self.rounding.get(f"gradient of {name}", 0)
            found += beyond(f"gradient of {name}", mine, right, allowed)
        return found
