"""Promise: memory grows with the number of tokens, not with its square."""

from __future__ import annotations

import sys

import pytest

import sightline as sl
from processes import fresh
from sightline.backends import COMPOSITE

BACKENDS = [info.name for info in sl.backends() if info.available and info.name not in COMPOSITE]

#: Peak memory of a fresh process over what it holds just before the call: inputs, and all that a small call sets up.
MEASURE = """
import json, os, time
import torch
import sightline as sl

def held():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")

def peak():  # of this program: getrusage's begins with what its parent held
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) * 1024 for line in file if line.startswith("VmHWM"))

def grown(call, small, large):
    call(*small)
    before, start = held(), time.perf_counter()
    result = call(*large)
    return result, peak() - before, time.perf_counter() - start

def inputs(n, h=1, d=64, **kwargs):
    g = torch.Generator().manual_seed(n)
    return [torch.randn(1, h, n, d, generator=g).requires_grad_(kwargs.get("grad", False)) for _ in range(3)]
"""

FORWARD = (
    MEASURE
    + """
def call(q, k, v):
    asked = {"entropy": sl.Entropy(), "top": sl.TopK(8), "received": sl.Received(), "blocks": sl.BlockMass(256, 256)}
    return sl.observe(q, k, v, asked, mask=sl.Causal(), backend=BACKEND)

n = 65_536
q, k, v = inputs(n)
seen, bytes, seconds = grown(call, inputs(300), (q, k, v))

wrong = []
for i in (0, 1, 255, 40_000, n - 1):  # some rows by their definition, to know that what was measured was the work
    s = (q[0, 0, i].double() @ k[0, 0, : i + 1].double().T) / 8
    p = s.softmax(-1)
    if abs(float(-(p * p.log()).sum()) - float(seen["entropy"][0, 0, i])) > 1e-4:
        wrong.append(f"entropy of row {i}")
    if (p @ v[0, 0, : i + 1].double() - seen.output[0, 0, i]).abs().amax() > 1e-5:
        wrong.append(f"output of row {i}")
    if not torch.equal(seen["top"][0, 0, i][: i + 1], s.topk(min(8, i + 1)).indices):
        wrong.append(f"top keys of row {i}")
if abs(float(seen["received"].double().sum()) - n) > 0.5 or abs(float(seen["blocks"].double().sum()) - n) > 0.5:
    wrong.append("the matrix's total")
if seen["blocks"].shape != (1, 1, 256, 256) or seen["blocks"][0, 0].triu(1).any():
    wrong.append("blocks")
print(json.dumps({"bytes": bytes, "seconds": seconds, "wrong": wrong}))
"""
)

BACKWARD = (
    MEASURE
    + """
def call(q, k, v):
    asked = {"entropy": sl.Entropy(), "received": sl.Received(), "blocks": sl.BlockMass(256, 256)}
    seen = sl.observe(q, k, v, asked, mask=sl.Causal(), backend=BACKEND)
    loss = seen.output.square().mean() + seen["entropy"].mean() + seen["received"].square().mean()
    (loss + seen["blocks"].square().mean()).backward()

n = LENGTH
large = inputs(n, grad=True)
_, bytes, seconds = grown(call, inputs(300, grad=True), large)
wrong = [name for name, t in zip("qkv", large) if t.grad is None or not t.grad.isfinite().all() or not t.grad.any()]
print(json.dumps({"bytes": bytes, "seconds": seconds, "wrong": wrong}))
"""
)

linux = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc/self, which Linux alone has")


@linux
@pytest.mark.slow
@pytest.mark.parametrize("backend", BACKENDS)
def test_sixty_five_thousand_tokens_are_observed_in_under_300_megabytes(backend: str) -> None:
    # The matrix itself would take 17 GB.
    found = fresh(FORWARD.replace("BACKEND", repr(backend)))
    print(f"{found['bytes'] / 1e6:.0f} MB more, {found['seconds']:.0f} s")
    assert found["wrong"] == []
    assert found["bytes"] < 300e6


@linux
@pytest.mark.slow
@pytest.mark.parametrize("backend", BACKENDS)
def test_gradients_take_linear_memory_too(backend: str) -> None:
    program = BACKWARD.replace("BACKEND", repr(backend))
    short, long = (fresh(program.replace("LENGTH", str(n))) for n in (4096, 16_384))
    print(f"4,096 tokens: {short['bytes'] / 1e6:.0f} MB more; 16,384: {long['bytes'] / 1e6:.0f} MB more")
    assert short["wrong"] == long["wrong"] == []
    # Four times the tokens: what is linear grows fourfold, the matrix sixteenfold, from 67 MB to 1 GB.
    assert long["bytes"] < 5 * short["bytes"]
    assert long["bytes"] < 300e6
