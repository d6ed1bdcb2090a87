"""Make the pictures of docs/how-attention-works.md: one function for each.

python docs/how/make.py                    # needs pip install "sightline[plot]"
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import torch
from matplotlib.figure import Figure

from sightline import (
    Alibi,
    AttentionMatrix,
    BlockMass,
    Causal,
    DenseMask,
    Entropy,
    Packed,
    Prefix,
    Received,
    Window,
    attention,
    observe,
    relevance,
)

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent / "gallery"))

import drawing  # noqa: E402


def definition() -> Figure:
    torch.manual_seed(0)
    q, k, v = torch.randn(3, 1, 1, 12, 8)
    s = (q @ k.mT / 8**0.5)[0, 0]
    weights = s.softmax(-1)
    figure = drawing.figure(9.4, 3.1)
    panels = figure.subplots(1, 4, width_ratios=(1.2, 1.2, 0.85, 0.85))
    limit = float(s.abs().max())
    shown = panels[0].imshow(s.numpy(), cmap="PuOr", vmin=-limit, vmax=limit, aspect="auto")
    figure.colorbar(shown, ax=panels[0])
    shown = panels[1].imshow(weights.numpy(), cmap=drawing.MAP, vmin=0, aspect="auto")
    figure.colorbar(shown, ax=panels[1])
    reach = float(v.abs().max())
    panels[2].imshow(v[0, 0].numpy(), cmap="PuOr", vmin=-reach, vmax=reach, aspect="auto")
    panels[3].imshow((weights @ v[0, 0]).numpy(), cmap="PuOr", vmin=-reach, vmax=reach, aspect="auto")
    names = ("logits s", "weights P", "values v", "output P v")
    for panel, name in zip(panels, names, strict=True):
        drawing.title(panel, name)
        panel.tick_params(labelsize=7)
    panels[0].set_ylabel("query")
    for panel in panels[:2]:
        panel.set_xlabel("key")
    for panel in panels[2:]:
        panel.set_xlabel("width")
    return figure


def online() -> Figure:
    torch.manual_seed(0)
    n = 40
    logits, values = torch.randn(n) * 1.6, torch.randn(n).cumsum(0) / 3
    top, estimate, mass, moment = [], [], 0.0, 0.0
    for j in range(n):
        new = max([*top[-1:], float(logits[j])])
        rescale = torch.tensor(top[-1] - new).exp() if top else 0.0
        weight = (logits[j] - new).exp()
        mass, moment = rescale * mass + weight, rescale * moment + weight * values[j]
        top.append(new)
        estimate.append(float(moment / mass))
    exact = float(logits.softmax(0) @ values)
    figure = drawing.figure(9.0, 3.0)
    left, right = figure.subplots(1, 2)
    left.vlines(range(n), 0, logits.numpy(), color=drawing.GREY, linewidth=1.2)
    left.plot(range(n), logits.numpy(), "o", color=drawing.BLUE, markersize=3.5, label="logit of this key")
    left.step(range(n), top, where="post", color=drawing.ORANGE, label="m, the largest so far")
    right.plot(range(n), estimate, color=drawing.BLUE, marker="o", markersize=3, label="a / l after this key")
    right.axhline(exact, color=drawing.ORANGE, linestyle="--", label="exact output")
    for panel, name in ((left, "One row's logits"), (right, "The output, as far as it is known")):
        drawing.title(panel, name)
        panel.set_xlabel("keys read")
        panel.legend(fontsize=8)
        panel.grid(alpha=0.2)
    return figure


def masks() -> Figure:
    n = 16
    q = torch.zeros(1, 1, n, 4)
    shown = {
        "Causal()": Causal(),
        "Causal() & Window(left=3)": Causal() & Window(left=3),
        "Prefix(5)": Prefix(5),
        "Causal() & Packed([0, 6, 16])": Causal() & Packed(torch.tensor([0, 6, 16])),
    }
    figure = drawing.figure(9.4, 2.9)
    for panel, (name, mask) in zip(figure.subplots(1, 4, sharey=True), shown.items(), strict=True):
        admitted = AttentionMatrix(q, q, mask=mask).dense()[0, 0] > 0
        panel.imshow(admitted.numpy(), cmap=drawing.MAP, vmin=0, vmax=1)
        panel.set_title(name, loc="left", fontsize=8.5, fontweight="bold")
        panel.set_xlabel("key")
        panel.set_xticks(range(0, n, 5))
        panel.set_yticks(range(0, n, 5))
    figure.axes[0].set_ylabel("query")
    return figure


def heads() -> Figure:
    figure = drawing.figure(9.0, 2.2)
    named = (("multi-head: 8 of 8", 8), ("grouped queries: 2 of 8", 2), ("multi-query: 1 of 8", 1))
    for panel, (name, keys) in zip(figure.subplots(1, 3), named, strict=True):
        width = 8 / keys
        for i in range(8):
            at = int(i // width)
            panel.plot([i, (at + 0.5) * width - 0.5], [1, 0], color=drawing.GREY, linewidth=1, zorder=0)
        panel.scatter(range(8), [1] * 8, s=90, color=drawing.BLUE)
        places = [(j + 0.5) * width - 0.5 for j in range(keys)]
        panel.scatter(places, [0] * keys, s=90, marker="s", color=drawing.ORANGE)
        panel.set_yticks([0, 1], ["keys", "queries"] if keys == 8 else ["", ""])
        panel.set_xticks([])
        panel.set_xlim(-0.7, 7.7)
        panel.set_ylim(-0.35, 1.35)
        panel.spines[:].set_visible(False)
        panel.tick_params(length=0)
        drawing.title(panel, name)
    return figure


def positions() -> Figure:
    torch.manual_seed(2)
    n = 32
    q, k = torch.randn(1, 1, n, 8) * 1.6, torch.randn(1, 1, n, 8)
    rows: dict[str, Any] = {
        "as it is": {},
        "Alibi(slope 0.2)": {"bias": Alibi(torch.tensor([0.2]))},
        "softcap=1": {"softcap": 1.0},
        "sinks=3": {"sinks": torch.tensor([3.0])},
    }
    figure = drawing.figure(9.4, 2.7)
    for panel, (name, given) in zip(figure.subplots(1, 4, sharey=True), rows.items(), strict=True):
        row = AttentionMatrix(q, k, mask=Causal(), **given)[0, 0, n - 1]
        panel.bar(range(n), row.numpy(), width=1, color=drawing.BLUE)
        drawing.title(panel, name)
        panel.set_xlabel("key")
        panel.annotate(f"sum {row.sum():.2f}", (0.04, 0.9), xycoords="axes fraction", fontsize=8.5, color=drawing.GREY)
    figure.axes[0].set_ylabel("weight, last query")
    return figure


def reductions() -> Figure:
    torch.manual_seed(0)
    n, d = 256, 16
    # Walks through the space of keys, so that neighbours look alike and the map has shapes to see.
    base = torch.randn(n, d).cumsum(0)
    base = base / base.std(0) * 1.1
    q, k = base[None, None], (base + torch.randn(n, d) * 0.4)[None, None]
    asked = {"entropy": Entropy(), "received": Received(), "map": BlockMass(16, 16)}
    seen = observe(q, k, k, asked, mask=Causal())
    weights = AttentionMatrix(q, k, mask=Causal()).dense()[0, 0]
    figure = drawing.figure(9.2, 5.0)
    grid = figure.add_gridspec(2, 3, width_ratios=(3, 0.9, 2.6), height_ratios=(3, 0.9))
    whole = figure.add_subplot(grid[0, 0])
    whole.imshow(weights.sqrt().numpy(), cmap=drawing.MAP, aspect="auto", interpolation="antialiased")
    whole.set_ylabel("query")
    drawing.title(whole, "P, 256 × 256")
    side = figure.add_subplot(grid[0, 1], sharey=whole)
    side.plot(seen["entropy"][0, 0].numpy(), range(n), color=drawing.ORANGE, linewidth=1)
    side.set_xlabel("nats")
    side.tick_params(labelleft=False)
    drawing.title(side, "entropy")
    below = figure.add_subplot(grid[1, 0], sharex=whole)
    below.fill_between(range(n), seen["received"][0, 0].numpy(), color=drawing.BLUE, linewidth=0)
    below.set_xlabel("key")
    below.set_ylabel("received")
    far = figure.add_subplot(grid[0, 2])
    far.imshow(seen["map"][0, 0].sqrt().numpy(), cmap=drawing.MAP, aspect="auto", interpolation="nearest")
    far.set_xticks(range(0, 16, 5))
    far.set_yticks(range(0, 16, 5))
    far.set_xlabel("block of 16 keys")
    far.set_ylabel("block of 16 queries")
    drawing.title(far, "block map, 16 × 16")
    return figure


def through_layers() -> Figure:
    torch.manual_seed(0)
    n, layers = 24, 6
    stack = [AttentionMatrix(*torch.randn(2, 1, 2, n, 8) * 1.5, mask=Causal()) for _ in range(layers)]
    w = torch.zeros(n)
    w[-1] = 1
    rows = [w]
    for matrix in reversed(stack):
        w = (matrix.dense()[0].mean(0).mT @ w + w) / 2
        rows.append(w)
    figure = drawing.figure(8.4, 2.8)
    panel = figure.subplots()
    shown = panel.imshow(
        torch.stack(rows).sqrt().numpy(), cmap=drawing.MAP, aspect="auto", interpolation="nearest", vmin=0, vmax=1
    )
    panel.set_yticks(range(layers + 1), ["after layer 5", *[f"before layer {i}" for i in reversed(range(layers))]])
    panel.set_xlabel("position")
    drawing.title(panel, "What the last position draws on, layer by layer backwards")
    bar = figure.colorbar(shown, ax=panel, label="w (colour by its root)")
    marks = [0, 0.05, 0.2, 0.5, 1]
    bar.set_ticks([mark**0.5 for mark in marks], labels=[f"{mark:g}" for mark in marks])
    return figure


def measured() -> Figure:
    """The example of the page's last two sections, to the number."""
    torch.manual_seed(4)
    n, classes = 10, 5
    q, k, v = torch.randn(1, 1, 1, 8), torch.randn(1, 1, n, 8), torch.randn(1, 1, n, 8)
    readout = torch.randn(8, classes)

    def log_p(out: torch.Tensor) -> torch.Tensor:
        return (out[0, 0, 0] @ readout).log_softmax(-1)[2]

    out = attention(q, k, v).requires_grad_()
    (grad,) = torch.autograd.grad(log_p(out), out)
    matrix = AttentionMatrix(q, k)
    hidden = [DenseMask(torch.arange(n) != j) for j in range(n)]
    bars = {
        "weight": matrix.dense()[0, 0, 0],
        "relevance": relevance(matrix, v, grad, {"received": Received()})["received"][0, 0],
        "measured drop, nats": torch.stack([log_p(out) - log_p(attention(q, k, v, mask=m)) for m in hidden]).detach(),
    }
    figure = drawing.figure(9.2, 2.7)
    for panel, (name, values) in zip(figure.subplots(1, 3), bars.items(), strict=True):
        best = int(values.argmax())
        colors = [drawing.ORANGE if j == best else drawing.BLUE for j in range(n)]
        panel.bar(range(n), values.numpy(), color=colors)
        panel.axhline(0, color=drawing.GREY, linewidth=0.7)
        panel.set_xticks(range(n))
        panel.set_xlabel("key")
        drawing.title(panel, name)
    return figure


PICTURES = {
    "definition": definition,
    "online": online,
    "masks": masks,
    "heads": heads,
    "positions": positions,
    "reductions": reductions,
    "rollout": through_layers,
    "measured": measured,
}


def main() -> None:
    for name, draw in PICTURES.items():
        drawing.save(draw(), HERE / f"{name}.png")


if __name__ == "__main__":
    main()
