"""The picture: time and peak memory against the length, each contender a line with its name at its end."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from importlib.util import find_spec
from io import BytesIO
from typing import Any

from ..errors import Unsupported
from .contenders import CONTENDERS
from .figures import Figures, Point
from .units import seconds, size

__all__ = ["DPI", "SIZE", "check_drawing", "draw"]

#: Okabe and Ito's colours, which people of any colour vision tell apart, and markers beside them.
_STYLE = {
    "eager": ("#D55E00", "s"),
    "sdpa": ("#000000", "o"),
    "sightline": ("#0072B2", "D"),
    "observing": ("#009E73", "^"),
}
#: Inches, and pixels per inch: a README's width, and as sharp on a fine screen.
SIZE, DPI = (9.0, 4.4), 160
#: By contender: tokens and a figure.
_Lines = Mapping[str, Sequence[tuple[int, float]]]
_GREY = "#595959"
#: The least distance between two names, in points.
_APART = 12.0


def check_drawing() -> None:
    """Raise Unsupported where nothing can be drawn; for before anything is measured."""
    if find_spec("matplotlib") is None:
        raise Unsupported(
            "a plot was asked for; that needs the package matplotlib, which is not installed. "
            'Install it with: pip install "sightline[plot]"'
        )


def draw(figures: Figures) -> bytes:
    """A PNG of two panels with logarithmic axes: the time of one call, and the growth of peak memory.

    Raises Unsupported where the package matplotlib is not installed.
    """
    check_drawing()
    from matplotlib.figure import Figure  # by itself, without pyplot's global state

    figure = Figure(figsize=SIZE, dpi=DPI, layout="constrained")
    left, right = figure.subplots(1, 2)
    times = {name: [(p.tokens, p.seconds) for p in figures.measured(name)] for name in CONTENDERS}
    memory = {name: [(p.tokens, p.bytes) for p in figures.measured(name) if p.bytes] for name in CONTENDERS}
    for axes, title, lines, unit in (
        (left, "Time of one call", times, seconds),
        (right, "Peak memory beside the inputs", memory, size),
    ):
        _lines(axes, lines)
        _scales(axes, figures.settings.tokens, unit)
        axes.set_title(title, loc="left", fontsize=11, fontweight="bold")
    _beyond(right, figures)
    figure.suptitle(figures.subject, fontsize=9, color=_GREY)
    figure.supxlabel("\n".join(["tokens", *_stops(figures)]), fontsize=9, color=_GREY)
    figure.draw_without_rendering()  # settles where things are, which names are placed by
    _names(left, times)
    _names(right, memory)
    image = BytesIO()
    figure.savefig(image, format="png")
    return image.getvalue()


def _lines(axes: Any, lines: _Lines) -> None:
    for name, points in lines.items():
        color, marker = _STYLE[name]
        if points:
            axes.plot(*zip(*points), color=color, marker=marker, markersize=4.5, linewidth=1.8, clip_on=False)


def _scales(axes: Any, tokens: Sequence[int], unit: Callable[[float], str]) -> None:
    """Logarithmic axes with room for names on the right; a faint grid."""
    from matplotlib.ticker import FuncFormatter, NullFormatter, NullLocator

    axes.set_xscale("log", base=2)
    axes.set_yscale("log")
    axes.set_xlim(tokens[0] / 1.2, tokens[-1] * (tokens[-1] / tokens[0] * 2) ** 0.46)
    some = tokens[:: -max(1, len(tokens) // 4)]  # as many as there is room for, the longest among them
    axes.set_xticks(some, labels=[f"{n:,}" for n in some])
    axes.xaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: unit(value).replace(".00", "").replace(".0", "")))
    axes.yaxis.set_minor_formatter(NullFormatter())
    axes.tick_params(labelsize=9, color=_GREY, length=3)
    axes.tick_params(which="minor", length=0)
    axes.grid(axis="both", color="#e4e4e4", linewidth=0.7)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color("#b0b0b0")


def _beyond(axes: Any, figures: Figures) -> None:
    """What would not fit: the memory that there is, and where lines would go that stop below it."""
    stopped = [point for point in _first_missing(figures) if point.needs]
    if not stopped or figures.available is None:
        return
    axes.axhline(figures.available, color=_GREY, linewidth=1, linestyle=(0, (4, 3)))
    there = (figures.settings.tokens[0], figures.available)
    label = f"available here: {size(figures.available)}"
    axes.annotate(label, there, xytext=(0, 4), textcoords="offset points", fontsize=9, color=_GREY)
    for point in stopped:
        color, marker = _STYLE[point.contender]
        last = [(p.tokens, p.bytes) for p in figures.measured(point.contender) if p.bytes][-1:]
        way = [*last, (point.tokens, point.needs)]
        axes.plot(*zip(*way), color=color, linewidth=1.4, linestyle=":", clip_on=False)
        axes.plot(*way[-1], color=color, marker=marker, markersize=5, markerfacecolor="white", clip_on=False)


def _names(axes: Any, lines: _Lines) -> None:
    """A name at the end of each line: beside it, moved up where lines end close together; above those that stop."""
    ends = {name: points[-1] for name, points in lines.items() if points}
    longest = max((tokens for tokens, _ in ends.values()), default=0)
    to_points = 72 / axes.figure.dpi
    lowest = 0.0  # where the next name may stand
    for name, (tokens, value) in sorted(ends.items(), key=lambda end: end[1][1]):
        text, color = CONTENDERS[name].label, _STYLE[name][0]
        if tokens < longest:
            place = {"xytext": (-7, 3), "ha": "right", "va": "bottom"}
        else:
            height = axes.transData.transform((tokens, value))[1] * to_points
            at = max(height, lowest)
            lowest = at + _APART
            place = {"xytext": (8, at - height), "ha": "left", "va": "center"}
        axes.annotate(text, (tokens, value), textcoords="offset points", fontsize=9.5, color=color, **place)


def _stops(figures: Figures) -> list[str]:
    """Why each line that ends early does."""
    return [
        f"{CONTENDERS[p.contender].label} stops: at {p.tokens:,} tokens it {_said(p)}" for p in _first_missing(figures)
    ]


def _said(point: Point) -> str:
    return f"gave a wrong result: {point.why}" if point.state == "wrong" else point.why


def _first_missing(figures: Figures) -> list[Point]:
    """For each contender the shortest length that it has no figures for."""
    missing: dict[str, Point] = {}
    for point in figures.points:
        if point.state != "measured":
            missing.setdefault(point.contender, point)
    return list(missing.values())
