"""Examine items one by one: every method's scores, what removal shows to be true, and what each cost."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

import torch

from ...evidence import SECOND_ROUND, SHORTLIST, find_evidence, ranked, to_read
from ...sentences import Span
from . import scores
from .asked import Asked, Cost, timed
from .item import Item
from .linear import lasso
from .reports import aopc_sizes, order

__all__ = ["examine"]

MEASURED = 3
"""Sentences that the shipped pipeline measures first, and shows: the default of `sightline.tasks.answer`."""

MASKS = 32
"""Sets of sentences taken out at random: as many to fit scores to as to judge them by."""

KEEP = 0.5
"""Chance of a sentence to stay in such a set."""

FORWARDS = 16
"""Removals that `fitted_drops` is given."""

ALPHA = 0.01
"""Weight of the LASSO's penalty, as in ContextCite."""

EXHAUSTIVE = 64
"""Sentences up to which each is taken out; of longer documents, the gold ones and those that some method puts first."""


def examine(
    network: Any, tokenizer: Any, item: Item, *, cheap: bool = True, thorough: bool = False
) -> dict[str, Any] | None:
    """All about one item, as plain data for JSON; None where the model says nothing.

    Without `cheap`, only what needs no model beside the shipped pipeline. With `thorough`, also the methods and the
    measures that read the document tens of times; only for items of up to EXHAUSTIVE sentences.
    """
    asked = Asked(network, tokenizer, item)
    if not asked.answer:
        return None
    short = len(item.sentences) <= EXHAUSTIVE
    costs = {"prefill": asked.prefill}
    found = _without_model(asked)
    heads = _cheap(asked, found, costs) if cheap else None
    ranking = _shipped(asked, costs)
    direct = dict(ranking["ranked"])
    if short and len(direct) < len(item.sentences):
        found["direct drop"], costs["direct drop"] = scores.direct(asked)
    else:
        found["direct drop"] = [direct.get(i) for i in range(len(item.sentences))]
    tried = set(range(len(item.sentences)))
    if not short:
        tried = {*item.gold, *(i for s in found.values() for i in order(s)[:MEASURED])}
    drops = dict(zip(tried, asked.drops([[i] for i in tried]), strict=True))
    found["leave-one-out"] = [drops.get(i) for i in range(len(item.sentences))]
    row: dict[str, Any] = {
        "tier": item.tier,
        "name": item.name,
        "gold": list(item.gold),
        "tokens": [len(asked.prompt.tokens), len(asked.answer)],
        "question": item.question,
        "answer": tokenizer.decode(asked.answer),
        "log_prob": asked.full,
        "scores": found,
        **ranking,
    }
    if heads is not None:
        row["heads"] = [[round(x, 4) for x in head] for head in heads.tolist()]
    if thorough and short:
        row |= _thorough(asked, found, costs, [i for i, _ in ranking["shown"]])
    row["costs"] = {name: [cost.steps, cost.seconds] for name, cost in costs.items()}
    return row


def _without_model(asked: Asked) -> dict[str, Sequence[float | None]]:
    """Methods that look at places and words alone."""
    n = range(len(asked.spans))
    return {
        "first sentences": [float(-i) for i in n],
        "last sentences": [float(i) for i in n],
        "BM25": scores.shared_words(
            f"{asked.item.question} {asked.tokenizer.decode(asked.answer)}", asked.item.sentences
        ),
    }


def _cheap(asked: Asked, found: dict[str, Sequence[float | None]], costs: dict[str, Cost]) -> torch.Tensor:
    """Methods that cost no more than a prefill, into `found`; the attention of every head."""
    heads, costs["attention"] = scores.attention_of_heads(asked)
    per_layer = len(heads) // asked.network.config.get_text_config(decoder=True).num_hidden_layers
    found["mean attention"] = heads.mean(0).tolist()
    found["last layer's attention"] = heads[-per_layer:].mean(0).tolist()
    found["relevance"], costs["relevance"] = scores.relevance(asked)
    return heads


def _shipped(asked: Asked, costs: dict[str, Cost]) -> dict[str, Any]:
    """The pipeline as it is shipped: its short list by direct drop, and what it shows by measured drop."""
    prompt, spans, t = asked.prompt, asked.spans, len(asked.answer)
    listed = min(len(spans), SHORTLIST)
    steps = t * listed + (3 * t if len(spans) > listed else 0)
    reader = asked.held()
    ask = (prompt.tokens, prompt.places, spans, asked.answer)
    ranking, costs["ranking"] = timed(steps, lambda: ranked(reader, *ask, log_prob=asked.log_prob))
    again: list[int] = []

    def without(span: Span) -> tuple[int, ...]:
        shortened = prompt.without(span)
        again.append(to_read(prompt.tokens, shortened) + t)
        return shortened

    reader = asked.held()
    shown, cost = timed(
        steps,
        lambda: find_evidence(reader, *ask, without, top=MEASURED, second_round=SECOND_ROUND, log_prob=asked.log_prob),
    )
    costs["all told"] = Cost(steps + sum(again), cost.seconds)
    numbers = {span: i for i, span in enumerate(spans)}
    asked.know({numbers[e.span]: ranking.log_prob - e.drop for e in shown})
    return {
        "ranked": [[i, drop] for i, drop in ranking.direct.items()],
        "shown": [[numbers[e.span], e.drop] for e in shown],
    }


def _thorough(
    asked: Asked, found: dict[str, Sequence[float | None]], costs: dict[str, Cost], shown: Sequence[int]
) -> dict[str, Any]:
    """Methods and measures that read the document tens of times: into `found`, and what is held out to judge by."""
    more, costs["gradients"] = scores.gradients(asked)
    found |= more
    found["rollout"], costs["rollout"] = scores.rolled_out(asked)
    fit, held_out = _random_sets(asked, "fit"), _random_sets(asked, "held out")
    found[f"fitted to {FORWARDS} removals"], costs["fitted"] = scores.fitted(asked, FORWARDS)
    found["ContextCite-32"] = list(context_cite(fit, len(asked.spans)))
    n = range(len(asked.spans))
    orders = [order(s) for s in found.values()] + [[*shown, *(i for i in n if i not in shown)]]
    sizes = {*aopc_sizes(len(asked.spans)), MEASURED}
    removed = {frozenset(part) for mine in orders for k in sizes for part in (mine[:k], mine[k:])}
    asked.without(removed)
    sets = [[sorted(kept), log_prob] for kept, log_prob in asked.kept.items()]
    return {"fit": fit, "held out": held_out, "sets": sets}


def context_cite(sets: Sequence[tuple[list[int], float]], n: int) -> list[float]:
    """LASSO weights of n sentences, fitted to the logit of p(answer | kept) over sets of kept sentences.

    Inputs and outputs are standardised first. Source: Cohen-Wang et al. (2024), "ContextCite", section 3.
    """
    x = torch.zeros(len(sets), n, dtype=torch.float64)
    for row, (kept, _) in zip(x, sets, strict=True):
        row[kept] = 1
    log_p = torch.tensor([log_prob for _, log_prob in sets], dtype=torch.float64)
    y = log_p - torch.log(-torch.expm1(log_p.clamp_max(-1e-12)))
    x, y = x - x.mean(0), y - y.mean()
    spread = x.square().mean(0).sqrt()
    weights = lasso(x / spread.clamp_min(1e-12), y / y.square().mean().sqrt().clamp_min(1e-12), ALPHA)
    return (weights / spread.clamp_min(1e-12)).tolist()


def _random_sets(asked: Asked, purpose: str) -> list[tuple[list[int], float]]:
    """MASKS random sets of sentences that are kept, and log p(answer | those) in nats."""
    chance = random.Random(f"{asked.item.name} {purpose}")
    n = range(len(asked.spans))
    removed = [[i for i in n if chance.random() > KEEP] for _ in range(MASKS)]
    return [
        (sorted(set(n) - set(out)), log_prob) for out, log_prob in zip(removed, asked.without(removed), strict=True)
    ]
