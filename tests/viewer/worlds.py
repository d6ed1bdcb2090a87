"""Traces for the tests of this folder, made without a model: queries and keys with a sink, a near band and echoes."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

from sightline import AttentionMatrix, Causal, Entropy, LogSumExp, Peak, Received, Reduction, observe
from sightline.masks import Mask
from sightline.recording import Call, Kind, Recorder, Tokens, Trace
from sightline.reductions import BlockMass, BlockMax

TEXT = (
    "the harbour keeper wrote that a low cloud came over the point before noon and the gulls went inland so nobody "
    "put to sea until evening when wind fell light again & <script>document.title='broken'</script> stayed"
)
WORDS = TEXT.split(" ")


def world(n: int, m: int | None = None, heads: int = 2, d: int = 64, seed: int = 0) -> tuple[Tensor, Tensor]:
    """q [1, heads, n, d] and k [1, heads, m, d]: a sink at key 0, positions that turn slowly, and words that recur."""
    m = n if m is None else m
    g = torch.Generator().manual_seed(seed)
    words = torch.randn(len(WORDS), d, generator=g)
    at = torch.arange(max(n, m))
    turn = at[:, None] / (4 ** torch.linspace(0, 6, d // 4))
    place = torch.cat([turn.cos(), turn.sin()], 1)
    q, k = torch.zeros(1, heads, n, d), torch.zeros(1, heads, m, d)
    for head in range(heads):
        share = head / max(1, heads - 1)
        q[0, head] = 1.6 * share * words[(at[:n] + 1) % len(WORDS)] + 0.4 * torch.randn(n, d, generator=g)
        k[0, head] = 1.2 * words[at[:m] % len(WORDS)] + 0.2 * torch.randn(m, d, generator=g)
        q[0, head, :, : d // 2] += 2.5 * (1.2 - share) * place[:n]
        k[0, head, :, : d // 2] += 2.0 * place[:m]
        q[0, head, :, -1] = 4.0
        k[0, head, :, -1] = 0.0
        k[0, head, 0, -1] = 24.0
    return q, k


def words(t: int) -> Tokens:
    """As many tokens, with their text; some of them look like markup."""
    strings = tuple((" " if i else "") + WORDS[i % len(WORDS)] for i in range(t))
    ends = torch.tensor([len(s) for s in strings]).cumsum(0)
    starts = torch.cat([torch.zeros(1, dtype=torch.int64), ends[:-1]])
    ids = (torch.arange(t) % len(WORDS))[None]
    return Tokens(ids, (strings,), ("".join(strings),), torch.stack([starts, ends], -1)[None])


def recorded(
    path: Path,
    n: int,
    m: int | None = None,
    *,
    layers: int = 2,
    heads: int = 2,
    d: int = 64,
    mask: Mask | None = None,
    kind: Kind = "decoder",
    maps: int | None = None,
    tracks: bool = True,
    keep: str = "qk",
) -> Path:
    """A trace of `layers` modules, saved; `maps` is the block side of what is pooled while recording."""
    asked: dict[str, Reduction] = {}
    if tracks:
        asked |= {"entropy": Entropy(), "peak": Peak(), "received": Received()}
    if maps is not None:
        asked |= {"view-mass": BlockMass(maps, maps), "view-max": BlockMax(maps, maps)}
    rec = Recorder(asked, keep="qk" if keep == "qk" else "reductions")
    for layer in range(layers):
        q, k = world(n, m, heads, d, seed=layer)
        cross = kind == "cross"
        P = AttentionMatrix(q, k, mask=None if cross else Causal() if mask is None else mask)
        name = f"model.layers.{layer}.{'encoder_attn' if cross else 'self_attn'}"
        call = Call(name, nn.Identity(), P, k, None if cross else 0, 0, kind)
        wanted = {**asked, **rec.reductions(call), "lse": LogSumExp()}
        options = {"mask": None if cross else Causal() if mask is None else mask}
        rec.received(call, observe(q, k, k, wanted, **options))
    source = words(m or n) if kind == "cross" else None
    trace = rec.trace(words(n), source, model="a synthetic model")
    trace.save(path)
    return path


def loaded(path: Path) -> Trace:
    return Trace.load(path)
