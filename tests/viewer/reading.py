"""What the tests of the page share: how a view is opened, waited for and read."""

from __future__ import annotations

import math
import re
import urllib.parse
from typing import Any


def same(text: str, value: float) -> None:
    """Three significant digits."""
    unit = 10.0 ** (math.floor(math.log10(value)) - 2) if value > 0 else 0.0
    assert abs(float(text.replace(",", "")) - value) <= 0.501 * unit, f"shown {text}, is {value}"


def open_at(page: Any, address: str, view: str = "") -> None:
    page.goto(f"{address}#{view}" if view else address)
    page.wait_for_selector(".field canvas")
    settled(page)


def settled(page: Any) -> None:
    """Nothing has been asked for during a third of a second, and the address is written."""
    page.wait_for_load_state("networkidle")
    page.wait_for_timeout(350)


def wait(page: Any, script: str) -> None:
    """Until this is true. Playwright's own waiting evaluates text in the page, which the page's policy forbids."""
    for _ in range(300):
        if page.evaluate(script):
            return
        page.wait_for_timeout(100)
    raise AssertionError(f"never true: {script}")


def weighed(page: Any) -> str:
    """The chosen weight's number, once it is there."""
    wait(page, "!['…', undefined].includes(document.querySelector('[data-testid=weight]')?.textContent)")
    return page.text_content("[data-testid=weight]")


def middle(page: Any) -> tuple[float, float]:
    """The pixel that the address's x and y lie at."""
    box = page.locator(".field").bounding_box()
    return box["x"] + 114 + (box["width"] - 115) / 2, box["y"] + 60 + (box["height"] - 61) / 2


def said(page: Any) -> dict[str, str]:
    """What the address says."""
    return dict(urllib.parse.parse_qsl(urllib.parse.urlsplit(page.url).fragment))


def pixels(page: Any) -> str:
    """What the map shows."""
    return page.evaluate("document.querySelector('.field canvas').toDataURL()")


def pointed_at(page: Any) -> tuple[int, int]:
    """Query and key of the single weight under the pointer."""
    row, column = (int(n.replace(",", "")) for n in re.findall(r"([\d,]+)\s+“", page.text_content(".hovered")))
    return row, column
