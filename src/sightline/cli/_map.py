"""A small map of attention for a terminal: blocks in colour, two in each character, or shades where there is none."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rich.color import Color
from rich.console import Console
from rich.style import Style
from rich.text import Text

from ..errors import SpecError

if TYPE_CHECKING:
    from ..recording import Kind, Trace

__all__ = ["Map", "draw", "maps"]

_SIDES = (64, 32, 16)
_DECADES = 3
"""Of shares that are told apart; smaller ones look like none."""

_SHADES = " ·░▒▓█"
_RAMP = ((16, 16, 20), (84, 34, 20), (186, 88, 14), (240, 178, 84), (255, 244, 214))


@dataclass(frozen=True)
class Map:
    """The mean share of its attention that a query of a block of rows gives to each block of keys, top row first."""

    kind: Kind
    module: str | None
    head: int | None
    heads: int
    rows: int
    cols: int
    shares: list[list[float]]

    def to_dict(self) -> dict[str, Any]:
        """As plain data for JSON. `module` and `head` are null for the mean of all heads."""
        return dict(vars(self))


def maps(trace: Trace, which: str, kinds: Sequence[Kind], width: int) -> list[Map]:
    """The mean map of all heads of each kind where `which` is "all", else that of one head, LAYER.HEAD.

    LAYER is a module's number, its name or a pattern of it. At most `width` blocks across. Raises SpecError where there
    is no such head, and where neither `BlockMass` nor queries and keys were recorded.
    """
    if which == "all":
        modules = [[name for name, calls in trace.items() if calls[0].kind == kind] for kind in kinds]
        return [_found(trace, kind, names, None, width) for kind, names in zip(kinds, modules, strict=True)]
    layer, _, head = which.rpartition(".")
    chosen = _modules(trace, layer)
    heads = [str(number) for name in chosen for number in trace[name][0].heads]
    if len(chosen) != 1 or head not in heads:
        names = ", ".join((chosen or list(trace))[:6]) + (" …" if len(chosen or trace) > 6 else "")
        there = (
            f"{chosen[0]} has the heads {', '.join(heads)}. Choose one of these."
            if len(chosen) == 1
            else f"the layer matches {len(chosen)} modules. Write LAYER.HEAD, with the number of one of: {names}"
        )
        raise SpecError(f"the map of {which!r} was asked for; {there}")
    return [_found(trace, trace[chosen[0]][0].kind, chosen, int(head), width)]


def _modules(trace: Trace, layer: str) -> list[str]:
    from ..recording.choice import matches

    return [name for name in trace if matches(int(layer) if layer.isdecimal() else layer, name)]


def _found(trace: Trace, kind: Kind, modules: list[str], head: int | None, width: int) -> Map:
    from ..recording.maps import maps as of
    from ..recording.places import placed

    queries = max(start + call.shape[2] for name in modules for start, call in placed(trace, name))
    keys = max(call.key_positions.stop for name in modules for call in trace[name])
    heads = [number for name in modules for number in trace[name][0].heads]
    side = next((side for side in _SIDES if side <= width), _SIDES[-1])
    found = of(trace, modules, queries, keys, (len(heads) + 1) * side**2)
    if found is None:
        raise SpecError(
            "a map was asked for; of this trace neither the masses of blocks were recorded nor queries and keys. "
            "Record with map among --observe, or with --keep qk."
        )
    shares = found.shares[0 if head is None else 1 + heads.index(head)]
    module = None if head is None else modules[0]
    return Map(kind, module, head, len(heads), found.rows, found.cols, shares.tolist())


def draw(found: Map, title: str, console: Console) -> None:
    """Print a map: two rows of blocks to a line."""
    console.print()
    console.print(Text(title, style="bold cyan"))
    most = max(map(max, found.shares), default=0.0)
    levels = [[_level(share, most) for share in row] for row in found.shares]
    coloured = not console.no_color and console.color_system in ("256", "truecolor")
    for at in range(0, len(levels), 2):
        pair = levels[at], levels[at + 1] if at + 1 < len(levels) else None
        console.print(_halves(*pair) if coloured else _shades(*pair), no_wrap=True, soft_wrap=True)
    example = _halves([1.0], None) if coloured else Text(_SHADES[-1])
    what = f" {100 * most:.3g}% of a query's attention, fading to {100 * most / 10**_DECADES:.3g}%"
    console.print(Text.assemble(example, (what, "dim")))
    console.print(Text(f"keys across by {found.cols:,}, queries down by {found.rows:,}", style="dim"))


def _level(share: float, most: float) -> float:
    """0 for nothing, 1 for the largest, logarithmic between."""
    return max(0.0, 1 + math.log10(share / most) / _DECADES) if share > 0 else 0.0


def _halves(top: list[float], bottom: list[float] | None) -> Text:
    line = Text()
    for i, level in enumerate(top):
        line.append("▀", Style(color=_colour(level), bgcolor=None if bottom is None else _colour(bottom[i])))
    return line


def _shades(top: list[float], bottom: list[float] | None) -> Text:
    """One character for two rows: the stronger of them, which a mean would hide."""
    rows = top if bottom is None else [max(pair) for pair in zip(top, bottom, strict=True)]
    return Text("".join(_SHADES[math.ceil(level * (len(_SHADES) - 1))] for level in rows))


def _colour(level: float) -> Color:
    place = level * (len(_RAMP) - 1)
    at = min(int(place), len(_RAMP) - 2)
    part = place - at
    return Color.from_rgb(*(a + (b - a) * part for a, b in zip(_RAMP[at], _RAMP[at + 1], strict=True)))
