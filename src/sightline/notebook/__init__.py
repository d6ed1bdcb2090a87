"""Attention maps in a notebook: the viewer of `sightline view`, in the output of a cell.

    from sightline.notebook import explore

    explore(Trace.load("run.safetensors"))

Any head at any zoom, down to single weights; numbers come from the kernel as they are looked at. It works where widgets
do (Jupyter, VS Code, Colab, marimo), with the packages of the extra `notebook`; a saved notebook that is looked at
without a kernel shows each trace's picture instead.
"""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import SpecError, Unsupported
from ..recording import Trace

if TYPE_CHECKING:
    from ._explorer import Explorer

__all__ = ["explore"]


def explore(*traces: Trace | str | Path, height: int = 640) -> Explorer:
    """A widget that shows these traces, or the files that hold them; several are shown beside one another.

    Weights can be seen of calls whose queries and keys were kept: `record(…, keep="qk")`, `sightline record --view`.
    `height` is in pixels. The widget's `view` says what is seen, as the viewer's address does, and can be set before it
    is shown: after `w = explore(trace)` and `w.view = "at=0.3.1&query=40"` it begins with head 1 of the fourth module.

    Raises SpecError where no trace is given, Unsupported where the package anywidget is not installed. A file that
    cannot be read is told in the widget.
    """
    if not traces:
        raise SpecError("a map was asked for; no trace was given. Pass one, or the path of its file.")
    if find_spec("anywidget") is None:
        raise Unsupported(
            "a map in the notebook was asked for; it needs the package anywidget, which is not installed. "
            'Install it with: pip install "sightline[notebook]"'
        )
    from ._explorer import Explorer

    return Explorer(traces, height=height)
