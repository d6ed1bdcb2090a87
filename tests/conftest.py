"""What every test runs under: memory that the library leaves unwritten is NaN, and Hypothesis is repeatable.

And what several folders share: a browser.
"""

from __future__ import annotations

import shutil
import signal
import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, settings

from engines import ENGINES, Engine
from sightline.backends import cpu

settings.register_profile(
    "sightline",
    max_examples=50,
    deadline=None,  # the first call of an operator sets it up
    derandomize=True,  # the same examples on every run and machine
    database=None,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("sightline")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--configurations",
        type=int,
        default=600,
        metavar="N",
        help="random configurations per backend in tests/backends (default 600)",
    )


def pytest_configure(config: pytest.Config) -> None:
    # A shell starts background jobs with Ctrl-C ignored, and programs that tests start would inherit that.
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    config.addinivalue_line("markers", "unpoisoned: leaves torch.empty as it is, for a test that traces through it")


@pytest.fixture(params=ENGINES, ids=str)
def engine(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Engine:
    """Each backend with linear memory, on each instruction set that it has here."""
    monkeypatch.setattr(cpu, "INSTRUCTIONS", request.param.instructions)
    return request.param


@pytest.fixture(autouse=True)
def _poisoned(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Fill what the library allocates with torch.empty and its kin with NaN: reading it before writing it then shows.

    Only calls from sightline's own modules are changed; `@pytest.mark.unpoisoned` changes none.
    """
    if "unpoisoned" not in request.keywords:
        for owner, name in (
            (torch, "empty"),
            (torch, "empty_like"),
            (torch, "empty_strided"),
            (torch.Tensor, "new_empty"),
        ):
            monkeypatch.setattr(owner, name, _poisoning(getattr(owner, name)))


def _poisoning(allocate: Callable[..., Any]) -> Callable[..., Any]:
    def empty(*args: Any, **kwargs: Any) -> Any:
        t = allocate(*args, **kwargs)
        caller = sys._getframe(1).f_globals.get("__name__", "")
        if caller.split(".")[0] == "sightline":
            t.fill_(torch.nan if t.is_floating_point() else -(2**7))
        return t

    return empty


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    """A Chromium without a window, for tests of what is seen; they are skipped, with the reason, where there is none.

    One for the whole run: Playwright has one loop for each process.
    """
    api = pytest.importorskip("playwright.sync_api", reason="Playwright is not installed, which drives the browser")
    names = ("chromium", "chromium-browser", "google-chrome")
    found = next((path for name in names if (path := shutil.which(name))), None)
    if found is None:
        pytest.skip("there is no Chromium on this machine")
    with api.sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=found, args=["--no-sandbox"])
        yield running
        running.close()
