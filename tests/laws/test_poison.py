"""What the tests run under: memory that the library leaves unwritten is not a number."""

from __future__ import annotations

import pytest
import torch

from sightline.backends._strips import Workspace


def test_buffers_that_the_library_allocates_hold_nan_until_they_are_written() -> None:
    taken = Workspace(torch.float32, torch.device("cpu")).take("s", 3, 4)
    assert taken.isnan().all()


def test_only_the_librarys_own_allocations_are_poisoned() -> None:
    torch.zeros(1000).fill_(1.0)
    assert not torch.empty(1000).isnan().all()


@pytest.mark.unpoisoned
def test_a_test_may_ask_for_plain_memory() -> None:
    assert torch.empty.__module__ != "conftest"
    assert type(torch.empty).__name__ == "builtin_function_or_method"
