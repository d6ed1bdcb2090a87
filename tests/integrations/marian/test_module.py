"""The model computes what its formulas say, however it is run: padded, step by step, in beams, recorded, or saved."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from transformers import AutoModelForSeq2SeqLM, DynamicCache

from marian_files import DECODER, ENCODER, HEADS, WIDTH, Weights, random_weights, write
from sightline import Peak, Rows, record
from sightline.errors import Unsupported
from sightline.integrations.marian import DecoderCache, MarianSsruForTranslation, read_model

WORDS = 40
START = PAD = WORDS
END = 0

VARIED: dict[str, Any] = {"no_repeat_ngram_size": 1}
"""A model with random weights says one thing again and again, and then mistakes would not show."""

Model = tuple[MarianSsruForTranslation, Weights]

SOURCE = [5, 17, 2, 39, 8, 8, 21, 0]
TARGET = [START, 7, 30, 2, 2, 11]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Model:
    """In float64, which holds the file's float32 weights exactly; and what the file holds."""
    path = tmp_path_factory.mktemp("marian") / "model.bin"
    held = write(path, random_weights(WORDS))
    return read_model(path).double(), held


def defined(held: Weights, source: list[int], target: list[int]) -> tuple[Any, Any]:
    """Logits [n, words] and the last layer's cross-attention [h, n, m], from the formulas alone, token by token."""
    w = {name: value.astype(np.float64) for name, value in held.items()}
    half = WIDTH // 2
    rates = np.array([10000 ** (-i / (half - 1)) for i in range(half)])

    def embedded(tokens: list[int]) -> Any:
        rows = []
        for at, token in enumerate(tokens):
            word = w["Wemb"][token] * WIDTH**0.5 if token != START else np.zeros(WIDTH)
            rows.append(word + np.concatenate([np.sin(at * rates), np.cos(at * rates)]))
        return np.array(rows)

    def norm(name: str, x: Any) -> Any:
        mean, variance = x.mean(-1, keepdims=True), x.var(-1, keepdims=True)
        return (x - mean) / np.sqrt(variance + 1e-6) * w[f"{name}_ln_scale"] + w[f"{name}_ln_bias"]

    def attention(name: str, x: Any, y: Any) -> tuple[Any, Any]:
        q, k, v = (
            (side @ w[f"{name}_W{letter}"] + w[f"{name}_b{letter}"]).reshape(len(side), HEADS, -1).transpose(1, 0, 2)
            for letter, side in (("q", x), ("k", y), ("v", y))
        )
        e = np.exp(q @ k.transpose(0, 2, 1) / (WIDTH // HEADS) ** 0.5)
        p = e / e.sum(-1, keepdims=True)
        joined = (p @ v).transpose(1, 0, 2).reshape(len(x), WIDTH)
        return norm(f"{name}_Wo", x + joined @ w[f"{name}_Wo"] + w[f"{name}_bo"]), p

    def feed_forward(name: str, x: Any) -> Any:
        inner = np.maximum(x @ w[f"{name}_ffn_W1"] + w[f"{name}_ffn_b1"], 0)
        return norm(f"{name}_ffn_ffn", x + inner @ w[f"{name}_ffn_W2"] + w[f"{name}_ffn_b2"])

    x = embedded(source)
    for i in range(1, ENCODER + 1):
        x, _ = attention(f"encoder_l{i}_self", x, x)
        x = feed_forward(f"encoder_l{i}", x)
    y, p = embedded(target), None
    for i in range(1, DECODER + 1):
        name = f"decoder_l{i}"
        cell, out = np.zeros(WIDTH), []
        for h in y:
            f = 1 / (1 + np.exp(-(h @ w[f"{name}_rnn_Wf"] + w[f"{name}_rnn_bf"][0])))
            cell = f * cell + (1 - f) * (h @ w[f"{name}_rnn_W"])
            out.append(np.maximum(cell, 0))
        y = norm(f"{name}_rnn_ffn", y + np.array(out))
        y, p = attention(f"{name}_context", y, x)
        y = feed_forward(name, y)
    return y @ w["Wemb"].T + w["decoder_ff_logit_out_b"], p


def ids(*rows: list[int]) -> Tensor:
    return torch.tensor(rows)


def batch() -> tuple[Tensor, Tensor]:
    """Three sources of different lengths, padded on the right, and their mask."""
    rows = [SOURCE, [9, 33, 0], [14, 2, 25, 31, 0]]
    longest = max(map(len, rows))
    tokens = ids(*[row + [PAD] * (longest - len(row)) for row in rows])
    return tokens, (tokens != PAD).long()


@torch.no_grad()
def logits(model: MarianSsruForTranslation, source: Tensor, target: Tensor, mask: Tensor | None = None) -> Tensor:
    return model(source, mask, decoder_input_ids=target).logits


@pytest.mark.parametrize("implementation", ["eager", "sdpa", "sightline"])
def test_logits_are_those_of_the_formulas(model: Model, implementation: str) -> None:
    import sightline.integrations.transformers  # noqa: F401  (registers "sightline")

    network, held = model
    expected, _ = defined(held, SOURCE, TARGET)
    network.set_attn_implementation(implementation)
    try:
        found = logits(network, ids(SOURCE), ids(TARGET))[0].numpy()
    finally:
        network.set_attn_implementation("sdpa")
    np.testing.assert_allclose(found[:, :WORDS], expected, rtol=1e-9, atol=1e-9)
    assert np.isneginf(found[:, PAD]).all()
    assert np.abs(expected - expected[:, :1]).max() > 1  # not flat: a wrong formula would show


def test_float32_agrees_with_float64_to_its_own_digits(model: Model, tmp_path: Path) -> None:
    write(tmp_path / "model.bin", random_weights(WORDS))
    exact, _ = defined(model[1], SOURCE, TARGET)
    found = logits(read_model(tmp_path / "model.bin"), ids(SOURCE), ids(TARGET))[0, :, :WORDS].numpy()
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, exact, rtol=0, atol=3e-5 * np.abs(exact).max())


def test_padding_changes_nothing(model: Model) -> None:
    network, _ = model
    source, mask = batch()
    target = ids(TARGET, TARGET, TARGET)
    together = logits(network, source, target, mask)
    for row, real in enumerate(mask.sum(1).tolist()):
        alone = logits(network, source[row : row + 1, :real], ids(TARGET))
        torch.testing.assert_close(together[row : row + 1], alone, rtol=1e-10, atol=1e-10)
    unmasked = logits(network, source, target)
    assert not torch.allclose(unmasked[1], together[1], atol=1e-3)  # without its mask, padding would be read


def test_step_by_step_is_all_at_once(model: Model) -> None:
    network, _ = model
    source, mask = batch()
    target = ids(TARGET, TARGET[::-1], [START, 1, 1, 9, 9, 0])
    whole = logits(network, source, target, mask)
    with torch.no_grad():
        encoded = network.encoder(source, mask)
        cache: DecoderCache | None = None
        for start, stop in ((0, 1), (1, 2), (2, 5), (5, 6)):
            step = network(
                attention_mask=mask,
                encoder_outputs=encoded,
                decoder_input_ids=target[:, start:stop],
                past_key_values=cache,
                use_cache=True,
            )
            torch.testing.assert_close(step.logits, whole[:, start:stop], rtol=1e-10, atol=1e-10)
            cache = step.past_key_values
            assert cache is not None
            assert cache.get_seq_length() == stop


def test_greedy_generation_takes_the_likeliest_token_each_time(model: Model) -> None:
    network, held = model
    tokens = [START]
    while tokens[-1] != END and len(tokens) < 13:
        last = defined(held, SOURCE, tokens)[0][-1]
        last[[token for token in tokens if token != START]] = -np.inf
        tokens.append(int(last.argmax()))
    found = network.generate(ids(SOURCE), max_new_tokens=12, num_beams=1, do_sample=False, **VARIED)
    assert found[0].tolist() == tokens
    assert len(tokens) > 6


@pytest.mark.parametrize("beams", [2, 5])
def test_beams_keep_their_own_state(model: Model, beams: int, monkeypatch: pytest.MonkeyPatch) -> None:
    network, _ = model
    source, mask = batch()
    options: dict[str, Any] = {"max_new_tokens": 10, "num_beams": beams, "do_sample": False} | VARIED
    expected = network.generate(source, attention_mask=mask, use_cache=False, **options)
    assert torch.equal(network.generate(source, attention_mask=mask, **options), expected)
    monkeypatch.setattr(DecoderCache, "reorder_cache", lambda self, beam_idx: None)
    assert not torch.equal(network.generate(source, attention_mask=mask, **options), expected)


def test_a_recorded_model_shows_encoder_and_cross_attention_exactly(model: Model) -> None:
    network, held = model
    with torch.no_grad(), record(network, {"all": Rows(torch.arange(len(TARGET))), "peak": Peak()}) as seen:
        network(ids(SOURCE), decoder_input_ids=ids(TARGET))
    assert list(seen) == [
        *(f"encoder.layers.{i}.self_attn" for i in range(ENCODER)),
        *(f"decoder.layers.{i}.encoder_attn" for i in range(DECODER)),
    ]
    _, weights = defined(held, SOURCE, TARGET)
    (last,) = seen[f"decoder.layers.{DECODER - 1}.encoder_attn"]
    np.testing.assert_allclose(last["all"][0].numpy(), weights, rtol=1e-9, atol=1e-12)
    assert torch.equal(last["peak"].key[0], torch.from_numpy(weights.argmax(-1)))
    assert last.key_positions == range(len(SOURCE))
    network.set_attn_implementation("eager")
    outputs = network(ids(SOURCE), decoder_input_ids=ids(TARGET), output_attentions=True)
    network.set_attn_implementation("sdpa")
    assert len(outputs.encoder_attentions) == ENCODER
    torch.testing.assert_close(last["all"], outputs.cross_attentions[-1].detach(), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("options", [{}, {"num_beams": 3}])
def test_a_recorded_model_generates_what_it_did(model: Model, options: dict[str, Any]) -> None:
    network, _ = model
    source, mask = batch()
    options = {"max_new_tokens": 6, "min_new_tokens": 6, "do_sample": False} | VARIED | options
    expected = network.generate(source, attention_mask=mask, **options)
    with record(network, {"peak": Peak()}) as seen:
        assert torch.equal(network.generate(source, attention_mask=mask, **options), expected)
    assert [len(calls) for calls in seen.values()] == [1] * ENCODER + [6] * DECODER
    for call in seen[f"decoder.layers.{DECODER - 1}.encoder_attn"]:
        rows = call["peak"].key.shape[0] // 3
        ends = mask.sum(1).repeat_interleave(rows)
        assert bool((call["peak"].key[..., 0] < ends[:, None]).all())  # never at padding


def test_a_saved_model_comes_back_the_same(model: Model, tmp_path: Path) -> None:
    network, _ = model
    network.save_pretrained(tmp_path)
    again = AutoModelForSeq2SeqLM.from_pretrained(tmp_path, dtype="auto")
    assert isinstance(again, MarianSsruForTranslation)
    for name, tensor in network.state_dict().items():
        assert torch.equal(again.state_dict()[name], tensor), name
    same = [logits(either, ids(SOURCE), ids(TARGET)) for either in (again, network)]
    torch.testing.assert_close(*same, rtol=1e-12, atol=1e-12)  # kernels differ by how tensors lie in memory
    assert again.shared.weight is again.encoder.embed_tokens.weight is again.decoder.embed_tokens.weight


def test_labels_give_the_loss_and_finite_gradients(model: Model) -> None:
    network, held = model
    labels = [*TARGET[1:], END]
    expected = 0.0
    for row, label in zip(defined(held, SOURCE, TARGET)[0], labels, strict=True):
        expected -= float(row[label] - np.log(np.exp(row - row.max()).sum()) - row.max()) / len(labels)
    found = network(ids(SOURCE), labels=ids([*labels, -100, -100]))
    np.testing.assert_allclose(found.loss.item(), expected, rtol=1e-9)
    found.loss.backward()
    assert all(p.grad is not None and bool(p.grad.isfinite().all()) for p in network.parameters())
    network.zero_grad()


def test_what_a_recurrent_decoder_cannot_take_is_refused(model: Model) -> None:
    network, _ = model
    with pytest.raises(Unsupported, match=r"decoder_attention_mask; its decoder is recurrent.*Pad targets"):
        network(ids(SOURCE), decoder_input_ids=ids(TARGET), decoder_attention_mask=torch.ones(1, 6))
    with pytest.raises(Unsupported, match="given a DynamicCache as past_key_values"):
        network(ids(SOURCE), decoder_input_ids=ids(TARGET), past_key_values=DynamicCache())
