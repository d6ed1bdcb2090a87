"""Marian model files, written from the description of their format: tiny, with random weights."""

from __future__ import annotations

import io
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

WIDTH, HEADS, FFN, ENCODER, DECODER = 16, 4, 24, 2, 2

SETTINGS = {
    "dec-cell": "ssru",
    "dec-depth": str(DECODER),
    "dim-emb": str(WIDTH),
    "enc-depth": str(ENCODER),
    "input-types": "[]",
    "right-left": "false",
    "tied-embeddings-all": "true",
    "transformer-decoder-autoreg": "rnn",
    "transformer-ffn-activation": "relu",
    "transformer-heads": str(HEADS),
    "transformer-postprocess": "dan",
    "transformer-preprocess": '""',
    "type": "transformer",
}

SENTENCES = [
    "The red car stopped in front of the old house.",
    "O carro vermelho parou na frente da antiga casa.",
    "She crossed the river twice, and half of the village saw it.",
    "Os gatos dormem no jardim; nobody knows why 12 of them left.",
]

Weights = dict[str, np.ndarray[Any, np.dtype[np.float32]]]


def random_weights(words: int, seed: int = 0) -> Weights:
    """Marian's names, matrices [in, out]; spread out, so that attention is far from flat."""
    draw = np.random.default_rng(seed)

    def matrix(rows: int, columns: int, spread: float = 1.6) -> Any:
        return draw.normal(size=(rows, columns)).astype(np.float32) * np.float32(spread / np.sqrt(rows))

    def vector(size: int, spread: float = 0.3) -> Any:
        return draw.normal(size=(1, size)).astype(np.float32) * np.float32(spread)

    embeddings = matrix(words, WIDTH)
    embeddings /= np.linalg.norm(embeddings, axis=1, keepdims=True)
    weights: Weights = {"Wemb": embeddings, "decoder_ff_logit_out_b": vector(words)}

    def norm(name: str) -> None:
        # Of either sign: around 1, a model with tied embeddings says its last token again and again.
        weights[f"{name}_ln_scale"] = vector(WIDTH, 1.0)
        weights[f"{name}_ln_bias"] = vector(WIDTH, 0.05)

    def attention(name: str) -> None:
        for letter in "qkvo":
            weights[f"{name}_W{letter}"] = matrix(WIDTH, WIDTH)
            weights[f"{name}_b{letter}"] = vector(WIDTH)
        norm(f"{name}_Wo")

    def feed_forward(name: str) -> None:
        for i, rows, columns in ((1, WIDTH, FFN), (2, FFN, WIDTH)):
            weights[f"{name}_ffn_W{i}"] = matrix(rows, columns)
            weights[f"{name}_ffn_b{i}"] = vector(columns)
        norm(f"{name}_ffn_ffn")

    for i in range(1, ENCODER + 1):
        attention(f"encoder_l{i}_self")
        feed_forward(f"encoder_l{i}")
    for i in range(1, DECODER + 1):
        weights[f"decoder_l{i}_rnn_W"] = matrix(WIDTH, WIDTH, 4.0)
        weights[f"decoder_l{i}_rnn_Wf"] = matrix(WIDTH, WIDTH)
        weights[f"decoder_l{i}_rnn_bf"] = vector(WIDTH)
        norm(f"decoder_l{i}_rnn_ffn")
        attention(f"decoder_l{i}_context")
        feed_forward(f"decoder_l{i}")
    return weights


def write(
    path: Path, weights: Mapping[str, Any], settings: Mapping[str, str] = SETTINGS, *, quantised: bool = True
) -> Weights:
    """Write a file; what a reader should find in it. Quantised, matrices become int8 and lose what int8 cannot hold."""
    held: Weights = {}
    entries: list[tuple[str, int, tuple[int, ...], bytes]] = []
    for name, w in weights.items():
        matrix = quantised and w.shape[0] > 1
        if matrix:
            scale = np.float32(127 / np.abs(w).max())
            values = np.round(w * scale).astype(np.int8)
            held[name] = values.astype(np.float32) / scale
            stored = values if name == "Wemb" else values.T
            data = np.ascontiguousarray(stored).tobytes() + struct.pack("<f", scale)
            entries.append((f"{name}_QuantMultA", 0x0404, (1, 1), padded(struct.pack("<f", 9.5))))
        else:
            held[name] = w.astype(np.float32)
            data = held[name].tobytes()
        entries.append((name, 0x4101 if matrix else 0x0404, w.shape, padded(data)))
    text = "".join(f"{key}: {value}\n" for key, value in settings.items()).encode() + b"\0"
    entries.append(("special:model.yml", 0x0101, (len(text),), text))
    path.write_bytes(laid_out(entries))
    return held


def padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % 256)


def laid_out(entries: list[tuple[str, int, tuple[int, ...], bytes]]) -> bytes:
    """The bytes of a file: headers, names, shapes, padding, data."""
    file = io.BytesIO()
    file.write(struct.pack("<QQ", 1, len(entries)))
    for name, kind, shape, data in entries:
        file.write(struct.pack("<4Q", len(name) + 1, kind, len(shape), len(data)))
    for name, *_ in entries:
        file.write(name.encode() + b"\0")
    for _, _, shape, _ in entries:
        file.write(struct.pack(f"<{len(shape)}i", *shape))
    padding = -(file.tell() + 8) % 256
    file.write(struct.pack("<Q", padding) + bytes(padding))
    for *_, data in entries:
        file.write(data)
    return file.getvalue()


def header_length(data: bytes) -> int:
    """Bytes before the first tensor's data."""
    count = struct.unpack_from("<Q", data, 8)[0]
    headers = [struct.unpack_from("<4Q", data, 16 + 32 * i) for i in range(count)]
    return len(data) - sum(h[3] for h in headers)


def write_vocabulary(path: Path) -> int:
    """Train a vocabulary as Marian's are; the number of its pieces. Needs the package sentencepiece."""
    import sentencepiece

    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(SENTENCES * 3),
        model_writer=model,
        vocab_size=90,
        hard_vocab_limit=False,
        bos_id=-1,
        eos_id=0,
        unk_id=1,
        pad_id=-1,
        normalization_rule_name="nmt_nfkc",
        minloglevel=2,
    )
    path.write_bytes(model.getvalue())
    return int(sentencepiece.SentencePieceProcessor(model_proto=model.getvalue()).get_piece_size())


def write_folder(folder: Path, seed: int = 0) -> Path:
    """A folder as Marian's tools leave it: weights and vocabulary."""
    folder.mkdir(parents=True, exist_ok=True)
    words = write_vocabulary(folder / "vocab.enpt.spm")
    write(folder / "model.enpt.intgemm.alphas.bin", random_weights(words, seed))
    return folder
