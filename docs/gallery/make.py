"""Make the pictures of the gallery again, from real models.

    python docs/gallery/make.py                                    # all that need no text of yours
    python docs/gallery/make.py induction sinks                    # some
    python docs/gallery/make.py needle --text moby_dick.txt        # any English text of 100,000 tokens or more

Needs `pip install "sightline[models,plot]"` and the known models smollm2-135m and, for the alignment, marian-en-pt. The
figures that the pages quote are printed.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

import alignment
import induction
import needle
import retrieval
import sinks

from sightline import models

HERE = Path(__file__).parent
DOCUMENT = HERE.parents[1] / "examples" / "the-weather-book-of-marrow-point.md"


def make_induction(into: Path) -> str:
    found = induction.measure(*models.load("smollm2-135m"))
    induction.draw(found, into / "induction.png")
    return induction.told(found)


def make_sinks(into: Path) -> str:
    found = sinks.measure(*models.load("smollm2-135m"), DOCUMENT.read_text())
    sinks.draw(found, into / "sinks.png")
    return sinks.told(found)


def make_retrieval(into: Path) -> str:
    found = retrieval.measure(*models.load("smollm2-135m"), DOCUMENT.read_text())
    retrieval.draw(found, into / "retrieval.png")
    return retrieval.told(found)


def make_alignment(into: Path) -> str:
    found = alignment.measure(*models.load("marian-en-pt"))
    alignment.draw(found, into / "alignment.png")
    return alignment.told(found)


def make_needle(into: Path, text: Path) -> str:
    model, tokenizer = models.load("smollm2-135m")
    heads = retrieval.measure(model, tokenizer, DOCUMENT.read_text()).heads  # found on another text
    found = needle.measure(model, tokenizer, text.read_text(), heads)
    needle.draw(found, into / "needle.png")
    return needle.told(found)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", choices=["induction", "sinks", "retrieval", "alignment", "needle", []])
    parser.add_argument("--text", type=Path, help="for needle: an English text of 100,000 tokens or more")
    parser.add_argument("--into", type=Path, default=HERE, help="the folder of the pictures")
    given = parser.parse_args()
    pictures: dict[str, Callable[[Path], str]] = {
        "induction": make_induction,
        "sinks": make_sinks,
        "retrieval": make_retrieval,
        "alignment": make_alignment,
    }
    if given.text is not None:
        pictures["needle"] = lambda into: make_needle(into, given.text)
    elif "needle" in given.names:
        parser.error("the picture needle needs a text: --text FILE")
    for name in given.names or pictures:
        print(f"{name}: {pictures[name](given.into)}", flush=True)


if __name__ == "__main__":
    main()
