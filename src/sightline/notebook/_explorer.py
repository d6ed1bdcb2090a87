"""The widget: it answers over messages what the viewer's page asks, as the server answers it over HTTP."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

import anywidget
import traitlets

from ..errors import TraceError
from ..recording import Trace
from ..viewer.desk import Desk
from ..viewer.page import framed
from ..viewer.replies import reply

__all__ = ["Explorer"]


class Explorer(anywidget.AnyWidget):
    """A map of any head of some traces; see `explore`.

    A message {"id", "asked"} is answered by {"id", "status", "shape"} and the answer's bytes, as
    `viewer.replies.reply` gives them.
    """

    _esm = (files("sightline.notebook") / "static" / "notebook.js").read_text("utf-8")
    _page = traitlets.Unicode().tag(sync=True)
    view = traitlets.Unicode("", help="What is seen, as the viewer's address says it.").tag(sync=True)
    height = traitlets.Int(640, help="In pixels.").tag(sync=True)

    def __init__(self, traces: Sequence[Trace | str | Path], *, height: int = 640) -> None:
        self._traces = tuple(traces)
        self._desk = Desk(self._traces)
        super().__init__(_page=framed(), height=height)
        self.on_msg(self._asked)

    def _asked(self, widget: Any, content: Any, buffers: Any) -> None:
        found = reply(self._desk, str(content.get("asked")))
        self.send({"id": content.get("id"), "status": found.status, "shape": found.shape}, [found.body])

    def __repr__(self) -> str:
        count = len(self._traces)
        return f"<Explorer of {count} trace{'' if count == 1 else 's'}>"

    def _repr_mimebundle_(self, **options: Any) -> tuple[dict[str, Any], dict[str, Any]] | None:
        """The widget, and for those who show none the pictures of the traces."""
        made = super()._repr_mimebundle_(**options)
        if made is None:
            return None
        data, metadata = made
        return {**data, "text/html": "".join(map(_picture, self._traces))}, metadata


def _picture(source: Trace | str | Path) -> str:
    try:
        return (source if isinstance(source, Trace) else Trace.load(source))._repr_html_()
    except TraceError:
        return ""  # the widget says what is wrong with the file
