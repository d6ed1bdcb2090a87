"""What is measured: each case is a value, and `CASES` holds all of them.

Inputs are random and fixed by the case's shape. 8,192 tokens are taken with two heads, so that even those who store the
matrix can be timed beside the others; a head costs the same however many there are.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, replace
from fnmatch import fnmatchcase
from itertools import product
from math import ceil
from typing import Any

import torch
from torch import Tensor

#: A reduction by the name of its class in sightline, and its arguments.
Asked = tuple[str, tuple[int, ...]]
EVERYTHING: tuple[Asked, ...] = (
    ("Entropy", ()),
    ("Peak", ()),
    ("TopK", (8,)),
    ("Received", ()),
    ("BlockMass", (256, 256)),
)
#: PyTorch's own attention: as it is; where key heads are shared; the same, with the queries that share a head as rows.
BASELINES = {"sdpa", "sdpa-gqa", "sdpa-folded"}
_SHORT = {"float32": "f32", "bfloat16": "bf16"}


@dataclass(frozen=True)
class Case:
    """One measurement: shapes, dtype, and what is asked.

    Queries are [b, h, n, d], keys [b, hk, m, d], values [b, hk, m, dv]; d and dv are equal here unless said.
    observed: the reductions asked for beside the output. backward: gradients of q, k and v too. memory: the growth of
    peak memory is measured, in a fresh process, not rounds of time. quick: one of the few that --quick measures.
    """

    name: str
    h: int
    n: int
    m: int
    d: int
    b: int = 1
    hk: int = 0  # as many as h
    dv: int = 0  # as wide as d
    dtype: str = "float32"
    causal: bool = False
    observed: tuple[Asked, ...] = ()
    backward: bool = False
    memory: bool = False
    quick: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "hk", self.hk or self.h)
        object.__setattr__(self, "dv", self.dv or self.d)

    @property
    def torch_dtype(self) -> torch.dtype:
        return getattr(torch, self.dtype)

    @property
    def baselines(self) -> tuple[str, ...]:
        """Whom the others are measured against: PyTorch's own attention; both its forms where key heads are shared."""
        return ("sdpa",) if self.h == self.hk else ("sdpa-gqa", "sdpa-folded")

    @property
    def scores(self) -> int:
        """Admitted pairs of query and key over all heads."""
        pairs = self.n * (self.n + 1) // 2 if self.causal else self.n * self.m
        return self.b * self.h * pairs

    @property
    def flops(self) -> int:
        """Of its matrix products: two forward, and five more backward."""
        forward = 2 * self.scores * (self.d + self.dv)
        return forward * 7 // 2 if self.backward else forward

    @property
    def read(self) -> int:
        """Bytes of keys and values, which a decoding step reads once."""
        return self.b * self.hk * self.m * (self.d + self.dv) * self.torch_dtype.itemsize

    @property
    def decodes(self) -> bool:
        return self.n == 1

    @property
    def matrix(self) -> int:
        """Bytes of the stored matrix of scores, in the case's dtype, or in float32 where it is observed."""
        return self.b * self.h * self.n * self.m * (4 if self.observed else self.torch_dtype.itemsize)

    def plain(self) -> Case:
        """The same work with nothing observed."""
        return replace(self, observed=())

    def reduced(self) -> Case:
        """The same kind of work, small enough for the definition in float64; of lengths that no tile divides."""
        n = min(self.n, 601)
        return replace(self, n=n, m=n if self.n == self.m else min(self.m, 1801), memory=False)

    def reductions(self) -> dict[str, Any]:
        """What is observed, as sightline's own reductions, by the name of their class."""
        import sightline

        return {name: getattr(sightline, name)(*arguments) for name, arguments in self.observed}

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @staticmethod
    def from_json(given: dict[str, Any]) -> Case:
        observed = tuple((name, tuple(arguments)) for name, arguments in given["observed"])
        parts: dict[str, Any] = {**given, "observed": observed}
        return Case(**parts)


@dataclass(frozen=True)
class Inputs:
    """q, k, v, and the gradient of the output for a backward case."""

    q: Tensor
    k: Tensor
    v: Tensor
    grad: Tensor

    @staticmethod
    def of(case: Case) -> Inputs:
        c, generator = case, torch.Generator().manual_seed(case.n + case.m)

        def normal(*shape: int) -> Tensor:
            return torch.randn(shape, generator=generator).to(case.torch_dtype)

        q, k, v = normal(c.b, c.h, c.n, c.d), normal(c.b, c.hk, c.m, c.d), normal(c.b, c.hk, c.m, c.dv)
        return Inputs(q, k, v, normal(c.b, c.h, c.n, c.dv) if c.backward else q.new_empty(0))


def _square(kind: str, n: int, d: int = 64, h: int = 0, **rest: Any) -> Case:
    name = f"{kind}-{_SHORT[rest['dtype']]}-d{d}-{n}" + ("-causal" if rest.get("causal") else "")
    return Case(name, h=h or (2 if n > 4096 else 8), n=n, m=n, d=d, **rest)


def _registry() -> Iterator[Case]:
    dtypes, either, lengths = tuple(_SHORT), (False, True), (512, 2048, 8192)
    for dtype, d, n, causal in product(dtypes, (64, 128), lengths, either):
        yield _square("forward", n, d, dtype=dtype, causal=causal, quick=d == 64 and n < 8192)
    for dtype, causal in product(dtypes, either):
        yield _square("backward", 2048, dtype=dtype, causal=causal, backward=True, quick=causal)
    for dtype, n, causal in product(dtypes, lengths, either):
        yield _square("observe", n, dtype=dtype, causal=causal, observed=EVERYTHING, quick=n == 2048)
    for dtype, m in product(dtypes, (8192, 16_384, 32_768, 65_536)):
        name, quick = f"decode-{_SHORT[dtype]}-d128-{m}", m in (8192, 65_536)
        yield Case(name, h=8, hk=2, n=1, m=m, d=128, dtype=dtype, quick=quick)
    for dtype in dtypes:
        name = f"decode-observe-{_SHORT[dtype]}-d128-65536"
        yield Case(name, h=8, hk=2, n=1, m=65_536, d=128, dtype=dtype, observed=EVERYTHING)
    for n in (8192, 65_536):
        yield _square("memory", n, h=1, dtype="float32", causal=True, observed=EVERYTHING, memory=True, quick=n == 8192)


CASES: dict[str, Case] = {case.name: case for case in _registry()}


def select(patterns: Iterable[str], quick: bool) -> list[Case]:
    """The cases whose names match any pattern (`*` and `?` as in a shell), or all; of the few quick ones if quick."""
    patterns = list(patterns) or ["*"]
    chosen = [case for case in CASES.values() if any(fnmatchcase(case.name, p) for p in patterns)]
    return [case for case in chosen if case.quick] if quick else chosen


def blocks(length: int, size: int) -> int:
    """How many blocks of a size cover a length."""
    return ceil(length / size)
