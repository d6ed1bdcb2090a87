"""Random calls of a multi-head attention, and what PyTorch's module gives for them in float64 and in their own dtype.

One tolerance, over whole tensors: the largest error against PyTorch's float64 result is at most twice (the largest
error of PyTorch's run in the same dtype + a rounding band). A float64 run is its own reference; its error counts as one
band. The band is ε of the accumulator × κ × the tensor's natural size, and one spacing of a coarser dtype.

- κ = 1 + √m + √n + √E + 2μ: c roundings of a sum add up to about √c of them, and an absolute error of a logit is a
  relative one of its weight and of the row's normaliser; μ is the largest Σ_c |q_ic k_jc| / √d.
- The natural size of results is their largest magnitude. Gradients of one call share one: what is a difference of large
  terms is rounded like the terms. With G the largest of all gradients it is G × max(1, |v|) × max(1, |q|, |k|), since
  ∂L/∂q = Σ_j P_j (∂L/∂o · v_j − δ) k_j, where P_j sums over what ∂L/∂v_j = P_j ∂L/∂o is.
"""

from __future__ import annotations

import copy
import math
import random
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

DTYPES = (torch.float32, torch.float32, torch.float64, torch.bfloat16)


@dataclass(frozen=True)
class Call:
    """A module of PyTorch and one call of it. tensors: query, key, value, attn_mask, key_padding_mask; those there are.

    same: names of tensors that are another one, key → query. keys: all there are, the module's own included; seen: the
    most that a query sees; hides: whether masks hide any, or weigh them down.
    """

    seed: int
    module: nn.MultiheadAttention
    tensors: Mapping[str, Tensor]
    same: Mapping[str, str]
    options: Mapping[str, Any]
    inference: bool
    keys: int
    seen: int
    hides: bool

    @property
    def dtype(self) -> torch.dtype:
        return self.module.out_proj.weight.dtype

    def __str__(self) -> str:
        shapes = {name: (tuple(t.shape), str(t.dtype)[6:]) for name, t in self.tensors.items()}
        return f"seed {self.seed}: {self.module.extra_repr()} {shapes} same={self.same} {self.options}"

    def run(self, module: nn.MultiheadAttention, **options: Any) -> dict[str, Tensor]:
        """Results and the gradients of Σ result · fixed, by name. module: has the parameters of `self.module`."""
        dtype = module.out_proj.weight.dtype
        leaves = {}
        for name, t in self.tensors.items():
            leaves[name] = t.to(dtype).requires_grad_(not self.inference) if t.is_floating_point() else t
        given = {name: leaves[self.same.get(name, name)] for name in ("query", "key", "value")}
        masks = {name: leaves[name] for name in ("attn_mask", "key_padding_mask") if name in leaves}
        module.train(not self.inference)
        with torch.set_grad_enabled(not self.inference):
            output, weights = module(*given.values(), **masks, **{**self.options, **options})
        results = {"output": output} if weights is None else {"output": output, "weights": weights}
        found = {name: t.detach() for name, t in results.items()}
        if self.inference:
            return found
        towards = torch.Generator().manual_seed(self.seed)
        loss = sum((t * torch.randn(t.shape, generator=towards).to(dtype)).sum() for t in results.values())
        inputs = {name: t for name, t in leaves.items() if t.requires_grad} | dict(module.named_parameters())
        grads = torch.autograd.grad(loss, list(inputs.values()), allow_unused=True)  # type: ignore[arg-type]
        for name, t, grad in zip(inputs, inputs.values(), grads, strict=True):
            found[f"gradient of {name}"] = torch.zeros_like(t) if grad is None else grad
        return found


def draw(seed: int) -> Call:
    """A random module and a random call of it."""
    pick, g = random.Random(seed), torch.Generator().manual_seed(seed)
    torch.manual_seed(seed)
    dtype = pick.choice(DTYPES)
    h, d = pick.choice((1, 2, 3, 4)), pick.choice((1, 4, 8, 16))
    inference = pick.random() < 0.2
    own = pick.random() < 0.5
    narrow = not own and pick.random() < 0.5
    first, batched = pick.random() < 0.5, pick.random() < 0.8
    widths = {"kdim": pick.randint(1, 20), "vdim": pick.randint(1, 20)} if narrow else {}
    module = nn.MultiheadAttention(
        h * d,
        h,
        dropout=0.3 if inference else 0.0,  # in eval mode it means nothing
        bias=pick.random() < 0.8,
        add_bias_kv=pick.random() < 0.25,
        add_zero_attn=pick.random() < 0.25,
        batch_first=first,
        **widths,
    ).to(dtype)
    with torch.no_grad():  # biases begin at 0, and weights so small that attention is flat
        for p in module.parameters():
            p.copy_(p + 0.5 * torch.randn(p.shape, generator=g).to(dtype) / math.sqrt(p.shape[-1]))
    b, n = pick.randint(1, 3) if batched else 1, pick.randint(1, 24)
    m = n if own else pick.randint(1, 24)

    def tensor(length: int, width: int) -> Tensor:
        shape = ((b, length, width) if first else (length, b, width)) if batched else (length, width)
        return (2 * torch.randn(shape, generator=g)).to(dtype)

    tensors = {"query": tensor(n, h * d)}
    same = {"key": "query", "value": "query"} if own else {}
    if not own:
        tensors["key"] = tensor(m, widths.get("kdim", h * d))
        if not narrow and pick.random() < 0.5:
            same = {"value": "key"}
        else:
            tensors["value"] = tensor(m, widths.get("vdim", h * d))
    causal = pick.random() < 0.3
    seen = 0 if causal else pick.randrange(m)  # a key that every query sees: rows without keys have a test of their own
    numbers = pick.random() < 0.5
    mask = _mask(pick, g, b, h, n, m, causal, seen, numbers)
    padding = _padding(pick, g, b, m, seen, numbers)
    extra = (module.bias_k is not None) + module.add_zero_attn
    visible = torch.ones(b, h, n, m, dtype=torch.bool)
    for t in (None if mask is None else mask.unflatten(0, (b, h)) if mask.ndim == 3 else mask, padding):
        if t is not None:
            low = t if t.dtype == torch.bool else t < -1
            visible &= ~(low.view(b, 1, 1, m) if t is padding else low)
    most = int(visible.sum(-1).max()) + extra
    tensors |= {} if mask is None else {"attn_mask": mask.to(dtype) if numbers else mask}
    if padding is not None:
        padding = padding if batched else padding[0]
        tensors["key_padding_mask"] = padding.to(dtype) if numbers else padding
    options = {
        "need_weights": pick.random() < 0.5,
        "average_attn_weights": pick.random() < 0.5,
        "is_causal": causal and pick.random() < 0.7,
    }
    return Call(seed, module, tensors, same, options, inference, m + extra, most, not bool(visible.all()))


def _mask(
    pick: random.Random, g: torch.Generator, b: int, h: int, n: int, m: int, causal: bool, seen: int, numbers: bool
) -> Tensor | None:
    """An attn_mask: True or −∞ where a query may not attend."""
    if causal:
        hidden = torch.ones(n, m, dtype=torch.bool).triu(1)
        if pick.random() < 0.3:
            hidden = hidden.expand(b * h, n, m).clone()
    elif pick.random() < 0.5:
        return None
    else:
        hidden = torch.rand((n, m) if pick.random() < 0.5 else (b * h, n, m), generator=g) < 0.4
        hidden[..., seen] = False
    if not numbers:
        return hidden
    added = torch.zeros(hidden.shape) if causal else torch.randn(hidden.shape, generator=g)
    return added.masked_fill(hidden, -math.inf)


def _padding(pick: random.Random, g: torch.Generator, b: int, m: int, seen: int, numbers: bool) -> Tensor | None:
    """A key_padding_mask: True or −∞ for keys to ignore."""
    kind = pick.choice(("none", "right", "left", "holes", "values"))
    if kind == "none" or (kind == "values" and not numbers):
        return None
    j = torch.arange(m)
    if kind == "right":
        hidden = j >= torch.randint(seen + 1, m + 1, (b, 1), generator=g)
    elif kind == "left":
        hidden = j < torch.randint(0, seen + 1, (b, 1), generator=g)
    else:
        hidden = torch.rand(b, m, generator=g) < 0.4
        hidden[:, seen] = False
    if not numbers:
        return hidden
    added = torch.randn(b, m, generator=g) if kind == "values" else torch.zeros(b, m)
    return added.masked_fill(hidden, -math.inf)


def wrong(call: Call, module: nn.MultiheadAttention) -> list[str]:
    """What is wrong with a module's results and gradients, if anything. It has the parameters of the call's own."""
    mask, hint = call.tensors.get("attn_mask"), {}
    # PyTorch's hint means another mask where the module has keys of its own, and drops a mask's gradient; what was
    # meant is the mask.
    if call.module.bias_k is not None or call.module.add_zero_attn or (mask is not None and mask.is_floating_point()):
        hint = {"is_causal": False}
    exact = copy.deepcopy(call.module).double()
    reference = call.run(exact, **hint)
    run = reference if call.dtype == torch.float64 else call.run(call.module, **hint)
    got = call.run(module)
    if list(got) != list(reference):
        return [f"{list(got)} were returned, not {list(reference)}"]
    kappa, amplified = _roundings(call, exact)
    largest = max([float(t.abs().max()) for name, t in reference.items() if name.startswith("grad")], default=0.0)
    fine, found = torch.float64 if call.dtype == torch.float64 else torch.float32, []
    coarse = torch.finfo(call.dtype).eps if call.dtype != fine else 0.0
    for name, right in reference.items():
        mine = got[name]
        if mine.shape != right.shape or mine.dtype != call.dtype:
            found.append(f"{name} is {mine.dtype} {tuple(mine.shape)}, not {call.dtype} {tuple(right.shape)}")
            continue
        own = float(right.abs().max())
        size = largest * amplified if name.startswith("grad") else own
        band = torch.finfo(fine).eps * kappa * size + coarse * own
        theirs = band if call.dtype == torch.float64 else float((run[name].double() - right).abs().max())
        error = float((mine.double() - right).abs().max())
        if not error <= 2 * (theirs + band):
            found.append(f"{name} is {error:.3g} off, PyTorch's {theirs:.3g}, the band {band:.3g}, its size {size:.3g}")
    return found


def _roundings(call: Call, exact: nn.MultiheadAttention) -> tuple[float, float]:
    """κ, and how much larger terms of gradients of q and k are than gradients of v."""
    with torch.no_grad():
        packed = exact.in_proj_weight
        weights = (exact.q_proj_weight, exact.k_proj_weight, exact.v_proj_weight) if packed is None else packed.chunk(3)
        biases = (None,) * 3 if exact.in_proj_bias is None else exact.in_proj_bias.chunk(3)
        inputs = (call.tensors[call.same.get(name, name)].double() for name in ("query", "key", "value"))
        q, k, v = (F.linear(t, w, b).abs() for t, w, b in zip(inputs, weights, biases, strict=True))
        q, k, v = (t.flatten(0, -2) for t in (q, k, v))
        if exact.bias_k is not None and exact.bias_v is not None:
            k, v = torch.cat([k, exact.bias_k[0].abs()]), torch.cat([v, exact.bias_v[0].abs()])
        q, k, v = (t.unflatten(-1, (exact.num_heads, exact.head_dim)).transpose(0, 1) for t in (q, k, v))
        mu = float((q @ k.mT).max()) / math.sqrt(exact.head_dim)
    n, m = q.shape[1], k.shape[1]
    kappa = 1 + math.sqrt(m) + math.sqrt(n) + math.sqrt(exact.embed_dim) + 2 * mu
    return kappa, max(1.0, float(v.max())) * max(1.0, float(q.max()), float(k.max()))
