"""Promise: every example in a docstring runs, with the public names alone, and shows what it gives."""

from __future__ import annotations

import doctest
import importlib
import pkgutil

import pytest
import torch

import sightline as sl


def examples() -> list[doctest.DocTest]:
    """Every example of every module, each with nothing but sightline's public names in reach."""
    names = {name: getattr(sl, name) for name in sl.__all__}
    found = []
    for info in pkgutil.walk_packages(sl.__path__, "sightline."):
        if not info.name.endswith("__main__"):
            module = importlib.import_module(info.name)
            found += [t for t in doctest.DocTestFinder().find(module, globs=dict(names)) if t.examples]
    found += [t for t in doctest.DocTestFinder().find(sl, globs=dict(names)) if t.examples]
    return sorted({t.name: t for t in found}.values(), key=lambda t: t.name)


@pytest.mark.parametrize("example", examples(), ids=lambda example: example.name)
def test_every_example_shows_what_it_gives(example: doctest.DocTest) -> None:
    torch.manual_seed(0)
    said: list[str] = []
    result = doctest.DocTestRunner().run(example, out=said.append, clear_globs=False)
    assert result.failed == 0, "".join(said)


def test_the_main_calls_have_an_example() -> None:
    assert {"sightline.functional.attention", "sightline.functional.observe", "sightline.matrix.AttentionMatrix"} <= {
        example.name for example in examples()
    }
