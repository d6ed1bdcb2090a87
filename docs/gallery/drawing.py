"""How the pictures look: one colour map that people of any colour vision can read, one type, one way to save."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure
from PIL import Image

MAP = "cividis"
"""Colour map of weights and shares: its lightness rises evenly, and it looks alike to most kinds of colour vision."""

BLUE, ORANGE, GREEN, GREY = "#0072B2", "#D55E00", "#009E73", "#595959"
"""Okabe and Ito's colours."""


def figure(width: float, height: float) -> Figure:
    """An empty figure, in inches; by itself, without pyplot's global state."""
    made = Figure(figsize=(width, height), dpi=120, layout="constrained")
    made.get_layout_engine().set(wspace=0.05)  # names of axes do not touch the panel beside
    return made


def title(axes: Any, text: str) -> None:
    """A title above a panel, at its left."""
    axes.set_title(text, loc="left", fontsize=10.5, fontweight="bold")


def heads(figure: Figure, axes: Any, values: Any, label: str, limit: float | None = None) -> None:
    """A panel of one value per head, [layers, heads], from 0 to `limit` or the largest."""
    shown = axes.imshow(values, cmap=MAP, vmin=0, vmax=limit, aspect="auto", interpolation="nearest")
    axes.set_xlabel("head")
    axes.set_ylabel("layer")
    axes.set_xticks(range(values.shape[1]))
    axes.set_yticks(range(0, values.shape[0], 5))
    figure.colorbar(shown, ax=axes, label=label)


def save(figure: Figure, path: Path) -> None:
    """A PNG with a palette of 256 colours, which is all that these pictures need."""
    image = BytesIO()
    figure.savefig(image, format="png")
    Image.open(image).convert("RGB").quantize(256).save(path, optimize=True)
