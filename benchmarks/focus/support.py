"""`python -m benchmarks.focus.support squad.jsonl.gz questions.txt rows.jsonl [model] [chosen|fresh]`: support.

Each question of SQuAD on a short passage is asked three ways: of the passage ("full"), of the passage without the
sentences that hold the gold answer ("removed"), and, of the passage, a question of general knowledge that has nothing
to do with it ("world"). Each answer's readings go into a file of JSON lines; a run goes on where one was cut off.
The rule was chosen on passages of up to 1,000 characters, which are asked by default; "fresh" asks some of up to 1,500,
which no choice has seen. Shares are told with Wilson's 95 % intervals.
"Inviting" is how often the gold answer is given where the order also invites to say what is not there.

The first file is that of `sightline focus-bench --squad`, with doc.answers_text; the second has a question a line.
"""

from __future__ import annotations

import gzip
import json
import math
import random
import re
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from sightline import models
from sightline.evidence import Support
from sightline.reader import Reader
from sightline.sentences import sentences
from sightline.tasks import answer
from sightline.tasks._chat import stop_tokens
from sightline.tasks._check import INVITING
from sightline.tasks._prompt import Prompt

LENGTH, LONGER = 1000, 1500
"""The longest passage, in characters, of those that the rule was chosen on, and of fresh ones, which are longer."""

LIMIT = 20
"""Tokens of an answer."""


@dataclass(frozen=True)
class Item:
    passage: str
    removed: str
    question: str
    gold: tuple[str, ...]
    world: str

    def asked(self) -> dict[str, tuple[str, str]]:
        """The text and the question of each way of asking."""
        return {
            "full": (self.passage, self.question),
            "world": (self.passage, self.world),
            "removed": (self.removed, self.question),
        }

    def judged(self, text: str) -> dict[str, Any]:
        return {"answer": text, "right": any(a in text.lower() for a in self.gold)}


def items(squad: Path, world: list[str], part: str = "chosen") -> list[Item]:
    """Passages of 4 to 8 sentences, of which one or two hold the answer and the others no form of it; shuffled."""
    if part not in ("chosen", "fresh"):
        raise ValueError(f"the passages asked are 'chosen' or 'fresh'; got {part!r}")
    seen: set[str] = set()
    found: list[tuple[str, Item]] = []
    with gzip.open(squad, "rt") as file:
        for line in file:
            doc = json.loads(line)["doc"]
            match = re.search(r"Background: (.*)\nQuestion: (.*)\nAnswer:", doc["query"], re.S)
            if match is None or match[1] in seen:
                continue
            seen.add(match[1])
            passage, gold = match[1], tuple(a.lower().strip(" .") for a in doc["answers_text"])
            texts = [passage[span.start : span.end] for span in sentences(passage)]
            rest = [text for text in texts if not any(a in text.lower() for a in gold)]
            removed = " ".join(rest)
            if (len(passage) > LENGTH) is not (part == "fresh") or len(passage) > LONGER:
                continue
            if not 4 <= len(texts) <= 8 or not 1 <= len(texts) - len(rest) <= 2:
                continue
            if not any(a in removed.lower() for a in gold):
                found.append((doc["id"], Item(passage, removed, match[2].strip(), gold, "")))
    chosen = [item for _, item in sorted(found, key=lambda pair: pair[0])]
    random.Random(7).shuffle(chosen)
    return [Item(**asdict(item) | {"world": world[at % len(world)]}) for at, item in enumerate(chosen)]


def examined(network: Any, item: Item, tokenizer: Any) -> Iterator[dict[str, Any]]:
    """What each way of asking gave. The sentence for the contrast is the first by direct drop: nothing is cited."""
    for kind, (document, question) in item.asked().items():
        result = answer(document, question, model=(network, tokenizer), max_new_tokens=LIMIT, citations=0)
        yield {"kind": kind, **item.judged(result.text), **(vars(result.support) if result.text else {})}
    prompt = Prompt(item.passage, item.question, tokenizer, INVITING)
    reader = Reader(network)
    reader.read(prompt.tokens[:-1])
    tokens = reader.generate(prompt.tokens[-1], LIMIT, stop_tokens(network, tokenizer))
    yield {"kind": "inviting", **item.judged(tokenizer.decode(tokens, skip_special_tokens=True).strip())}


def held(row: dict[str, Any]) -> bool:
    """Whether the rule calls an answer supported; never an empty one."""
    names = [field.name for field in fields(Support)]
    return "answerable" in row and Support(**{name: row[name] for name in names}).holds


def wilson(hits: int, n: int) -> tuple[float, float]:
    """Wilson's 95 % interval of a share."""
    z = 1.959964
    middle, half = hits + z * z / 2, z * math.sqrt(hits * (n - hits) / n + z * z / 4)
    return (middle - half) / (n + z * z), (middle + half) / (n + z * z)


def report(rows: list[dict[str, Any]]) -> Iterator[str]:
    """Of each kind, the share that the rule flags; and of the questions that the passage answers, the share right."""
    for kind in ("full", "world", "removed"):
        of_kind = [row for row in rows if row["kind"] == kind]
        yield _share(f"{kind}: flagged", sum(not held(row) for row in of_kind), len(of_kind))
    right = [row for row in rows if row["kind"] == "full" and row["right"]]
    yield _share("full, answered rightly: flagged", sum(not held(row) for row in right), len(right))
    for kind in ("full", "inviting"):
        of_kind = [row for row in rows if row["kind"] == kind]
        yield _share(f"{kind}: right", sum(row["right"] for row in of_kind), len(of_kind))


def _share(name: str, hits: int, n: int) -> str:
    low, high = wilson(hits, n) if n else (0.0, 1.0)
    return f"{name}: {hits} of {n} ({low:.1%} – {high:.1%})"


def main(squad: str, world: str, target: str, model: str = models.DEFAULT, part: str = "chosen") -> None:
    network, tokenizer = models.load(model)
    path = Path(target)
    done = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    if any(entry.get("part") != part for entry in done):
        raise ValueError(f"{path} holds answers on other passages than the {part!r} ones; name another file")
    known = {entry["item"] for entry in done}
    questions = [line.strip() for line in Path(world).read_text().splitlines() if line.strip()]
    for at, item in enumerate(items(Path(squad), questions, part)):
        if at not in known:
            done.append({"item": at, "part": part, "rows": list(examined(network, item, tokenizer))})
            with path.open("a") as file:
                file.write(json.dumps(done[-1], ensure_ascii=False) + "\n")
    print(f"{model}, {part} passages:", *report([row for entry in done for row in entry["rows"]]), sep="\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
