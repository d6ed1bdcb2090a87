"""The real models translate, and look at the words that they translate."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from sightline import Rows, models, record

DIRECTIONS = {
    "marian-en-pt": {
        "The red car stopped in front of the old house.": "O carro vermelho parou na frente da antiga casa.",
        "She reads a book every week.": "Ela lê um livro toda semana.",
        "Hello.": "Olá.",
    },
    "marian-pt-en": {
        "O gato dorme no jardim.": "The cat sleeps in the garden.",
        "Onde fica a estação de trem?": "Where is the train station?",
    },
}

HERE = {model.name: model.installed or model.pulled or model.folder is not None for model in models.known()}


@pytest.fixture(scope="module", params=DIRECTIONS)
def loaded(request: pytest.FixtureRequest) -> tuple[str, Any, Any]:
    if not HERE[request.param]:
        pytest.skip(f"the model {request.param} is not on this machine (sightline models pull {request.param})")
    pytest.importorskip("sentencepiece", reason="the package sentencepiece is not installed")
    return request.param, *models.load(request.param)


def test_sentences_are_translated_together_as_they_are_alone(loaded: tuple[str, Any, Any]) -> None:
    name, model, tokenizer = loaded
    sentences = list(DIRECTIONS[name])
    together = model.generate(**tokenizer(sentences, padding=True, return_tensors="pt"))
    assert tokenizer.batch_decode(together, skip_special_tokens=True) == list(DIRECTIONS[name].values())
    for sentence, translation in DIRECTIONS[name].items():
        alone = model.generate(**tokenizer(sentence, return_tensors="pt"))
        assert tokenizer.decode(alone[0], skip_special_tokens=True) == translation


def test_the_last_decoder_layer_looks_at_the_word_it_translates(loaded: tuple[str, Any, Any]) -> None:
    name, model, tokenizer = loaded
    if name != "marian-en-pt":
        pytest.skip("the words below are English")
    source = "The red car stopped in front of the old house."
    inputs = tokenizer(source, return_tensors="pt")
    target = model.generate(**inputs)
    with torch.no_grad(), record(model, {"all": Rows(torch.arange(target.shape[1] - 1))}) as seen:
        model(**inputs, decoder_input_ids=target[:, :-1])
    text, written = tokenizer.spell(target[0, 1:].tolist())
    read = tokenizer.pieces(source)
    (last,) = seen["decoder.layers.1.encoder_attn"]
    peaks = last["all"][0].mean(0).argmax(-1).tolist()
    found = {
        text[piece.start : piece.end]: source[read[peak].start : read[peak].end]
        for piece, peak in zip(written, peaks, strict=True)
        if peak < len(read)
    }
    right = {"carro": "car", "vermelho": "red", "par": "stopped", "frente": "front", "casa": "house"}
    assert {word: found[word] for word in right} == right
