"""How a trace shows itself in a notebook: what was recorded, and the map of all heads together."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from .. import _html
from ..reductions.blocks import pooled

if TYPE_CHECKING:
    from .trace import Trace

__all__ = ["shown"]

_SIDE = 64


def shown(trace: Trace) -> str:
    """HTML: the trace's own line, the beginning of its text, and the mean map of its first calls."""
    parts = [_html.text(repr(trace), "font-weight:600")]
    if trace.tokens is not None:
        text = "".join(trace.tokens.strings[0])
        parts.append(_html.text(text[:400] + ("…" if len(text) > 400 else ""), "opacity:.8"))
    found = _mean_map(trace)
    if found is not None:
        shares, rows, cols, heads = found
        parts.append(
            _html.picture(
                shares.tolist(),
                f"The mean map of {heads} heads: {rows} queries down and {cols} keys across for each cell",
            )
        )
    return _html.box(*parts)


def _mean_map(trace: Trace) -> tuple[Tensor, int, int, int] | None:
    """Σ P over blocks / the block's queries, the mean over the heads of the first call of every module of one shape."""
    asked = [(name, said) for name, said in trace.reductions.items() if said.get("type") == "BlockMass"]
    if not asked:
        return None
    name, said = asked[0]
    calls = [calls[0] for calls in trace.values() if name in calls[0]]
    calls = [call for call in calls if call.shape[2:] == calls[0].shape[2:] and call.kind == calls[0].kind]
    if not calls:
        return None
    total = torch.stack([call[name][0].double().mean(0) for call in calls]).mean(0)
    times = -(-max(total.shape) // _SIDE)
    total = pooled(pooled(total, -2, 0, times, torch.sum), -1, 0, times, torch.sum)
    rows, cols = int(said["rows"]) * times, int(said["cols"]) * times
    queries = calls[0].shape[2]
    counts = torch.tensor([min(rows, queries - r * rows) for r in range(total.shape[0])])
    return total / counts[:, None], rows, cols, sum(call.shape[1] for call in calls)
