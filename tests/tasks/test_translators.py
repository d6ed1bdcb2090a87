"""Whatever a model is, it is told the languages its own way, and its words are aligned by the definition."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import (
    BartConfig,
    BartForConditionalGeneration,
    M2M100Config,
    M2M100ForConditionalGeneration,
    MBart50Tokenizer,
    MBartConfig,
    MBartForConditionalGeneration,
    MBartTokenizer,
    NllbTokenizer,
    PreTrainedModel,
    T5Config,
    T5ForConditionalGeneration,
    T5Tokenizer,
)

import marian_files
from sightline import models
from sightline.errors import InputError, Unsupported
from sightline.evidence import key_relevance, source_relevance
from sightline.integrations.marian import MarianSsruConfig, MarianSsruForTranslation, greedy
from sightline.reader import Reader
from sightline.sentences import Span, words
from sightline.tasks.translation import translate
from sightline.tasks.translation._alignment import attention_weights
from sightline.tasks.translation._chosen import translator
from sightline.tasks.translation._encoder_decoder import EncoderDecoder, tokens_of
from sightline.tasks.translation._instructed import Instructed
from sightline.tasks.translation._languages import chosen
from sightline.tasks.translation._translator import Part

LETTERS = "abcdefghijklmnopqrstuvwxyzTS.:"
TEXTS = ["the red car.", "she saw it", "a"]


def pieces() -> list[tuple[str, float]]:
    """A piece for each letter, after a blank and inside a word."""
    return [("▁", -3.0), *((letter, -4.0) for letter in LETTERS), *(("▁" + letter, -3.5) for letter in LETTERS)]


def unigram(tokenizer: Any, codes: list[str]) -> Any:
    special = [("<s>", 0.0), ("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0)]
    return tokenizer(vocab=[*special, *pieces(), *((code, 0.0) for code in codes), ("<mask>", 0.0)])


def mbart50() -> Any:
    from transformers.models.mbart50.tokenization_mbart50 import FAIRSEQ_LANGUAGE_CODES

    return unigram(MBart50Tokenizer, FAIRSEQ_LANGUAGE_CODES)


def mbart() -> Any:
    from transformers.models.mbart.tokenization_mbart import FAIRSEQ_LANGUAGE_CODES

    return unigram(MBartTokenizer, FAIRSEQ_LANGUAGE_CODES)


def nllb() -> Any:
    vocabulary = {"<s>": 0, "<pad>": 1, "</s>": 2, "<unk>": 3}
    return NllbTokenizer(vocab=vocabulary | {piece: 4 + i for i, (piece, _) in enumerate(pieces())}, merges=[])


def t5() -> Any:
    special = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0)]
    return T5Tokenizer(vocab=[*special, *pieces()], extra_ids=0)


def sizes(tokenizer: Any, **more: Any) -> dict[str, Any]:
    return {
        "vocab_size": len(tokenizer), "d_model": 32, "encoder_layers": 2, "decoder_layers": 2,
        "encoder_attention_heads": 4, "decoder_attention_heads": 4, "encoder_ffn_dim": 48, "decoder_ffn_dim": 48,
        "init_std": 0.3, "max_position_embeddings": 96, "bos_token_id": 0, "pad_token_id": 1, "eos_token_id": 2,
        "decoder_start_token_id": 2, "forced_eos_token_id": None, **more,
    }  # fmt: skip


def made(kind: str) -> tuple[Any, Any]:
    """A tiny random model of a kind, and its tokenizer."""
    torch.manual_seed(5)
    model: PreTrainedModel
    if kind == "nllb":
        tokenizer = nllb()
        model = M2M100ForConditionalGeneration(M2M100Config(**sizes(tokenizer)))
    elif kind == "mbart50":
        tokenizer = mbart50()
        model = MBartForConditionalGeneration(MBartConfig(**sizes(tokenizer)))
    elif kind == "mbart":
        tokenizer = mbart()
        model = MBartForConditionalGeneration(MBartConfig(**sizes(tokenizer)))
    elif kind == "bart":
        tokenizer = t5()
        model = BartForConditionalGeneration(
            BartConfig(**sizes(tokenizer, pad_token_id=0, eos_token_id=1, decoder_start_token_id=1))
        )
    else:
        tokenizer = t5()
        model = T5ForConditionalGeneration(
            T5Config(  # pyright: ignore[reportCallIssue]
                vocab_size=len(tokenizer), d_model=32, d_kv=8, d_ff=48, num_layers=2, num_heads=4,
                initializer_factor=0.6, decoder_start_token_id=0,
                task_specific_params={"translation_en_to_de": {"prefix": "translate to german: "}},
            )
        )  # fmt: skip
        with torch.no_grad():  # at its own, it ends at once
            for name, parameter in model.named_parameters():
                if parameter.ndim == 2 and "bias" not in name:
                    parameter.normal_(0, 0.3)
    return model.eval(), tokenizer


KINDS = {"nllb": "pt", "mbart50": "pt", "mbart": "ro", "bart": "pt", "t5": "de"}


def of(pair: tuple[Any, Any], target: str, *, align: bool = True, beams: int = 1) -> Any:
    return translator(*pair, "tiny", source="en", target=target, align=align, beams=beams)


def batch_of(made_by: Any) -> list[Part]:
    return [part for text in TEXTS for part in made_by.parts(text, Span(0, len(text)))]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("beams", [1, 2])
def test_alignment_by_relevance_is_source_relevance_of_each_word(
    kind: str, beams: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    pair = made(kind)
    network = pair[0]
    outputs: list[Any] = []
    generate = network.generate
    monkeypatch.setattr(network, "generate", lambda **given: outputs.append(generate(**given)) or outputs[-1])
    by = of(pair, KINDS[kind], beams=beams)
    batch = batch_of(by)
    found = by.write(batch)
    compared = 0
    for row, part, result in zip(outputs[0].tolist(), batch, found, strict=True):
        assert result.weights is not None
        produced = row[1 : 1 + 2 * len(part.ids) + 50]
        network.generation_config.decoder_start_token_id = row[0]
        text, places = by._tokens.spelled(produced)
        assert text == result.text
        framed = [*by._told.head, *part.ids, *by._told.tail]
        for word, weights in list(zip(words(text, signs=True), result.weights, strict=True))[:3]:
            whole, _ = source_relevance(network, framed, produced, of=tokens_of(word, places))
            wanted = whole[len(by._told.head) :][: len(part.ids)] / whole.sum()
            torch.testing.assert_close(weights, wanted, atol=2e-3, rtol=1e-2)
            compared += float(wanted.max() - wanted.min()) > 0.02
    assert compared  # of flat weights any permutation would pass


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_written_does_not_depend_on_the_alignment_or_the_batch(kind: str) -> None:
    pair = made(kind)
    aligned, plain = of(pair, KINDS[kind]), of(pair, KINDS[kind], align=False)
    batch = batch_of(plain)
    texts = [result.text for result in plain.write(batch)]
    assert [result.text for result in aligned.write(batch)] == texts
    assert all(result.weights is None for result in plain.write(batch))
    result = translate("\n\n".join(TEXTS), model=pair, target=KINDS[kind])
    assert any(word.sources for sentence in result.sentences for word in sentence.words)


def test_languages_are_told_as_each_model_is_told() -> None:
    for kind, target in KINDS.items():
        model, tokenizer = made(kind)
        by = of((model, tokenizer), target)
        (part,) = by.parts("the red car.", Span(0, 12))
        read = [*by._told.head, *part.ids, *by._told.tail]
        if kind in ("nllb", "mbart50", "mbart"):
            before = tokenizer.src_lang
            tokenizer.src_lang = {"nllb": "eng_Latn"}.get(kind, "en_XX")
            assert read == tokenizer("the red car.")["input_ids"]
            assert tokenizer.src_lang == before
            (token,) = by._told.options.values()
            code = {"nllb": "por_Latn", "mbart50": "pt_XX", "mbart": "ro_RO"}[kind]
            assert tokenizer.convert_ids_to_tokens(token) == code
        else:
            prefix = "translate to german: " if kind == "t5" else ""
            assert read == tokenizer(prefix + "the red car.")["input_ids"]
            assert by._told.options == {}


def test_the_language_that_is_written_is_the_one_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    for kind, code in (("nllb", "por_Latn"), ("mbart50", "pt_XX"), ("mbart", "ro_RO")):
        network, tokenizer = made(kind)
        outputs: list[Any] = []
        generate = network.generate
        monkeypatch.setattr(network, "generate", lambda g=generate, o=outputs, **given: o.append(g(**given)) or o[-1])
        by = of((network, tokenizer), KINDS[kind], align=False)
        by.write(batch_of(by))
        first = 0 if kind == "mbart" else 1
        assert set(tokenizer.convert_ids_to_tokens(outputs[0][:, first].tolist())) == {code}


def test_languages_that_are_not_there_are_named() -> None:
    with pytest.raises(InputError, match=r"'xx' was asked for; tiny does not have it. It has: ace_Arab, .*por_Latn"):
        of(made("nllb"), "xx")
    with pytest.raises(InputError, match=r"several of that kind: zho_Hans, zho_Hant. Name one"):
        of(made("nllb"), "zh")
    with pytest.raises(
        InputError, match="'en' to 'fr' by tiny was asked for; its configuration has a prefix for en → de"
    ):
        of(made("t5"), "fr")
    assert chosen("pt_XX", ["pt_XX", "en_XX"], "tiny") == "pt_XX"


@pytest.fixture
def marian(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Any, Any]:
    """A tiny Marian student with random weights, and its tokenizer."""
    pytest.importorskip("sentencepiece", reason="the package sentencepiece is not installed")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return models.load(str(marian_files.write_folder(tmp_path / "marian")))


def student(layer: int | None) -> MarianSsruForTranslation:
    torch.manual_seed(3)
    config = MarianSsruConfig(
        vocab_size=48, d_model=32, encoder_layers=2, decoder_layers=2, encoder_attention_heads=4,
        decoder_attention_heads=4, encoder_ffn_dim=48, decoder_ffn_dim=48, pad_token_id=47, eos_token_id=2,
        decoder_start_token_id=47, alignment_layer=layer,
    )  # fmt: skip
    model = MarianSsruForTranslation(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 2:
                parameter.normal_(0, 0.3)
    return model


@pytest.mark.parametrize("layer", [-1, 0])
def test_a_student_writes_what_generate_writes_and_looks_where_its_layer_looks(layer: int) -> None:
    model: Any = student(layer)
    ids = torch.tensor([[7, 21, 9, 33, 12, 2], [5, 17, 2, 47, 47, 47], [8, 8, 30, 11, 2, 47]])
    mask = (ids != 47).long()
    with torch.no_grad():
        states = model.get_encoder()(ids, mask).last_hidden_state
    tokens, weights = model.write_greedily(states, mask, [12, 5, 9])
    wanted = model.generate(input_ids=ids, attention_mask=mask, max_new_tokens=12, num_beams=1, do_sample=False)
    seen = attention_weights(model, states, mask, wanted, layer, "tiny")
    other = attention_weights(model, states, mask, wanted, -1 - layer, "tiny")
    for i, most in enumerate([12, 5, 9]):
        row = wanted[i, 1 : 1 + most].tolist()
        assert tokens[i] == (row[: row.index(2) + 1] if 2 in row else row)
        torch.testing.assert_close(weights[i], seen[i, : len(tokens[i])], atol=1e-5, rtol=1e-4)
        assert not torch.allclose(weights[i], other[i, : len(tokens[i])], atol=1e-3)
    alone, _ = greedy(model, states[:1], mask[:1], [12])
    assert alone[0] == tokens[0]


def test_a_student_that_declares_no_layer_is_aligned_by_relevance(marian: tuple[Any, Any]) -> None:
    network = marian[0]
    by = of(marian, "pt")
    (part,) = by.parts("The red car stopped.", Span(0, 20))
    by_attention = by.write([part])[0]
    network.config.alignment_layer = None
    try:
        by = of(marian, "pt")
        (result,) = by.write([part])
    finally:
        network.config.alignment_layer = -1
    assert result.text == by_attention.text
    assert result.weights is not None
    assert by_attention.weights is not None
    assert result.places == tuple(words(result.text, signs=True))
    assert not torch.allclose(by_attention.weights[:1].double(), result.weights[:1], atol=1e-2)
    states = network.get_encoder()(torch.tensor([[*part.ids, 0]])).last_hidden_state
    produced = network.write_greedily(states, torch.ones(1, len(part.ids) + 1), [2 * len(part.ids) + 50])[0][0]
    _, places = by._tokens.spelled(produced)
    whole, _ = source_relevance(network, [*part.ids, 0], produced, of=tokens_of(result.places[0], places))
    wanted = whole[: len(part.ids)] / whole.sum()
    torch.testing.assert_close(result.weights[0], wanted, atol=2e-3, rtol=1e-2)


def test_a_decoder_is_asked_in_a_chat_and_aligned_by_key_relevance(pair: tuple[Any, Any]) -> None:
    network, tokenizer = pair
    by = of(pair, "pt")
    assert isinstance(by, Instructed)
    text = "The ferry leaves."
    (part,) = by.parts(text, Span(0, len(text)))
    prompt = [*by._head, *part.ids, *by._tail]
    asked = "Translate the following text from English to Portuguese. Reply with the translation and nothing else."
    assert tokenizer.decode(prompt) == f"<|start|>user\n{asked}\n\n{text}<|end|>\n<|start|>assistant\n"
    (result,) = by.write([part])
    assert by.write([part])[0].text == result.text == of(pair, "pt", align=False).write([part])[0].text
    reader = Reader(network)
    reader.read(prompt[:-1])
    answer = reader.generate(prompt[-1], 2 * len(part.ids) + 50, {tokenizer.eos_token_id})
    line, places, _ = by._first_line(answer, True)
    assert line == result.text
    assert result.weights is not None
    spans = words(line, signs=True)
    assert result.places == tuple(spans)
    assert spans
    inside = slice(len(by._head), len(by._head) + len(part.ids))
    for word, weights in zip(spans, result.weights, strict=True):
        at = tokens_of(word, places)
        again = Reader(network)
        again.read([*prompt, *answer[: at[0]]][:-1])
        whole, _ = key_relevance(again, [*prompt, *answer[: at[0]]], answer[at[0] : at[-1] + 1])
        torch.testing.assert_close(weights, whole[inside] / whole[inside].sum(), atol=1e-5, rtol=1e-4)
    assert isinstance(of(made("t5"), "de"), EncoderDecoder)


def test_a_decoder_without_a_chat_template_is_refused(pair: tuple[Any, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pair[1], "chat_template", None)
    with pytest.raises(Unsupported, match="it has no encoder, and its tokenizer no chat template"):
        translate("car", model=pair)
