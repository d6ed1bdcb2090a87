"""Time and peak memory of attention against its length, on this machine: what the stored matrix costs, and its removal.

    figures = measure(Settings(tokens=(1024, 4096)))
    figures.points, figures.to_dict(), draw(figures)

Four contenders: "eager" stores the matrix, and can say where it looked; "sdpa" is PyTorch's own attention, which
cannot; "sightline" is `attention`; "observing" is `observe` with the entropy, the peak, the eight strongest keys, the
attention received and a block map.
"""

from __future__ import annotations

from .contenders import CONTENDERS
from .figures import Figures, Point
from .measure import measure
from .plot import check_drawing, draw
from .settings import DTYPES, LONGEST, Settings, doubling
from .spread import Spread
from .units import digits, seconds, size

__all__ = [
    "CONTENDERS",
    "DTYPES",
    "LONGEST",
    "Figures",
    "Point",
    "Settings",
    "Spread",
    "check_drawing",
    "digits",
    "doubling",
    "draw",
    "measure",
    "seconds",
    "size",
]
