"""`python -m benchmarks.focus.needle text.txt`: one sentence in 100,000 words, asked for in other words.

Twenty sentences that have nothing to do with the text are planted in it one at a time, each at another of twenty
places, evenly spaced, between two of its sentences; or, with --same N, the N-th of them at each of the twenty places,
which asks whether the place matters and not how well the model answers. Read: the planted sentence is in a window that
was read. Found: the answer holds the words that it must. Cited: a citation overlaps the planted sentence. Each question
is asked in a process of its own, whose peak memory counts.

Any text of 100,000 words or more does that is read in sentences, such as a novel of Project Gutenberg.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import time
from pathlib import Path

from sightline.sentences import sentences

WORDS = 100_000

NEEDLES = [
    ("The password to Aunt Philippa's cellar was the word 'marmalade', spoken twice.",
     "What had to be said to get into Aunt Philippa's cellar?", "marmalade"),
    ("Dr. Osric Vane always kept a live tortoise in the left pocket of his overcoat.",
     "Which animal did Doctor Vane carry about with him?", "tortoise"),
    ("On the third of March the ferry to Skellan was delayed by eleven hours.",
     "By how much was the Skellan boat late?", "eleven"),
    ("The town of Bramhope pays its lamplighter forty-two shillings a week.",
     "What does the lamplighter of Bramhope earn?", "forty-two"),
    ("Lieutenant Quist hid the treaty inside a hollow loaf of rye bread.",
     "Where was the treaty concealed by Lieutenant Quist?", "loaf"),
    ("The only thing that the parrot of Madame Zelenka could say was 'bring more butter'.",
     "What were the words of Madame Zelenka's parrot?", "butter"),
    ("The bridge at Tolvane was built by a woman named Ingrid Halloway.",
     "Who was responsible for the construction of the Tolvane bridge?", "halloway"),
    ("The observatory's great telescope was sold in 1887 to pay for a new roof.",
     "In which year did the observatory part with its telescope?", "1887"),
    ("Cheese from the valley of Orsk turns blue when it is left beside a fiddle.",
     "What colour does Orsk cheese become near a violin?", "blue"),
    ("The winner of the Pellworth chess prize was a bricklayer called Samuel Dunmore.",
     "Who took the prize for chess at Pellworth?", "dunmore"),
    ("Every clock in the village of Ashby Knoll is set seventeen minutes fast.",
     "How many minutes ahead are the clocks of Ashby Knoll?", "seventeen"),
    ("The will of old Mr. Thackery left his whole fortune to the lifeboat crew of Penmarrow.",
     "Who inherited Mr. Thackery's money?", "lifeboat"),
    ("The flag of the Republic of Valdonia shows a silver heron on a green field.",
     "Which bird is on the banner of Valdonia?", "heron"),
    ("Professor Amari proved that the comet would return after ninety-one years.",
     "According to Professor Amari, how long will it be until the comet comes back?", "ninety-one"),
    ("The bakery on Cutler Street burned down because a cat knocked over a lantern.",
     "What caused the fire at the Cutler Street bakery?", "cat "),
    ("The sisters Morland crossed the desert of Khevsur on a tandem bicycle.",
     "How did the Morland sisters travel through the desert?", "tandem"),
    ("The secret ingredient of Captain Rourke's chowder was a pinch of cinnamon.",
     "What spice did Captain Rourke put in his soup?", "cinnamon"),
    ("The oldest book in the library of Saint Odo was printed in Antwerp.",
     "In which city was Saint Odo's most ancient volume made?", "antwerp"),
    ("The patient in room nine recovered as soon as he stopped drinking nettle tea.",
     "What did the patient of room nine have to give up to get well?", "nettle"),
    ("The night train to Corvo stops at Lindell only when a red lamp is hung on the gate.",
     "What must be put on the gate so that the Corvo train stops at Lindell?", "lamp"),
]  # fmt: skip


def planted(text: str, needle: str, place: int) -> tuple[str, int, int]:
    """The text with the needle in one of the places, and where the needle begins and ends."""
    spans = sentences(text)
    at = spans[int((place + 0.5) / len(NEEDLES) * len(spans))].end
    return f"{text[:at]} {needle}{text[at:]}", at + 1, at + 1 + len(needle)


def ask(document: str, question: str, model: str | None) -> tuple[dict[str, object], float]:
    """The result of the command, as JSON, and the seconds of its process."""
    command = [sys.executable, "-c", "import sys; from sightline_launch import main; sys.exit(main())", "answer", "-"]
    command += [question, "--json", *(["--model", model] if model else [])]
    start = time.perf_counter()
    done = subprocess.run(command, input=document.encode(), stdout=subprocess.PIPE, check=True)
    return json.loads(done.stdout), time.perf_counter() - start


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("text", type=Path)
    options.add_argument("--model", help="A known name, a folder, or a hub id.")
    options.add_argument("--same", type=int, choices=range(len(NEEDLES)), metavar="N", help="This sentence everywhere.")
    options.add_argument("--places", type=int, nargs="+", default=range(len(NEEDLES)), metavar="N", help="Only these.")
    given = options.parse_args()
    words = list(re.finditer(r"\S+", given.text.read_text(encoding="utf-8", errors="replace")))
    if len(words) < WORDS:
        raise SystemExit(f"{given.text} has {len(words):,} words; give a text of {WORDS:,} or more.")
    text = words[0].string[: words[WORDS - 1].end()]
    totals = {"read": 0, "found": 0, "cited": 0, "found and cited": 0}
    for place in given.places:
        needle, question, word = NEEDLES[place if given.same is None else given.same]
        document, start, end = planted(text, needle, place)
        result, seconds = ask(document, question, given.model)
        row = {
            "read": any(w["start"] <= start and end <= w["end"] for w in result["windows"]),
            "found": word in f"{result['answer']} ".lower(),
            "cited": any(c["start"] < end and start < c["end"] for c in result["citations"]),
        }
        row["found and cited"] = row["found"] and row["cited"]
        for name, good in row.items():
            totals[name] += good
        said = {"verdict": result["verdict"], "seconds": round(seconds, 1), "peak GB": result["peak_bytes"] / 1e9}
        print(json.dumps({"place": place} | row | said | {"answer": result["answer"]}, ensure_ascii=False), flush=True)
    print(json.dumps({"n": len(given.places)} | totals))


if __name__ == "__main__":
    main()
