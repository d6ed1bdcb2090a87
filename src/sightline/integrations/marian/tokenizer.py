"""SentencePiece as a Transformers tokenizer, which also says where in the text each piece lies."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from typing import Any, NamedTuple

from transformers import PreTrainedTokenizer

from ...errors import InputError, ModelError

__all__ = ["MarianSsruTokenizer", "Piece"]

_BLANK = "▁"
"""What SentencePiece writes for a space."""


class Piece(NamedTuple):
    """A token of a text and the characters it stands for: text[start:end], without blanks around them.

    Pieces that one character was spelled out into ("½" is read as "1⁄2") each stand for that character. A piece that
    stands for a space alone has start == end.
    """

    id: int
    start: int
    end: int


class MarianSsruTokenizer(PreTrainedTokenizer):
    """The SentencePiece vocabulary of a Marian model; both languages share it.

    Text is text: what looks like a control token ("</s>") is read letter by letter. Each text ends with the
    end-of-sentence token, and one token is added after the vocabulary, the empty one, which pads.

    Raises ModelError for a vocabulary that cannot be read, and where the package sentencepiece is not installed.
    """

    vocab_files_names = {"vocab_file": "vocab.spm"}  # noqa: RUF012  (the base class's own declaration)
    model_input_names = ["input_ids", "attention_mask"]  # noqa: RUF012  (the same)

    def __init__(self, vocab_file: str, **kwargs: Any) -> None:
        self.vocab_file = vocab_file
        self._pieces = _load(vocab_file)
        kwargs.setdefault("eos_token", self._pieces.id_to_piece(self._pieces.eos_id()))
        kwargs.setdefault("unk_token", self._pieces.id_to_piece(self._pieces.unk_id()))
        kwargs.setdefault("pad_token", "<pad>")
        kwargs.setdefault("special_tokens_pattern", "eos")
        super().__init__(**kwargs)

    @property
    def vocab_size(self) -> int:
        """Pieces of the vocabulary, the empty token not counted."""
        return int(self._pieces.get_piece_size())

    @property
    def ends(self) -> int:
        """The token that ends a sentence."""
        return int(self._pieces.eos_id())

    def get_vocab(self) -> dict[str, int]:
        """Piece → id, the empty token included."""
        return {self._pieces.id_to_piece(i): i for i in range(self.vocab_size)} | self._added_tokens_encoder

    def pieces(self, text: str) -> list[Piece]:
        """The tokens of a text, without the one that ends it, each with its place in the text as it is given.

        SentencePiece reads a normalised text (NFKC, blanks joined); places are in the original. Raises InputError for
        half a surrogate pair, which is no character.
        """
        found = _encode(self._pieces, text)
        places = [_trim(text, start, end) for start, end in found["offsets"]]
        for i in range(len(places) - 2, -1, -1):
            (start, end), (following, last) = places[i], places[i + 1]
            if start == end == following < last and found["pieces"][i] != _BLANK:
                places[i] = (start, start + 1)
        return [Piece(i, *place) for i, place in zip(found["ids"], places, strict=True)]

    def spell(self, ids: Sequence[int]) -> tuple[str, list[Piece]]:
        """The text of tokens, and where in it each of them lies. Tokens that end or pad stand for no characters."""
        silent = self._silent()
        decoded = self._pieces.decode([int(i) for i in ids if int(i) not in silent], return_type="offset_mapping")
        text: str = decoded["text"]
        places = iter(decoded["offsets"])
        at = 0
        spelled: list[Piece] = []
        for i in map(int, ids):
            start, end = (at, at) if i in silent else _trim(text, *next(places))
            spelled.append(Piece(i, start, end))
            at = end
        return text, spelled

    def tokenize(self, text: str, **kwargs: Any) -> list[str]:
        """The pieces themselves, as strings."""
        return list(_encode(self._pieces, text)["pieces"])

    def _convert_token_to_id(self, token: str) -> int:
        return int(self._pieces.piece_to_id(token))

    def _convert_id_to_token(self, index: int) -> str:
        return str(self._pieces.id_to_piece(index))

    def _silent(self) -> frozenset[int]:
        """Tokens that stand for no characters."""
        return frozenset((self.ends, self.vocab_size))

    def _decode(
        self,
        token_ids: int | list[int],
        skip_special_tokens: bool = False,
        clean_up_tokenization_spaces: bool | None = None,
        **kwargs: Any,
    ) -> str:
        ids = [token_ids] if isinstance(token_ids, int) else [int(i) for i in token_ids]
        silent = self._silent()
        parts: list[str] = []
        waiting: list[int] = []
        for i in ids:
            if i not in silent:
                waiting.append(i)
            elif not skip_special_tokens:
                parts += [self._pieces.decode(waiting), self.convert_ids_to_tokens(i)]
                waiting = []
        return "".join([*parts, self._pieces.decode(waiting)])

    def convert_tokens_to_string(self, tokens: list[str]) -> str:
        """Pieces, joined into text."""
        return self._decode(self.convert_tokens_to_ids(tokens))

    def save_vocabulary(self, save_directory: str, filename_prefix: str | None = None) -> tuple[str, ...]:
        """Copy the vocabulary's file."""
        prefix = f"{filename_prefix}-" if filename_prefix else ""
        target = os.path.join(save_directory, prefix + self.vocab_files_names["vocab_file"])
        if os.path.abspath(target) != os.path.abspath(self.vocab_file):
            shutil.copyfile(self.vocab_file, target)
        return (target,)


def _load(path: str) -> Any:
    """A SentencePiece processor with a piece that ends sentences."""
    try:
        import sentencepiece
    except ModuleNotFoundError as error:
        if error.name != "sentencepiece":
            raise
        raise ModelError(
            "the tokenizer of a Marian model was asked for; that needs the package sentencepiece, which is not "
            'installed. Install it with: pip install "sightline[models]"'
        ) from error
    processor: Any = sentencepiece.SentencePieceProcessor()
    try:
        with open(path, "rb") as file:
            processor.LoadFromSerializedProto(file.read())
        ends = processor.eos_id() >= 0
    except (OSError, RuntimeError) as error:
        raise ModelError(
            f"{path} was to be read as a SentencePiece vocabulary; that failed: {error}. Give the file vocab….spm that "
            "came with the model."
        ) from error
    if not ends:
        raise ModelError(
            f"{path} was to be read as the vocabulary of a Marian model; it has no piece that ends a sentence. Give "
            "the file vocab….spm that came with the model."
        )
    return processor


def _encode(processor: Any, text: str) -> dict[str, Any]:
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise InputError(
            f"a text was to be split into tokens; its character {error.start} is half a surrogate pair, which is no "
            "character. Decode the text properly, or take it out."
        ) from error
    return processor.encode(text, return_type="offset_mapping")


def _trim(text: str, start: int, end: int) -> tuple[int, int]:
    """A span without the blanks at its ends."""
    inside = text[start:end]
    start += len(inside) - len(inside.lstrip())
    return start, max(start, end - (len(inside) - len(inside.rstrip())))
