"""Tokens are SentencePiece's own, and each says which characters of the text it stands for."""

from __future__ import annotations

from pathlib import Path

import pytest
from transformers import AutoTokenizer

from marian_files import SENTENCES, WIDTH, random_weights, write, write_folder, write_vocabulary
from sightline.errors import InputError, ModelError
from sightline.integrations.marian import MarianSsruTokenizer, convert

sentencepiece = pytest.importorskip("sentencepiece", reason="the package sentencepiece is not installed")


@pytest.fixture(scope="module")
def vocabulary(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("vocabulary") / "vocab.spm"
    write_vocabulary(path)
    return path


@pytest.fixture(scope="module")
def tokenizer(vocabulary: Path) -> MarianSsruTokenizer:
    return MarianSsruTokenizer(str(vocabulary))


TEXTS = [
    *SENTENCES,
    "",
    "   ",
    "  The  red\tcar\nstopped ",
    "the ﬁne ½ Ａｂｃ … cafe\u0301 №",
    "日本語 ☂ 😀 a\x00b",
    "a</s> b <unk> <pad> ▁c",
    "\u200b\ufeffthe\u00a0house",
]


@pytest.mark.parametrize("text", TEXTS)
def test_tokens_are_those_of_sentencepiece_with_an_end(
    tokenizer: MarianSsruTokenizer, vocabulary: Path, text: str
) -> None:
    reference = sentencepiece.SentencePieceProcessor(model_file=str(vocabulary))
    expected = reference.encode(text)
    encoded = tokenizer(text)
    assert encoded["input_ids"] == [*expected, 0]
    assert [piece.id for piece in tokenizer.pieces(text)] == expected
    assert tokenizer.decode(encoded["input_ids"], skip_special_tokens=True) == reference.decode(expected)
    assert tokenizer.decode(encoded["input_ids"]) == reference.decode(expected) + "</s>"


@pytest.mark.parametrize("text", TEXTS)
def test_places_run_forward_hold_no_blanks_and_leave_nothing_out(tokenizer: MarianSsruTokenizer, text: str) -> None:
    covered: set[int] = set()
    before = (0, 0)
    for _, start, end in tokenizer.pieces(text):
        assert 0 <= start <= end <= len(text)
        assert (start, end) >= before or start == before[0]
        assert text[start:end] == text[start:end].strip()
        covered |= set(range(start, end))
        before = (start, end)
    silent = " \t\n\u00a0\u200b\ufeff▁\u0301"
    assert {i for i, c in enumerate(text) if c not in silent} <= covered


def test_places_are_in_the_text_as_it_was_given(tokenizer: MarianSsruTokenizer) -> None:
    def words(text: str) -> list[str]:
        return [text[p.start : p.end] for p in tokenizer.pieces(text) if p.end > p.start]

    assert "".join(words("  The  red\tcar\nstopped ")) == "Theredcarstopped"
    # "½" is read as three pieces, each of which stands for it, as is "ﬁ" for two.
    spelled = words("½ ﬁ")
    assert spelled == ["½"] * spelled.count("½") + ["ﬁ"] * spelled.count("ﬁ")
    assert spelled.count("½") == 3
    assert words("Ａｂ")[0][0] == "Ａ"


def test_a_translation_is_spelled_with_the_place_of_each_token(tokenizer: MarianSsruTokenizer) -> None:
    given = [*tokenizer(SENTENCES[1])["input_ids"], tokenizer.pad_token_id]
    text, pieces = tokenizer.spell(given)
    assert text == SENTENCES[1]
    assert [piece.id for piece in pieces] == given
    assert "".join(text[p.start : p.end] for p in pieces) == text.replace(" ", "")
    assert pieces[-1][1:] == pieces[-2][1:] == (len(text), len(text))


def test_the_empty_token_comes_after_the_vocabulary_and_pads(tokenizer: MarianSsruTokenizer) -> None:
    assert len(tokenizer) == tokenizer.vocab_size + 1 == len(tokenizer.get_vocab())
    assert tokenizer.pad_token_id == tokenizer.vocab_size
    encoded = tokenizer([*SENTENCES[:2], "Os"], padding=True, return_tensors="pt")
    assert encoded["input_ids"].shape == encoded["attention_mask"].shape
    assert bool(((encoded["input_ids"] == tokenizer.pad_token_id) == (encoded["attention_mask"] == 0)).all())
    assert tokenizer.decode(encoded["input_ids"][2], skip_special_tokens=True) == "Os"


def test_a_saved_tokenizer_comes_back_the_same_and_transformers_own_is_left_alone(
    tokenizer: MarianSsruTokenizer, tmp_path: Path
) -> None:
    folder = write_folder(tmp_path / "marian")
    convert(folder / "model.enpt.intgemm.alphas.bin", folder / "vocab.enpt.spm", tmp_path / "saved")
    again = AutoTokenizer.from_pretrained(tmp_path / "saved")
    assert type(again) is MarianSsruTokenizer
    for text in TEXTS:
        assert again.pieces(text) == tokenizer.pieces(text)
        assert again(text)["input_ids"] == tokenizer(text)["input_ids"]
    from transformers.models.auto.tokenization_auto import tokenizer_class_from_name

    assert tokenizer_class_from_name("MarianTokenizer") is not MarianSsruTokenizer


def test_what_is_no_vocabulary_and_what_is_no_character_is_refused(
    tokenizer: MarianSsruTokenizer, tmp_path: Path
) -> None:
    (tmp_path / "bad.spm").write_bytes(b"not a vocabulary")
    (tmp_path / "empty.spm").touch()
    for name in ("bad.spm", "empty.spm", "absent.spm"):
        with pytest.raises(ModelError, match=f"{name} was to be read as a SentencePiece vocabulary"):
            MarianSsruTokenizer(str(tmp_path / name))
    with pytest.raises(InputError, match="character 1 is half a surrogate pair"):
        tokenizer("a\ud800")


def test_a_vocabulary_of_another_model_is_refused(vocabulary: Path, tmp_path: Path) -> None:
    weights = random_weights(40)
    assert weights["Wemb"].shape == (40, WIDTH)
    write(tmp_path / "model.bin", weights)
    with pytest.raises(ModelError, match="the model knows 40 pieces and the vocabulary has"):
        convert(tmp_path / "model.bin", vocabulary, tmp_path / "out")
