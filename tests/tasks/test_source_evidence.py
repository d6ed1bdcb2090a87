"""Where a model with an encoder looked: against eager cross-attention with its gradients, and its masks."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from transformers import PreTrainedModel

from integrations.families import build
from sightline.errors import ModelError, ShapeError, SpecError
from sightline.evidence import source_direct_drops, source_relevance
from sightline.integrations.marian import MarianSsruConfig, MarianSsruForTranslation

SOURCE = [7, 21, 9, 33, 12, 5, 17, 2]
PRODUCED = [11, 30, 6, 19, 8, 2]
EQUALLY_LONG = [11, 30, 6, 19, 8, 24, 13, 2]


def student() -> PreTrainedModel:
    config = MarianSsruConfig(
        vocab_size=48, d_model=32, encoder_layers=2, decoder_layers=2, encoder_attention_heads=4,
        decoder_attention_heads=4, encoder_ffn_dim=48, decoder_ffn_dim=48, pad_token_id=0, eos_token_id=2,
        decoder_start_token_id=1, attn_implementation="eager",
    )  # fmt: skip
    return MarianSsruForTranslation(config)


@pytest.fixture(params=["bart", "t5", "marian's student"])
def model(request: pytest.FixtureRequest) -> Any:
    torch.manual_seed(3)
    model = student() if "student" in request.param else build(request.param)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.ndim == 2 and "embed" not in name and "shared" not in name:
                parameter.normal_(0, 0.3)  # larger than usual, so that attention is not flat
    if model.generation_config.decoder_start_token_id is None:
        model.generation_config.decoder_start_token_id = 1
    return model.double().eval()


def run(model: Any, produced: list[int], **given: Any) -> Any:
    start = model.generation_config.decoder_start_token_id
    return model(
        input_ids=torch.tensor([SOURCE]),
        decoder_input_ids=torch.tensor([[start, *produced[:-1]]]),
        use_cache=False,
        **given,
    )


def log_probs(logits: torch.Tensor, produced: list[int]) -> torch.Tensor:
    return torch.log_softmax(logits[0], -1).gather(1, torch.tensor(produced)[:, None])[:, 0]


@pytest.mark.parametrize("produced", [PRODUCED, EQUALLY_LONG])
@pytest.mark.parametrize("of", [None, [1, 2]])
def test_relevance_is_the_dense_definition(model: Any, produced: list[int], of: list[int] | None) -> None:
    model.set_attn_implementation("eager")
    output = run(model, produced, output_attentions=True)
    for weights in output.cross_attentions:
        weights.retain_grad()
    total = log_probs(output.logits, produced)[of or slice(None)].sum()
    total.backward()
    dense = sum((w.detach() * w.grad)[0].clamp_min(0).sum((0, 1)) for w in output.cross_attentions)

    weights, log_prob = source_relevance(model, SOURCE, produced, of=of)
    assert log_prob == pytest.approx(total.item(), abs=1e-4)
    assert float(dense.max()) > 1e-4
    torch.testing.assert_close(weights, dense.double(), rtol=1e-4, atol=1e-4 * float(dense.max()))


@pytest.mark.parametrize("produced", [PRODUCED, EQUALLY_LONG])
def test_direct_drops_hide_source_tokens_from_cross_attention_alone(
    model: Any, produced: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    hidden = torch.eye(len(SOURCE), dtype=torch.bool)
    hidden[2, :4] = True
    start = model.generation_config.decoder_start_token_id
    with torch.no_grad():
        states = model.get_encoder()(input_ids=torch.tensor([SOURCE]))
        expected = []
        for row in (torch.zeros(len(SOURCE), dtype=torch.bool), *hidden):
            logits = model(
                encoder_outputs=states,
                attention_mask=(~row)[None].long(),  # over the source, which the encoder has read already
                decoder_input_ids=torch.tensor([[start, *produced[:-1]]]),
                use_cache=False,
            ).logits
            expected.append(float(log_probs(logits, produced).sum()))
    drops = source_direct_drops(model, SOURCE, hidden, produced)
    assert drops == pytest.approx([expected[0] - other for other in expected[1:]], abs=1e-4)
    assert max(map(abs, drops)) > 1e-3
    assert source_direct_drops(model, SOURCE, torch.zeros(1, len(SOURCE), dtype=torch.bool), produced) == [0]
    monkeypatch.setattr("sightline.evidence._cross._ROWS", 1)
    assert source_direct_drops(model, SOURCE, hidden, produced) == pytest.approx(drops, abs=1e-6)


def test_nothing_stays_changed(model: Any) -> None:
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    implementation = model.config._attn_implementation
    with torch.no_grad():
        logits = run(model, PRODUCED).logits
    source_relevance(model, SOURCE, PRODUCED)
    source_direct_drops(model, SOURCE, torch.ones(1, len(SOURCE), dtype=torch.bool), PRODUCED)
    assert model.config._attn_implementation == implementation
    assert all(p.grad is None and p.requires_grad and torch.equal(p, before[n]) for n, p in model.named_parameters())
    with torch.no_grad():
        assert torch.equal(run(model, PRODUCED).logits, logits)


def test_what_makes_no_sense_is_refused(model: Any) -> None:
    with pytest.raises(ModelError, match="it has no encoder"):
        source_relevance(build("llama"), SOURCE, PRODUCED)
    with pytest.raises(SpecError, match="8 tokens and 0 were produced"):
        source_relevance(model, SOURCE, [])
    with pytest.raises(SpecError, match=r"of=\[6\] must name positions of the 6"):
        source_relevance(model, SOURCE, PRODUCED, of=[6])
    with pytest.raises(ShapeError, match="over the 8 tokens of the source"):
        source_direct_drops(model, SOURCE, torch.ones(1, 3, dtype=torch.bool), PRODUCED)
    model.generation_config.decoder_start_token_id = model.config.decoder_start_token_id = None
    with pytest.raises(ModelError, match="which token decoding starts from"):
        source_relevance(model, SOURCE, PRODUCED)
