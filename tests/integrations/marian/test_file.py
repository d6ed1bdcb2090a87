"""Marian's binary files are read as they are, and what is damaged or of another kind is refused."""

from __future__ import annotations

import random
import struct
from pathlib import Path

import pytest
import torch

from marian_files import SETTINGS, header_length, laid_out, padded, random_weights, write
from sightline.errors import ModelError
from sightline.integrations.marian import read_file, read_model

WORDS = 40


@pytest.mark.parametrize("quantised", [True, False])
def test_tensors_and_settings_are_those_that_were_written(tmp_path: Path, quantised: bool) -> None:
    held = write(tmp_path / "model.bin", random_weights(WORDS), quantised=quantised)
    file = read_file(tmp_path / "model.bin")
    assert set(file.tensors) == set(held)
    for name, expected in held.items():
        assert torch.equal(file.tensors[name], torch.from_numpy(expected)), name
    assert file.settings == SETTINGS | {"transformer-preprocess": ""}


def test_sizes_are_read_and_not_assumed(tmp_path: Path) -> None:
    write(tmp_path / "model.bin", random_weights(WORDS))
    config = read_model(tmp_path / "model.bin").config
    assert (config.vocab_size, config.d_model, config.pad_token_id) == (WORDS + 1, 16, WORDS)
    assert (config.encoder_layers, config.encoder_attention_heads, config.encoder_ffn_dim) == (2, 4, 24)
    assert (config.decoder_layers, config.decoder_attention_heads, config.decoder_ffn_dim) == (2, 4, 24)


def test_a_truncated_file_is_refused_wherever_it_ends(tmp_path: Path) -> None:
    write(tmp_path / "model.bin", random_weights(WORDS))
    data = (tmp_path / "model.bin").read_bytes()
    draw = random.Random(0)
    cuts = [0, 1, 15, len(data) - 1, *(draw.randrange(len(data)) for _ in range(50))]
    for cut in cuts:
        (tmp_path / "cut.bin").write_bytes(data[:cut])
        with pytest.raises(ModelError, match=r"cut\.bin was to be read as a Marian model"):
            read_model(tmp_path / "cut.bin")


def test_a_damaged_header_gives_an_error_or_the_right_model_and_nothing_else(tmp_path: Path) -> None:
    write(tmp_path / "model.bin", random_weights(WORDS))
    data = (tmp_path / "model.bin").read_bytes()
    right = read_model(tmp_path / "model.bin").state_dict()
    draw = random.Random(1)
    refused = 0
    for _ in range(400):
        damaged = bytearray(data)
        for _ in range(draw.choice((1, 1, 1, 8))):
            damaged[draw.randrange(header_length(data))] = draw.randrange(256)
        (tmp_path / "damaged.bin").write_bytes(damaged)
        try:
            state = read_model(tmp_path / "damaged.bin").state_dict()
        except ModelError:
            refused += 1
        else:  # the damage hit padding, what is skipped, or changed nothing
            assert all(torch.equal(state[name], right[name]) for name in right)
    assert 200 < refused < 400


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"dec-cell": "gru"}, "dec-cell is 'gru'"),
        ({"transformer-decoder-autoreg": "self-attention"}, "transformer-decoder-autoreg is 'self-attention'"),
        ({"type": "s2s"}, "type is 's2s'"),
        ({"right-left": "true"}, "right-left is 'true'"),
        ({"transformer-preprocess": "n"}, "transformer-preprocess is 'n'"),
        ({"transformer-ffn-activation": "swish"}, "transformer-ffn-activation is 'swish'"),
        ({"transformer-tied-layers": ""}, "transformer-tied-layers is ''"),
        ({"tied-embeddings-all": "false"}, "tied-embeddings-all is 'false'"),
        ({"transformer-heads": "5"}, "transformer-heads is '5'"),
        ({"transformer-heads": "0"}, "transformer-heads is '0'"),
        ({"enc-depth": "3"}, "2 encoder layers"),
    ],
)
def test_another_kind_of_model_is_refused_by_its_settings(tmp_path: Path, changed: dict[str, str], says: str) -> None:
    write(tmp_path / "model.bin", random_weights(WORDS), SETTINGS | changed)
    with pytest.raises(ModelError, match=says):
        read_model(tmp_path / "model.bin")


def test_tensors_that_lack_or_exceed_the_kind_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "model.bin"
    weights = random_weights(WORDS)
    write(path, {name: w for name, w in weights.items() if name != "decoder_l2_rnn_bf"})
    with pytest.raises(ModelError, match="it lacks decoder_l2_rnn_bf"):
        read_model(path)
    write(path, weights | {"encoder_l1_self_gate": weights["encoder_l1_self_Wq"]})
    with pytest.raises(ModelError, match="encoder_l1_self_gate, which belongs to another kind"):
        read_model(path)
    write(path, weights | {"encoder_l1_self_bq": weights["encoder_l1_ffn_b1"]})
    with pytest.raises(ModelError, match="do not fit one another"):
        read_model(path)
    write(path, {})
    with pytest.raises(ModelError, match="no matrix Wemb"):
        read_model(path)


def test_a_name_twice_a_strange_type_and_a_strange_scale_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "model.bin"
    one = ("x", 0x0404, (1,), padded(struct.pack("<f", 1.0)))
    for entries, says in (
        ([one, one], "'x' twice"),
        ([("x", 0x4102, (1,), bytes(256))], "numbers of type 0x4102"),
        ([("x", 0x4101, (2, 2), bytes(256))], "has the scale 0"),
        ([("x", 0x0101, (2, 2), bytes(256))], "of type 0x0101"),
    ):
        path.write_bytes(laid_out(entries))
        with pytest.raises(ModelError, match=says):
            read_file(path)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"absent\.bin was to be read.*No such file"):
        read_file(tmp_path / "absent.bin")
