from __future__ import annotations

from pathlib import Path

import pytest

from tiny_model import DOCUMENT, save_tiny


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A folder with a tiny model."""
    return str(save_tiny(tmp_path_factory.mktemp("tiny")))


@pytest.fixture
def document(tmp_path: Path) -> str:
    path = tmp_path / "ferry.md"
    path.write_text(DOCUMENT)
    return str(path)
