"""--html: a result as a page for a browser."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from ..errors import InputError
from ._output import check_target

if TYPE_CHECKING:
    from ..tasks import Answer, Generation, Summary, Translation

__all__ = ["check", "save"]


def check(html: str | None, output: str | None) -> None:
    """Raise InputError where the page could not be written."""
    check_target(html)
    if html is not None and html == output:
        raise InputError(f"the page and the result were both to be written to {html!r}. Name two files.")


def save(
    html: str | None,
    result: Answer | Generation | Summary | Translation,
    documents: str | Mapping[str, str],
    title: str = "",
) -> None:
    """Write the page, if one was asked for. Raises InputError where the file cannot be written."""
    if html is not None:
        from ..report import report

        report(result, documents, title=title).save(html)
