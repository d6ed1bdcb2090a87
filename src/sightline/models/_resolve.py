"""From a name to what `from_pretrained` takes, and what is known of each name."""

from __future__ import annotations

import shutil
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ..errors import ModelError
from ._cache import cache_dir
from ._catalogue import KNOWN, Known
from ._convert import convert
from ._progress import Progress
from ._sources import absent, digests, fingerprint, folder_of, installed, marian_files, pinned, pulled, sha256, sources

__all__ = ["Listing", "known", "resolve"]


@dataclass(frozen=True)
class Listing:
    """A known model, and how much of it is on this machine.

    `installed` is whether its packages are, `pulled` whether all its files lie in the cache, `folder` where it is ready
    to be loaded, None where it is not converted yet. `download` and `size` are in bytes, see `Known`.
    """

    name: str
    about: str
    tasks: tuple[str, ...]
    licence: str
    packages: tuple[str, ...]
    download: int
    size: int
    installed: bool
    pulled: bool
    folder: str | None

    def to_dict(self) -> dict[str, Any]:
        """As plain data for JSON."""
        return asdict(self)


def known() -> list[Listing]:
    """The models known by name, and how much of each is on this machine. Reads installed files for their content."""
    return [_listing(entry) for entry in KNOWN.values()]


def resolve(name: str, *, progress: Progress | None = None) -> str:
    """What `from_pretrained` takes for this name: the path of a folder, or a hub id "owner/name".

    A known name is converted first if this machine has not done so yet (about 20 s for the default), and so is a folder
    with Marian's own files. A path that exists wins over a hub id of the same spelling. Nothing is downloaded here.

    Raises ModelError for a name that is none of these, and where the files of a known name are not on this machine.
    """
    if name in KNOWN:
        return str(_ready(KNOWN[name], progress))
    path = Path(name).expanduser()
    if path.is_dir():
        return str(path if (path / "config.json").is_file() else _marian(name, path, progress))
    if path.exists():
        raise ModelError(f"the model {name!r} was asked for; that is a file. Name a folder written by save_pretrained.")
    if _looks_like_hub_id(name):
        return name
    raise ModelError(
        f"the model {name!r} was asked for; there is no such folder and no model of that name. "
        f"Known names: {', '.join(KNOWN)}. Name one of these, a folder written by save_pretrained, "
        'or a hub id "owner/name".'
    )


def _ready(entry: Known, progress: Progress | None) -> Path:
    """The folder of a converted model. It is named after the content of the files, so that others convert anew."""
    files = sources(entry)
    there = [file for file in files if file is not None]
    if len(there) < len(files):
        if pinned(entry).is_dir():
            return pinned(entry)
        raise absent(entry, files)
    folder = convert(entry.format, there, entry.dtype, folder_of(entry, digests(entry, there)), progress)
    # What was pulled is in the converted folder now, and as large again.
    shutil.rmtree(pulled(entry, entry.parts[0]).parent, ignore_errors=True)
    return folder


def _marian(name: str, path: Path, progress: Progress | None) -> Path:
    """A folder with Marian's own files, converted. Raises ModelError where it is no such folder."""
    files = marian_files(path)
    if files is None:
        raise ModelError(
            f"the model {name!r} was asked for; that folder holds no config.json, and no model*.bin with a *.spm as "
            "Marian's tools write them. Name a folder written by save_pretrained."
        )
    key = f"{path.resolve().name}-{fingerprint(map(sha256, files), 'float32')}"
    return convert("marian", files, "float32", cache_dir() / key, progress)


def _listing(entry: Known) -> Listing:
    files = sources(entry)
    there = [file for file in files if file is not None]
    try:
        folder = folder_of(entry, digests(entry, there)) if len(there) == len(files) else pinned(entry)
    except ModelError:  # parts of another version are installed
        folder = pinned(entry)
    return Listing(
        name=entry.name,
        about=entry.about,
        tasks=entry.tasks,
        licence=entry.licence,
        packages=entry.requirements,
        download=entry.download,
        size=entry.size,
        installed=all(installed(part) for part in entry.parts),
        pulled=all(pulled(entry, part).is_file() for part in entry.parts),
        folder=str(folder) if folder.is_dir() else None,
    )


def _looks_like_hub_id(name: str) -> bool:
    owner, _, rest = name.partition("/")
    return bool(owner and rest) and not name.startswith((".", "/", "~")) and "/" not in rest and "\\" not in name
