"""Sightline inside models written with other libraries. Each integration is imported when it is first used."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Mapping
from contextlib import contextmanager

from torch import nn

from ..errors import Unsupported
from ..recording import Keep, Record, Recorder
from ..reductions import Reduction

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

    The model, as it is, computes its attention with Sightline inside the block, exactly and in linear memory, and goes
    back to its own implementation afterwards, also after an exception. `layers` and `heads` choose what is recorded and
    `Recorder` says how; what it holds stays readable after the block. keep="qk" keeps queries and keys on disk as well,
    so that any weight can be computed later, and `rec.trace(...)` is all of it as a value that can be saved.

    Raises Unsupported for a model that cannot be recorded, with the reason, before it runs; SpecError for reductions,
    layers or heads that make no sense.
    """
    recorder = Recorder(reductions, layers=layers, heads=heads, keep=keep, folder=folder, on_record=on_record)
    try:
        from .transformers import listening
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != "transformers":
            raise
        raise Unsupported(
            "a model was asked to be recorded; that needs the package transformers, which is not installed. "
            "Install it with: pip install transformers"
        ) from error
    recorder.check(name for name, _ in model.named_modules())
    with listening(model, recorder):
        yield recorder
