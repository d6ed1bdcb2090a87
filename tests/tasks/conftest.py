from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from tiny_model import save_tiny, tiny_model, tiny_tokenizer


@pytest.fixture(scope="session")
def tokenizer() -> Any:
    return tiny_tokenizer()


@pytest.fixture
def pair(tokenizer: Any) -> tuple[Any, Any]:
    """A loaded model and its tokenizer."""
    return tiny_model(len(tokenizer)), tokenizer


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same model, saved."""
    return save_tiny(tmp_path_factory.mktemp("tiny"))


@pytest.fixture
def talkative(pair: tuple[Any, Any]) -> tuple[Any, Any]:
    """The tiny model, which never ends its text before it must."""
    model, tokenizer = pair
    with torch.no_grad():
        model.lm_head.weight[tokenizer.eos_token_id] = 0
    return model, tokenizer
