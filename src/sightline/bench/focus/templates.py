"""Items made from templates and a seed, whose answers are known to the letter: tiers A, B, C, D and F.

Every item is drawn from its own random state, so that item 7 is the same whether 8 are asked for or 80.
"""

from __future__ import annotations

import random
from collections.abc import Callable

from .item import Item

__all__ = ["LENGTHS", "made"]

LENGTHS = (500, 1000, 2000, 4000, 8000)
"""About how many tokens the filler of tier D has, in turn."""

_COLOURS = ("silver", "green", "broken", "painted", "heavy", "wooden", "blue", "narrow", "polished", "striped")
_THINGS = ("compass", "lantern", "kettle", "ladder", "violin", "anchor", "saddle", "telescope", "basket", "mirror")
_PLACES = (
    "the boathouse", "the chapel", "the granary", "the old mill", "the cellar", "the bell tower", "the stables",
    "the orchard", "the forge", "the library", "the attic", "the greenhouse", "the quarry", "the ice house",
)  # fmt: skip
_PEOPLE = (
    "Mara Lindqvist", "Tobias Renn", "Ines Calloway", "Oskar Veld", "Priya Nandan", "Hugo Ferrant", "Selma Dahl",
    "Jonas Whitlock", "Amara Okoye", "Pavel Drozd", "Ruth Amsel", "Diego Santoro", "Lena Brandt", "Kofi Mensah",
)  # fmt: skip
_TOWNS = (
    "Tolverne", "Askersby", "Port Meridan", "Grenholt", "Lowmarsh", "Vantry", "Ostermoor", "Kilbrae", "Dunwick",
    "Sarnfield", "Eastholm", "Perrin Cross", "Malden Ferry", "Quillan",
)  # fmt: skip
_HABITS = (
    "mends nets on Thursdays", "keeps two goats", "sings in the choir", "walks to the harbour before breakfast",
    "writes letters to a cousin", "paints signs for the shops", "bakes rye bread", "reads the almanac aloud",
    "repairs clocks in winter", "collects pressed ferns", "plays chess by post", "sells honey at the market",
)  # fmt: skip
_SUBJECTS = ("The ferry", "The baker", "The schoolmaster", "A gull", "The postman", "The harbour master", "An old dog")
_VERBS = ("passed", "watched", "described", "remembered", "ignored", "drew", "counted", "praised")
_OBJECTS = (
    "the grey hills",
    "a row of nets",
    "the long pier",
    "some empty barrels",
    "the evening tide",
    "two small boats",
)
_WHENS = ("in the morning", "after the rain", "before supper", "during the fair", "late in autumn", "on a quiet day")


def made(tier: str, count: int, seed: int, *, length: int = 12) -> list[Item]:
    """The first `count` items of a tier; those of tiers A, B, C and F have `length` sentences, 6 or more."""
    return [
        _MAKERS[tier](random.Random(f"{tier} {seed} {at}"), f"{tier}{seed}.{at}", length, at) for at in range(count)
    ]


def _found(chance: random.Random, count: int) -> list[tuple[str, str]]:
    """Things, no two alike, and the places they were found in, as many as there are of either."""
    things = [f"{colour} {thing}" for colour in _COLOURS for thing in _THINGS]
    return list(zip(chance.sample(things, count), chance.sample(_PLACES, count), strict=True))


def _facts(chance: random.Random, length: int) -> tuple[list[str], str, str]:
    """Sentences about places of things and habits of people; the thing of the first sentence, and its place."""
    found = _found(chance, (length + 1) // 2)
    people = chance.sample(_PEOPLE, length - len(found))
    habits = chance.sample(_HABITS, len(people))
    texts = [f"The {thing} was found in {place}." for thing, place in found]
    texts += [f"{person} {habit}." for person, habit in zip(people, habits, strict=True)]
    return texts, *found[0]


def _placed(chance: random.Random, tier: str, name: str, texts: list[str], question: str, gold: int) -> Item:
    """The sentences, shuffled; the first `gold` of them hold the answer."""
    order = list(range(len(texts)))
    chance.shuffle(order)
    return Item(
        tier, name, tuple(texts[i] for i in order), question, tuple(sorted(order.index(i) for i in range(gold)))
    )


def _single(chance: random.Random, name: str, length: int, at: int) -> Item:
    texts, thing, _ = _facts(chance, length)
    return _placed(chance, "A", name, texts, f"Where was the {thing} found?", 1)


def _two_hops(chance: random.Random, name: str, length: int, at: int) -> Item:
    pairs = length // 2
    people, towns = chance.sample(_PEOPLE, pairs), chance.sample(_TOWNS, pairs)
    things = [thing for thing, _ in _found(chance, pairs)]
    texts = [f"The {things[0]} belongs to {people[0]}.", f"{people[0]} lives in {towns[0]}."]
    for thing, person, town in list(zip(things, people, towns, strict=True))[1:]:
        texts += [f"The {thing} belongs to {person}.", f"{person} lives in {town}."]
    return _placed(chance, "B", name, texts, f"In which town does the owner of the {things[0]} live?", 2)


def _decoys(chance: random.Random, name: str, length: int, at: int) -> Item:
    texts, thing, place = _facts(chance, length - 4)
    elsewhere, never = chance.sample([p for p in _PLACES if p != place], 2)
    texts += [
        f"{place[0].upper()}{place[1:]} was painted last spring.",
        f"Nobody has slept in {place} since the flood.",
        f"Years before, the {thing} had been lost in {elsewhere}.",
        f"A rumour that the {thing} lay in {never} turned out to be false.",
    ]
    return _placed(chance, "C", name, texts, f"Where was the {thing} found?", 1)


def _needle(chance: random.Random, name: str, length: int, at: int) -> Item:
    """Filler of about 12 tokens a sentence, and one sentence that matters."""
    parts = (_SUBJECTS, _VERBS, _OBJECTS, _WHENS)
    texts = [
        "{} {} {} {}.".format(*(chance.choice(part) for part in parts)) for _ in range(LENGTHS[at % len(LENGTHS)] // 12)
    ]
    thing, place = _found(chance, 1)[0]
    return _placed(
        chance, "D", name, [f"The {thing} was found in {place}.", *texts], f"Where was the {thing} found?", 1
    )


def _unanswerable(chance: random.Random, name: str, length: int, at: int) -> Item:
    texts, thing, _ = _facts(chance, length + 1)
    return _placed(chance, "F", name, texts[1:], f"Where was the {thing} found?", 0)


_MAKERS: dict[str, Callable[[random.Random, str, int, int], Item]] = {
    "A": _single,
    "B": _two_hops,
    "C": _decoys,
    "D": _needle,
    "F": _unanswerable,
}
