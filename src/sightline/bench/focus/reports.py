"""What the examined items say of each method: means over the items that count, with bootstrap intervals.

An item counts where its best leave-one-out drop is at least `GATE` nats: where no sentence matters, none can be found.
For one item and one method, with d_i the leave-one-out drop of sentence i and d* the largest:

    hit@1              whether the first sentence is the one of d*
    MRR                1 / the place of the sentence of d*
    drop, top 3        d of the first, and the drop without the first three, over those of leave-one-out's own order
    LDS                Spearman's ρ between Σ scores of the kept and log p(answer | kept), over held-out random sets
    comprehensiveness  mean drop without the first 10, 20, 50 % of the sentences; sufficiency: with those alone (nats)

Sources: LDS, Park et al. (2023), "TRAK", and Cohen-Wang et al. (2024), "ContextCite"; comprehensiveness and
sufficiency, DeYoung et al. (2020), "ERASER".
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from .linear import spearman

__all__ = ["GATE", "METRICS", "RANDOM", "SHIPPED", "Mean", "Report", "aopc_sizes", "order", "report"]

GATE = 1.0
"""Nats by which the answer must depend on some sentence for the item to count."""

METRICS = ("hit@1", "MRR", "drop", "top 3", "LDS", "comprehensiveness", "sufficiency")

SHIPPED = "shipped: measured"
"""The pipeline of `find_evidence`, with its defaults, as `sightline.tasks.answer` runs it."""

RANDOM = "random"

_PERMUTATIONS = 20
_RESAMPLES = 2000
_HEADS = 8


@dataclass(frozen=True)
class Mean:
    """A mean over n items, and the interval that holds 95 % of the means of resampled items."""

    mean: float
    low: float
    high: float
    n: int

    @classmethod
    def of(cls, values: Sequence[float]) -> Mean:
        """Of one value for each item; resampled 2,000 times with a seed of its own."""
        v = torch.tensor(list(values), dtype=torch.float64)
        picks = torch.randint(len(v), (_RESAMPLES, len(v)), generator=torch.Generator().manual_seed(0))
        low, high = torch.quantile(v[picks].mean(1), torch.tensor([0.025, 0.975], dtype=torch.float64)).tolist()
        return cls(float(v.mean()), low, high, len(v))


@dataclass(frozen=True)
class Report:
    """The items of one tier. `methods` has for each method its metrics; `costs` for each stage its prefills.

    Costs are means of (token steps, CPU seconds), each over those of the prompt's prefill in the same item.
    """

    tier: str
    tried: int
    counted: int
    methods: dict[str, dict[str, Mean]]
    costs: dict[str, tuple[Mean, Mean]]

    @property
    def passed(self) -> bool | None:
        """Whether the shipped pipeline finds more than chance does: its hit@1 over the interval of random order.

        None where no item counts.
        """
        if not self.counted:
            return None
        return self.methods[SHIPPED]["hit@1"].mean > self.methods[RANDOM]["hit@1"].high

    def to_dict(self) -> dict[str, Any]:
        """As plain data for JSON."""
        return {
            "tier": self.tier,
            "tried": self.tried,
            "counted": self.counted,
            "passed": self.passed,
            "methods": {m: {k: vars(v) for k, v in metrics.items()} for m, metrics in self.methods.items()},
            "costs": {stage: {"steps": vars(a), "cpu": vars(b)} for stage, (a, b) in self.costs.items()},
        }


def report(tier: str, rows: Sequence[dict[str, Any]]) -> Report:
    """The report on the rows, as `examine` makes them, of one tier."""
    counted = [row for row in rows if max(_known(row)) >= GATE]
    methods: dict[str, dict[str, list[float]]] = {}
    for at, row in enumerate(counted):
        # Heads are chosen on the items of the other half.
        others = [other for i, other in enumerate(counted) if i % 2 != at % 2]
        for method, scores in _scores(row, others).items():
            for metric, value in _metrics(row, method, scores).items():
                methods.setdefault(method, {}).setdefault(metric, []).append(value)
    costs: dict[str, list[tuple[float, float]]] = {}
    for row in rows:
        steps, seconds = row["costs"]["prefill"]
        for stage, (s, c) in row["costs"].items():
            costs.setdefault(stage, []).append((s / steps, c / seconds))
    return Report(
        tier,
        len(rows),
        len(counted),
        {m: {k: Mean.of(v) for k, v in metrics.items()} for m, metrics in methods.items()},
        {stage: (Mean.of([s for s, _ in both]), Mean.of([c for _, c in both])) for stage, both in costs.items()},
    )


def order(scores: Iterable[float | None]) -> list[int]:
    """The numbers of the sentences, largest score first; of equal ones the earlier, and those without a score last."""
    known = [-math.inf if s is None else s for s in scores]
    return sorted(range(len(known)), key=lambda i: (-known[i], i))


def _known(row: dict[str, Any]) -> list[float]:
    return [drop for drop in row["scores"]["leave-one-out"] if drop is not None]


def _scores(row: dict[str, Any], others: Sequence[dict[str, Any]]) -> dict[str, list[float | None]]:
    """What each method says of each sentence of an item."""
    n = len(row["scores"]["leave-one-out"])
    found: dict[str, list[float | None]] = {RANDOM: [], **row["scores"]}
    if others and row.get("heads"):
        chosen = _chosen_heads(others)
        found[f"{_HEADS} heads, chosen"] = [sum(row["heads"][h][i] for h in chosen) for i in range(n)]
    # Those that were measured come first, whatever the others' direct drops.
    direct = dict(row["ranked"])
    shown = [i for i, _ in row["shown"]]
    rest = [i for i in direct if i not in shown]
    found["shipped: direct drops of the short list"] = [direct.get(i) for i in range(n)]
    place = {i: float(-at) for at, i in enumerate([*shown, *rest])}
    found[SHIPPED] = [place.get(i) for i in range(n)]
    return found


def _chosen_heads(rows: Sequence[dict[str, Any]]) -> list[int]:
    """The heads that on these items give the largest mean share of their attention to the sentence of d*."""
    totals = torch.zeros(len(rows[0]["heads"]), dtype=torch.float64)
    for row in rows:
        heads = torch.tensor(row["heads"], dtype=torch.float64)
        totals += heads[:, order(row["scores"]["leave-one-out"])[0]] / heads.sum(1).clamp_min(1e-9)
    return totals.topk(min(_HEADS, len(totals))).indices.tolist()


def _metrics(row: dict[str, Any], method: str, scores: list[float | None]) -> dict[str, float]:
    drops = row["scores"]["leave-one-out"]
    best = order(drops)
    measured: dict[tuple[int, ...], float] = {tuple(kept): value for kept, value in row.get("sets", [])}
    if method == RANDOM:
        found = [_of_order(row, _shuffled(row, at), best, measured) for at in range(_PERMUTATIONS)]
        # Of sets that were removed, those of the methods' orders were measured: chance's only where it met with them.
        return {metric: sum(f[metric] for f in found) / len(found) for metric in ("hit@1", "MRR", "drop")}
    metrics = _of_order(row, order(scores), best, measured)
    # A sum of scores foretells only where every sentence has one that means nats or the like, not a place.
    if row.get("held out") and None not in scores and method != SHIPPED:
        foretold = [sum(scores[i] or 0.0 for i in kept) for kept, _ in row["held out"]]
        metrics["LDS"] = spearman(foretold, [log_prob for _, log_prob in row["held out"]])
    return metrics


def _shuffled(row: dict[str, Any], at: int) -> list[int]:
    found = list(range(len(row["scores"]["leave-one-out"])))
    random.Random(f"{row['name']} {at}").shuffle(found)
    return found


def _of_order(
    row: dict[str, Any], mine: list[int], best: list[int], measured: dict[tuple[int, ...], float]
) -> dict[str, float]:
    """The metrics that depend on the order of the sentences alone. A drop that was not measured counts as none."""
    drops = row["scores"]["leave-one-out"]
    metrics = {
        "hit@1": float(mine[0] == best[0]),
        "MRR": 1 / (1 + mine.index(best[0])),
        "drop": (drops[mine[0]] or 0.0) / drops[best[0]],
    }
    everything = range(len(drops))

    def drop(removed: Iterable[int]) -> float | None:
        value = measured.get(tuple(sorted(set(everything) - set(removed))))
        return None if value is None else row["log_prob"] - value

    mine3, best3 = drop(mine[:3]), drop(best[:3])
    if mine3 is not None and best3 is not None and best3 > 0:
        metrics["top 3"] = mine3 / best3
    sizes = aopc_sizes(len(drops))
    for metric, removed in (
        ("comprehensiveness", [mine[:k] for k in sizes]),
        ("sufficiency", [mine[k:] for k in sizes]),
    ):
        values = [drop(numbers) for numbers in removed]
        if None not in values:
            metrics[metric] = sum(v or 0.0 for v in values) / len(values)
    return metrics


def aopc_sizes(n: int) -> list[int]:
    """How many of n sentences 10, 20 and 50 % of them are, rounded up."""
    return [math.ceil(n * share) for share in (0.1, 0.2, 0.5)]
