"""Whether what Sightline shows as evidence is what an answer rests on: its ranking and others against leave-one-out.

    reports = run(Settings(tiers="ABC", items=20))
    reports[0].methods["shipped: measured"]["hit@1"].mean

A model answers questions about short texts, greedily. Each sentence is taken out in turn and the fall of that answer's
log-probability measured: that is the truth here. Every method gives each sentence a score, and is judged by where it
puts the sentences that matter. See `reports` for the measures, `item` for the kinds of texts, `scores` for the methods.
"""

from __future__ import annotations

from .item import TIERS, Item
from .reports import GATE, METRICS, RANDOM, SHIPPED, Mean, Report, report
from .runs import SMOKE, Settings, chosen, run
from .study import examine

__all__ = [
    "GATE",
    "METRICS",
    "RANDOM",
    "SHIPPED",
    "SMOKE",
    "TIERS",
    "Item",
    "Mean",
    "Report",
    "Settings",
    "chosen",
    "examine",
    "report",
    "run",
]
