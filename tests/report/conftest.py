"""Reports, opened in the browser."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from sightline.report import Report

Open = Callable[..., Any]


@pytest.fixture
def show(browser: Any, tmp_path: Path) -> Iterator[Open]:
    """Open a report's page. What it asked of a network, and what went wrong in it, is on the page's `heard`."""
    contexts: list[Any] = []

    def opened(report: Report, width: int = 1280, height: int = 720, scheme: str = "light") -> Any:
        context = browser.new_context(
            viewport={"width": width, "height": height}, color_scheme=scheme, accept_downloads=True,
            reduced_motion="reduce",
        )  # fmt: skip
        contexts.append(context)
        page = context.new_page()
        page.heard = []
        page.on("request", lambda request: page.heard.append(request.url))
        page.on("pageerror", lambda error: page.heard.append(str(error)))
        page.on("console", lambda message: page.heard.append(message.text))
        report.save(tmp_path / "report.html")
        page.goto(f"file://{tmp_path}/report.html")
        page.wait_for_selector("main", timeout=60_000)
        return page

    yield opened
    for context in contexts:
        context.close()
