"""Line breaks inside a sentence, put into its translation."""

from __future__ import annotations

import re
from collections.abc import Sequence

from ...sentences import Span

__all__ = ["laid"]

_BREAK = re.compile(r"[^\S\r\n]*(?:\r\n|\r|\n)\s*")


def laid(text: str, places: Sequence[Span], source: str) -> tuple[str, tuple[Span, ...]]:
    """A translation with the line breaks of its source, and the places of its tokens or words, moved along.

    A break after a part x of the source takes the place of the blank closest to that part of the translation; where
    there are too few blanks, breaks are put at the end. Every break is kept as it is, with the blanks around it.

    >>> from sightline.tasks.translation._laid import laid
    >>> laid("O carro vermelho parou.", [], "The red\\r\\ncar stopped.")[0]
    'O carro\\r\\nvermelho parou.'
    """
    breaks = list(_BREAK.finditer(source))
    if not breaks:
        return text, tuple(places)
    blanks = [m.span() for m in re.finditer(r"\s+", text)]
    cuts: list[tuple[int, int, str]] = []
    first = 0
    for left, match in zip(range(len(breaks), 0, -1), breaks):
        aim = match.start() / len(source) * len(text)
        # Those after this one need blanks too; where there are not enough, the last breaks go without.
        room = range(first, max(first + 1, len(blanks) - left + 1))
        chosen = min((i for i in room if i < len(blanks)), key=lambda i: abs(blanks[i][0] - aim), default=None)
        if chosen is None:
            cuts.append((len(text), len(text), match[0]))
        else:
            cuts.append((*blanks[chosen], match[0]))
            first = chosen + 1
    pieces: list[str] = []
    at = 0
    for start, end, instead in cuts:
        pieces += [text[at:start], instead]
        at = end
    moved = [Span(_moved(place.start, cuts), _moved(place.end, cuts)) for place in places]
    return "".join([*pieces, text[at:]]), tuple(moved)


def _moved(at: int, cuts: Sequence[tuple[int, int, str]]) -> int:
    return at + sum(len(instead) - (end - start) for start, end, instead in cuts if start < at)
