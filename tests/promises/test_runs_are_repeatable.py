"""Promise: the same call at the same number of threads gives the same bits, in one process and in the next."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

import sightline as sl
from cases import Draw, all_reductions
from engines import Engine
from processes import fresh
from sightline._dims import Dims


@pytest.fixture(params=[1, 2])
def threads(request: pytest.FixtureRequest) -> Iterator[int]:
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


def once(backend: str, dtype: torch.dtype) -> list[Tensor]:
    """Every result of one call over 400 queries and 500 keys, and all its gradients."""
    pick, d = Draw(0), Dims(1, 4, 2, 400, 500, 32)
    q, k, v = (pick.normal(1, h, n, 32, dtype=dtype).requires_grad_() for h, n in ((4, 400), (2, 500), (2, 500)))
    seen = sl.observe(q, k, v, all_reductions(pick, d, dtype), mask=sl.Causal(), backend=backend)
    results = [t for r in (seen.output, *seen.values()) for t in (r if isinstance(r, tuple) else (r,))]
    sum(t.float().square().mean() for t in results if t.requires_grad).backward()
    return [t.detach() for t in results] + [t.grad for t in (q, k, v) if t.grad is not None]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_every_run_in_a_process_gives_the_same_bits(engine: Engine, dtype: torch.dtype, threads: int) -> None:
    first = once(engine.backend, dtype)
    for _ in range(3):
        for a, b in zip(first, once(engine.backend, dtype), strict=True):
            assert torch.equal(a.view(torch.uint8), b.view(torch.uint8))


PROGRAM = """
import hashlib, json
import torch
import sightline as sl
from sightline.backends import cpu

cpu.INSTRUCTIONS = INSTRUCTIONS
g = torch.Generator().manual_seed(0)
q, k, v = (torch.randn(1, 2, 300, 32, generator=g).requires_grad_() for _ in range(3))
seen = sl.observe(q, k, v, {"h": sl.Entropy(), "r": sl.Received(), "t": sl.TopK(8)}, mask=sl.Causal(), backend=BACKEND)
(seen.output.sum() + seen["h"].sum() + seen["r"].square().sum()).backward()
parts = (seen.output, *seen.values(), q.grad, k.grad, v.grad)
print(json.dumps([hashlib.sha256(t.detach().numpy().tobytes()).hexdigest() for t in parts]))
"""


def test_every_process_gives_the_same_bits(engine: Engine) -> None:
    program = PROGRAM.replace("= INSTRUCTIONS", f"= {engine.instructions!r}").replace("BACKEND", repr(engine.backend))
    assert fresh(program) == fresh(program, PYTHONHASHSEED="7")
