"""Sightline inside models written with other libraries. Each integration is imported when it is first used."""

from __future__ import annotations

import sys
from collections.abc import Callable, Generator, Iterable, Mapping
from contextlib import ExitStack, contextmanager
from types import ModuleType

from torch import nn

from ..errors import Unsupported
from ..recording import Keep, Record, Recorder
from ..reductions import Reduction
from ._sessions import session

__all__ = ["record"]


@contextmanager
def record(
    model: nn.Module,
    reductions: Mapping[str, Reduction],
    *,
    layers: Iterable[int | str] | None = None,
    heads: Iterable[int] | None = None,
    keep: Keep = "reductions",
    folder: str | None = None,
    on_record: Callable[[Record], None] | None = None,
) -> Generator[Recorder]:
    """Record reductions of every attention call that a model makes inside the `with` block.

        with record(model, {"entropy": Entropy(), "top": TopK(8)}) as rec:
            model.generate(**inputs)
        rec["model.layers.0.self_attn"][0]["entropy"]        # [b, h, n]: layer 0, the prefill
        rec["model.layers.0.self_attn"][0].kind              # "decoder"; or "encoder", or "cross"

    The model is one of Transformers, or holds `nn.MultiheadAttention`, PyTorch's (as nn.Transformer and its layers do)
    or Sightline's, or both. As it is, it computes its attention with Sightline inside the block, exactly and in linear
    memory, and goes back to its own implementation afterwards, also after an exception. `layers` and `heads` choose
    what is recorded and `Recorder` says how; what it holds stays readable after the block. keep="qk" keeps queries and
    keys on disk as well, so that any weight can be computed later, and `rec.trace(...)` is all of it as a value that
    can be saved.

    Raises Unsupported for a model that cannot be recorded, with the reason, before it runs; SpecError for reductions,
    layers or heads that make no sense.
    """
    recorder = Recorder(reductions, layers=layers, heads=heads, keep=keep, folder=folder, on_record=on_record)
    recorder.check(name for name, _ in model.named_modules())
    multihead = any(isinstance(part, nn.MultiheadAttention) for part in model.modules())
    with ExitStack() as stack:
        if not multihead or _of_transformers(model):
            stack.enter_context(_transformers().hearing(model))
        if multihead:
            from .multihead import attached

            stack.enter_context(attached(model))
        stack.enter_context(session(model, recorder))
        yield recorder


def _of_transformers(model: nn.Module) -> bool:
    """Whether a model of Transformers is in it. Where none was ever made, the library need not be imported to know."""
    models = sys.modules.get("transformers.modeling_utils")
    return models is not None and any(isinstance(part, models.PreTrainedModel) for part in model.modules())


def _transformers() -> ModuleType:
    """The integration of Transformers. Raises Unsupported where that is not installed."""
    try:
        from . import transformers
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != "transformers":
            raise
        raise Unsupported(
            "a model was asked to be recorded that holds no nn.MultiheadAttention; others need the package "
            "transformers, which is not installed. Install it with: pip install transformers"
        ) from error
    return transformers
