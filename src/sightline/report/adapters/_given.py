"""The texts that results were made from, as they are given to `report`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from ...errors import InputError
from ..model import Fact, Reference

__all__ = ["Documents", "costs", "named", "reference"]

Documents = str | Mapping[str, str]
"""A document, or several by their names."""


def named(documents: Documents | None, what: str) -> dict[str, str]:
    """Documents by name, "" for one without. Raises InputError where there is none."""
    if documents is None or not documents:
        raise InputError(
            f"a report of {what} was asked for; it needs the text {what} came from. Pass it: report(…, text)"
        )
    return {"": documents} if isinstance(documents, str) else dict(documents)


def reference(cited: Any, texts: Mapping[str, str], names: Iterable[str]) -> Reference:
    """A citation as a reference: its place, and those of `names` that it has.

    Raises InputError where the documents do not hold it.
    """
    source = getattr(cited, "source", None) or ""
    known = list(texts)
    # A result of one document does not always name it.
    number = known.index(source) if source in texts else 0 if not source or len(known) == 1 else None
    if number is None or texts[known[number]][cited.start : cited.end] != cited.text:
        raise InputError(
            f"a report was asked for; it cites {cited.text[:40]!r}, which does not stand at {cited.start} of "
            f"{source or 'the document'!r} as given. Pass the documents that the result was made from, by name."
        )
    return Reference(number, cited.start, cited.end, {name: float(getattr(cited, name)) for name in names})


def costs(result: Any) -> tuple[Fact, ...]:
    """What every result says of itself."""
    return (
        Fact("model", result.model),
        Fact("time", float(result.seconds), "s"),
        Fact("peak memory", float(result.peak_bytes), "bytes"),
    )
