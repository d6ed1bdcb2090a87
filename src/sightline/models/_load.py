"""From a name to a model and a tokenizer in memory."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ..errors import ModelError
from ._cache import check_installed, first_line
from ._catalogue import DEFAULT, KNOWN
from ._progress import Progress
from ._quiet import quiet
from ._resolve import resolve

__all__ = ["load"]

_MARIAN = "sightline-marian-ssru"
"""`sightline.integrations.marian.MODEL_TYPE`, which is not imported for a model of another type."""


def load(name: str = DEFAULT, *, progress: Progress | None = None) -> tuple[Any, Any]:
    """The language model of this name, in evaluation mode on the CPU, and its tokenizer.

    It is a causal language model, or one with an encoder and a decoder where its configuration says so. Weights keep
    the dtype they are stored in (float32 for the default model). `name` is as in `resolve`; a hub id is downloaded by
    Transformers unless its own cache has it.

    Raises ModelError for an unknown name, for files that cannot be read, and where the packages that loading needs are
    not installed.
    """
    check_installed("transformers")
    place = resolve(name, progress=progress)
    if progress is not None:
        progress("loading", 0, None)
    # Imported late: it costs more than everything else here together.
    from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSeq2SeqLM, AutoTokenizer

    try:
        if _model_type(place) == _MARIAN:
            from ..integrations import marian as marian  # registers itself with Transformers
        with quiet():
            config = AutoConfig.from_pretrained(place)
            tokenizer = AutoTokenizer.from_pretrained(place)
            kind = AutoModelForSeq2SeqLM if config.is_encoder_decoder else AutoModelForCausalLM
            model = kind.from_pretrained(place, dtype="auto")
    except ModelError:
        raise
    except Exception as error:  # what unreadable files raise depends on where in them reading fails
        raise ModelError(
            f"the model {name!r} was asked for; it could not be loaded from {place!r}: {first_line(error)}. "
            + _remedy(name, place)
        ) from error
    return model.eval(), tokenizer


def _model_type(place: str) -> str | None:
    """What the folder's config.json says the model is; None for a hub id."""
    path = Path(place) / "config.json"
    return json.loads(path.read_text()).get("model_type") if path.is_file() else None


def _remedy(name: str, place: str) -> str:
    if name in KNOWN:
        return f"Delete that folder, and it is converted again: {place}"
    if Path(place).is_dir():
        return "Check that the folder holds a language model written by save_pretrained."
    return "Check the spelling of the hub id and the connection, or name a folder on this machine."
