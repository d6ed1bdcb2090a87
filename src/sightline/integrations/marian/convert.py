"""From Marian's own files to a model and a tokenizer of ours, and to a folder that `from_pretrained` loads."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NoReturn

import torch
from torch import Tensor
from transformers import GenerationConfig

from ...errors import ModelError
from .configuration import MarianSsruConfig
from .file import MarianFile, read_file
from .module import MarianSsruForTranslation
from .tokenizer import MarianSsruTokenizer

__all__ = ["convert", "read_model"]

_LONGEST = 512
"""Tokens after which `generate` stops by default; no sentence has as many."""

_NEEDED: Mapping[str, str] = {
    "type": "transformer",
    "transformer-decoder-autoreg": "rnn",
    "dec-cell": "ssru",
}
"""Settings without which a model is not of this kind."""

_USUAL: Mapping[str, str] = {
    "transformer-preprocess": "",
    "transformer-postprocess": "dan",  # dropout, add, normalise
    "transformer-postprocess-emb": "d",
    "transformer-postprocess-top": "",
    "transformer-ffn-activation": "relu",
    "transformer-ffn-depth": "2",
    "transformer-no-projection": "false",
    "transformer-pool": "false",
    "transformer-tied-layers": "[]",
    "transformer-train-position-embeddings": "false",
    "tied-embeddings-all": "true",
    "output-omit-bias": "false",
    "lemma-dim-emb": "0",
    "right-left": "false",
    "skip": "false",
    "ulr": "false",
}
"""Settings that change the formulas, each with the one value that is understood. Older versions leave some out."""


def convert(weights: Path, vocabulary: Path, target: Path) -> None:
    """Write the model and its tokenizer to the folder `target`, weights in float32.

    Raises ModelError where the files are damaged, do not belong together, or hold another kind of model.
    """
    model = read_model(weights)
    tokenizer = MarianSsruTokenizer(str(vocabulary))
    if len(tokenizer) != model.config.vocab_size:
        raise ModelError(
            f"{weights} was to be read with the vocabulary {vocabulary}; the model knows "
            f"{model.config.vocab_size - 1:,} pieces and the vocabulary has {len(tokenizer) - 1:,}. Give the "
            "vocabulary that came with the model."
        )
    model.config.eos_token_id = tokenizer.ends
    model.generation_config = GenerationConfig(
        max_length=_LONGEST,
        eos_token_id=tokenizer.ends,
        pad_token_id=model.config.pad_token_id,
        decoder_start_token_id=model.config.decoder_start_token_id,
    )
    model.save_pretrained(target)
    tokenizer.save_pretrained(target)


def read_model(path: Path) -> MarianSsruForTranslation:
    """The model of a Marian file, in evaluation mode. Sizes are those of its tensors, heads those of its settings.

    Raises ModelError for a file that is damaged, and for a model of another kind: what is not understood would change
    the result without a sign.
    """
    file = read_file(path)
    _check_settings(path, file)
    config = _config(path, file)
    with torch.device("meta"):
        model = MarianSsruForTranslation(config)
    tied = set(MarianSsruForTranslation._tied_weights_keys)
    sizes = {name: t.shape for name, t in model.state_dict().items() if name not in tied}
    state = _state(path, file, config)
    for name, size in sizes.items():
        if state[name].shape != size:
            _refuse(path, f"its tensors do not fit one another: {name} would be {list(state[name].shape)}")
    model.load_state_dict(state, strict=False, assign=True)
    model.set_input_embeddings(model.shared)
    return model.eval()


def _check_settings(path: Path, file: MarianFile) -> None:
    settings = file.settings
    for name, value in _NEEDED.items():
        if settings.get(name) != value:
            _refuse(path, f"its setting {name} is {settings.get(name)!r}, and {value!r} is understood")
    for name, value in _USUAL.items():
        if settings.get(name, value) != value:
            _refuse(path, f"its setting {name} is {settings[name]!r}, and {value!r} is understood")


def _config(path: Path, file: MarianFile) -> MarianSsruConfig:
    """Sizes, as the tensors have them."""
    words, width = _matrix(path, file, "Wemb")
    heads = file.settings.get("transformer-heads", "")
    if not heads.isdecimal() or int(heads) < 1 or width % int(heads) or width % 2:
        _refuse(path, f"its setting transformer-heads is {heads!r}, and its width is {width}")
    depths: dict[str, int] = {}
    for side, setting in (("encoder", "enc-depth"), ("decoder", "dec-depth")):
        depths[side] = len({m[0] for name in file.tensors if (m := re.match(rf"{side}_l\d+_", name))})
        if file.settings.get(setting, str(depths[side])) != str(depths[side]) or not depths[side]:
            _refuse(path, f"it holds {depths[side]} {side} layers, and its setting {setting} says otherwise")
    return MarianSsruConfig(
        vocab_size=words + 1,
        d_model=width,
        encoder_layers=depths["encoder"],
        encoder_attention_heads=int(heads),
        encoder_ffn_dim=_matrix(path, file, "encoder_l1_ffn_W1")[1],
        decoder_layers=depths["decoder"],
        decoder_attention_heads=int(heads),
        decoder_ffn_dim=_matrix(path, file, "decoder_l1_ffn_W1")[1],
        pad_token_id=words,
        decoder_start_token_id=words,
    )


def _matrix(path: Path, file: MarianFile, name: str) -> tuple[int, int]:
    shape = file.tensors[name].shape if name in file.tensors else ()
    if len(shape) != 2:
        _refuse(path, f"it holds no matrix {name}")
    return shape[0], shape[1]


def _state(path: Path, file: MarianFile, config: MarianSsruConfig) -> dict[str, Tensor]:
    """The state of our module, from Marian's names. The empty token gets an embedding of zero and no probability."""
    left = dict(file.tensors)
    state: dict[str, Tensor] = {}
    for theirs, ours in _names(config):
        if theirs not in left:
            _refuse(path, f"it lacks {theirs}")
        tensor = left.pop(theirs)
        state[ours] = tensor.flatten() if ours.endswith("bias") or "norm" in ours else tensor.T.contiguous()
    if left:
        _refuse(path, f"it holds {', '.join(sorted(left)[:3])}, which belongs to another kind of model")
    embeddings = state["shared.weight"].T
    state["shared.weight"] = torch.cat([embeddings, embeddings.new_zeros(1, embeddings.shape[1])])
    state["output_bias"] = torch.cat([state["output_bias"], torch.tensor([-math.inf])])
    return state


def _names(config: MarianSsruConfig) -> Iterator[tuple[str, str]]:
    """Marian's name and ours of every tensor."""
    yield "Wemb", "shared.weight"
    yield "decoder_ff_logit_out_b", "output_bias"
    for i in range(config.encoder_layers):
        theirs, ours = f"encoder_l{i + 1}", f"encoder.layers.{i}"
        yield from _attention(f"{theirs}_self", f"{ours}.self_attn")
        yield from _feed_forward(theirs, ours)
    for i in range(config.decoder_layers):
        theirs, ours = f"decoder_l{i + 1}", f"decoder.layers.{i}"
        yield f"{theirs}_rnn_W", f"{ours}.rnn.update.weight"
        yield f"{theirs}_rnn_Wf", f"{ours}.rnn.forget.weight"
        yield f"{theirs}_rnn_bf", f"{ours}.rnn.forget.bias"
        yield from _norm(f"{theirs}_rnn_ffn", f"{ours}.rnn_layer_norm")
        yield from _attention(f"{theirs}_context", f"{ours}.encoder_attn")
        yield from _feed_forward(theirs, ours)


def _attention(theirs: str, ours: str) -> Iterator[tuple[str, str]]:
    for letter, part in (("q", "q_proj"), ("k", "k_proj"), ("v", "v_proj"), ("o", "out_proj")):
        yield f"{theirs}_W{letter}", f"{ours}.{part}.weight"
        yield f"{theirs}_b{letter}", f"{ours}.{part}.bias"
    yield from _norm(f"{theirs}_Wo", f"{ours}_layer_norm")


def _feed_forward(theirs: str, ours: str) -> Iterator[tuple[str, str]]:
    for i in (1, 2):
        yield f"{theirs}_ffn_W{i}", f"{ours}.ffn.fc{i}.weight"
        yield f"{theirs}_ffn_b{i}", f"{ours}.ffn.fc{i}.bias"
    yield from _norm(f"{theirs}_ffn_ffn", f"{ours}.final_layer_norm")


def _norm(theirs: str, ours: str) -> Iterator[tuple[str, str]]:
    yield f"{theirs}_ln_scale", f"{ours}.weight"
    yield f"{theirs}_ln_bias", f"{ours}.bias"


def _refuse(path: Path, why: str) -> NoReturn:
    raise ModelError(
        f"{path} was to be read as a Marian model with an SSRU decoder; {why}. Give a student model of the kind that "
        "browsers translate with, in Marian's binary format."
    )
