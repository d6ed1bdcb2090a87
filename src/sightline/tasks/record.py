"""Record a model while it reads a text: every head of every layer, in linear memory, as a trace."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterable, Mapping
from typing import Any

import torch

from .. import models
from ..errors import InputError, SpecError
from ..integrations import record
from ..models import Progress
from ..recording import Keep, Record, Tokens, Trace
from ..reductions import BlockMass, BlockMax, ColumnMax, Entropy, LogSumExp, Peak, Received, Reduction, TopK
from ._network import context, loaded
from .documents import check_document

__all__ = ["OBSERVED", "observations", "record_text"]

OBSERVED = "entropy,peak,top8,received,map"
"""What is observed where nothing else is asked for."""

_PLAIN: Mapping[str, type[Reduction]] = {
    "entropy": Entropy,
    "lse": LogSumExp,
    "peak": Peak,
    "received": Received,
    "max": ColumnMax,
}


_VIEW_BLOCK, _VIEW_SIDE = 16, 512
"""The viewer computes what lies below blocks of 16 × 16 weights as it is looked at; and 512 × 512 blocks, mass and
maximum, are 2 MB for each head."""


def observations(asked: str, n: int) -> dict[str, Reduction]:
    """Reductions by their short names, separated by commas, for a text of n tokens.

    entropy, peak, received as `Entropy`, `Peak`, `Received`; lse `LogSumExp`; max `ColumnMax`; top8 `TopK(8)`, with any
    number; map a `BlockMass` of 64 × 64 blocks, map128 of 128 × 128; view what `sightline view` shows from afar: a
    `BlockMass` and a `BlockMax` whose blocks have a power of two weights on a side. Raises SpecError for other names.

    >>> from sightline.tasks import observations
    >>> observations("entropy,top8,map", 1000)
    {'entropy': Entropy(), 'top8': TopK(k=8), 'map': BlockMass(rows=16, cols=16)}
    """
    found: dict[str, Reduction] = {}
    for name in (part.strip() for part in asked.split(",")):
        numbered = re.fullmatch(r"(top|map)([1-9]\d{0,5})?", name)
        if name in _PLAIN:
            found[name] = _PLAIN[name]()
        elif numbered is not None and numbered[1] == "top":
            found[name] = TopK(int(numbered[2] or 8))
        elif numbered is not None:
            side = -(-n // int(numbered[2] or 64))
            found[name] = BlockMass(side, side)
        elif name == "view":
            side = max(_VIEW_BLOCK, 1 << (-(-n // _VIEW_SIDE) - 1).bit_length())
            found |= {"view-mass": BlockMass(side, side), "view-max": BlockMax(side, side)}
        else:
            raise SpecError(
                f"{name!r} was asked to be observed; known are {', '.join(_PLAIN)}, view, top8 and map (with any "
                f"number). Write them with commas between: {OBSERVED}"
            )
    return found


def record_text(
    text: str,
    *,
    model: str | tuple[Any, Any] = models.DEFAULT,
    observe: str = OBSERVED,
    keep: Keep = "reductions",
    layers: Iterable[int | str] | None = None,
    heads: Iterable[int] | None = None,
    new_tokens: int = 0,
    progress: Progress | None = None,
) -> Trace:
    """Have a model read a text, and continue it by up to `new_tokens` tokens, greedily; record its attention.

    `model` is a name as in `sightline.models.resolve`, or a loaded pair (model, tokenizer); `observe` as in
    `observations`; `keep`, `layers` and `heads` as in `sightline.record`. The text is read as it is, without a chat
    template. `progress` is told of the phases "converting", "loading" and "recording", this one counted in attention
    calls.

    The trace's tokens are those of the text and of what was written. Of an encoder–decoder model those of the text are
    its `source`, and it needs new_tokens ≥ 1.

    Memory: that of the model reading, and the results. Raises InputError for an empty text, or one longer than the
    model's context; SpecError for what is no observation, layer or head; ModelError and Unsupported for a model that
    cannot be used.
    """
    check_document(text, "the text")
    observations(observe, 1)
    if new_tokens < 0:
        raise SpecError(f"new_tokens is {new_tokens}; it counts tokens. Pass 0 or more.")
    name, network, tokenizer = loaded(model, progress)
    with models.quiet():
        encoded = tokenizer(text, return_tensors="pt")
    ids = encoded["input_ids"].to(network.device)
    n = ids.shape[1]
    two_stacks = bool(getattr(network.config, "is_encoder_decoder", False))
    if two_stacks and not new_tokens:
        raise SpecError(
            f"{name} reads a text in order to write another; new_tokens is 0, so its decoder would not run. "
            "Pass 1 or more."
        )
    limit = context(network)
    if limit is not None and n + (0 if two_stacks else new_tokens) > limit:
        raise InputError(
            f"a text was to be recorded; it has {n:,} tokens, {new_tokens:,} more may be written, and the context of "
            f"{name} is {limit:,} tokens. Give a shorter text, or a model with a longer context."
        )
    calls = 0

    def heard(_: Record) -> None:
        nonlocal calls
        calls += 1
        if progress is not None:
            progress("recording", calls, None if new_tokens else expected)

    # How many calls a generation makes is not known before it ends; one reading makes one for each layer.
    expected = None if layers is not None else getattr(network.config.get_text_config(), "num_hidden_layers", None)
    if progress is not None:
        progress("recording", 0, None if new_tokens else expected)
    asked = observations(observe, n)
    written = ids
    with (
        torch.inference_mode(),
        models.quiet(),
        record(network, asked, layers=layers, heads=heads, keep=keep, on_record=heard) as rec,
    ):
        if new_tokens:
            mask = encoded["attention_mask"].to(network.device)
            written = network.generate(ids, attention_mask=mask, max_new_tokens=new_tokens, do_sample=False)
        else:
            # Nothing is to be written: no logits but the last, and no cache.
            few = {"logits_to_keep": 1} if "logits_to_keep" in inspect.signature(network.forward).parameters else {}
            network(ids, use_cache=False, **few)
    with models.quiet():
        read = Tokens.of(tokenizer, ids, text)
        if two_stacks:
            return rec.trace(Tokens.of(tokenizer, written), read, model=name)
        return rec.trace(Tokens.of(tokenizer, written) if new_tokens else read, model=name)
