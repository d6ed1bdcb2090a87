"""The model of a task: loaded by name or given, and how much it can read."""

from __future__ import annotations

from typing import Any

from .. import models
from ..models import Progress

__all__ = ["context", "loaded"]


def loaded(model: str | tuple[Any, Any], progress: Progress | None) -> tuple[str, Any, Any]:
    """A name as in `sightline.models.resolve`, or a pair (model, tokenizer): its name, the model, the tokenizer.

    Raises ModelError.
    """
    if isinstance(model, str):
        return model, *models.load(model, progress=progress)
    network, tokenizer = model
    return str(getattr(network, "name_or_path", "") or type(network).__name__), network, tokenizer


def context(network: Any) -> int | None:
    """The tokens that a model can read at once; None where its configuration does not say."""
    return getattr(network.config.get_text_config(decoder=True), "max_position_embeddings", None)
