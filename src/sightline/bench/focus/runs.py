"""Run the benchmark: choose items, examine them one by one, keep what was found, and report on it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import torch

from ... import models
from ...errors import InputError, SpecError
from .item import TIERS, Item
from .reports import Report, report
from .squad import long_items, passages, short_items
from .study import examine
from .templates import made

__all__ = ["SMOKE", "Settings", "chosen", "run"]

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}

FROM_FILE = frozenset("EL")

SMOKE = 12
"""Items of the quickest run: of tiers A and C in turn, with six sentences each."""


@dataclass(frozen=True)
class Settings:
    """What is run. `items` of each tier, of which the first `thorough` are put through the expensive methods too.

    `squad` is the file that tiers E and L are read from, see `squad`. Items are the same for the same seed.
    Raises SpecError for settings that make no sense.
    """

    tiers: str = "ABCF"
    items: int = 20
    thorough: int = 0
    seed: int = 0
    model: str = models.DEFAULT
    dtype: str | None = None
    squad: str | None = None
    smoke: bool = False

    def __post_init__(self) -> None:
        if not self.tiers or set(self.tiers) - set(TIERS):
            raise SpecError(
                f"the tiers {self.tiers!r} were asked for; there are {', '.join(TIERS)}. Name some of them."
            )
        if self.items < 1 or self.thorough < 0:
            raise SpecError(
                f"{self.items} items were asked for, {self.thorough} of them thoroughly; there must be one. "
                "Pass 1 or more, and 0 or more."
            )
        if self.dtype is not None and self.dtype not in DTYPES:
            raise SpecError(f"dtype {self.dtype!r} was asked for; there are {' and '.join(DTYPES)}. Name one.")
        if self.squad is None and FROM_FILE & set(self.tiers):
            raise SpecError(
                f"the tiers {self.tiers!r} were asked for; E and L are made from SQuAD's passages, and no file of them "
                "was given. Name it, or leave these tiers out."
            )


def chosen(settings: Settings) -> list[tuple[Item, bool]]:
    """The items, tiers in turn so that an interrupted run has some of each, and whether each is examined thoroughly."""
    if settings.smoke:
        pairs = zip(*(made(tier, SMOKE // 2, settings.seed, length=6) for tier in "AC"), strict=True)
        return [(item, False) for item in chain.from_iterable(pairs)]
    found = passages(settings.squad) if settings.squad and FROM_FILE & set(settings.tiers) else []
    makers: dict[str, Callable[[], list[Item]]] = {
        "E": lambda: short_items(found, settings.seed),
        "L": lambda: long_items(found, settings.seed),
    }
    tiers = [
        makers[tier]()[: settings.items] if tier in makers else made(tier, settings.items, settings.seed)
        for tier in settings.tiers
    ]
    return [(tier[at], at < settings.thorough) for at in range(settings.items) for tier in tiers if at < len(tier)]


def run(
    settings: Settings,
    *,
    rows: str | Path | None = None,
    progress: Callable[[str, int, int | None], None] | None = None,
) -> list[Report]:
    """Examine all items; a report on each tier, in the order of their names.

    Each item's row is appended to the file `rows`, if given, as a line of JSON; items that the file has already are
    not examined again. `progress` is told of "loading" and of "measuring", in items.

    Raises InputError for a file that holds rows of another run, and what `sightline.models.load` raises.
    """
    tell = progress or models.unheard
    items = chosen(settings)
    path = None if rows is None else Path(rows).expanduser()
    known = _read(path, settings)
    if any(item.name not in known for item, _ in items):
        network, tokenizer = models.load(settings.model, progress=progress)
        if settings.dtype is not None:
            network = network.to(DTYPES[settings.dtype])
        for at, (item, thorough) in enumerate(items):
            tell("measuring", at, len(items))
            if item.name not in known:
                with models.quiet():
                    row = examine(network, tokenizer, item, cheap=not settings.smoke, thorough=thorough)
                known[item.name] = row or {"tier": item.tier, "name": item.name, "answer": ""}
                if path is not None:
                    with path.open("a", encoding="utf-8") as file:
                        file.write(json.dumps(known[item.name] | {"run": _key(settings)}, ensure_ascii=False) + "\n")
        tell("measuring", len(items), len(items))
    return reports(known[item.name] for item, _ in items)


def reports(rows: Iterable[dict[str, Any]]) -> list[Report]:
    """A report on each tier of the rows; on those alone that the model answered."""
    by_tier: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        by_tier.setdefault(row["tier"], [])
        if row["answer"]:
            by_tier[row["tier"]].append(row)
    return [report(tier, found) for tier, found in sorted(by_tier.items())]


def _key(settings: Settings) -> list[Any]:
    """What two runs must have in common for their rows to be compared."""
    return [settings.model, settings.dtype, settings.seed]


def _read(path: Path | None, settings: Settings) -> dict[str, dict[str, Any]]:
    """The rows of a file by name; of none, none."""
    if path is None or not path.exists():
        return {}
    try:
        with path.open(encoding="utf-8") as file:
            found = [json.loads(line) for line in file if line.strip()]
        others = [row["run"] for row in found if row["run"] != _key(settings)]
        known = {row["name"]: row for row in found}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"the rows were to be kept in {str(path)!r}; what is in it is not a row of this benchmark: {error}. "
            "Name another file."
        ) from error
    if others:
        raise InputError(
            f"the rows were to be kept in {str(path)!r}; it holds those of model, dtype and seed {others[0]}, and "
            f"{_key(settings)} was asked for. Name another file."
        )
    return known
