"""Relevance against its dense definition through eager attention, drops against plain forward passes."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    Gemma2Config,
    LlamaConfig,
    MistralConfig,
    PreTrainedConfig,
    Qwen3Config,
)

from sightline.evidence import find_evidence, key_relevance, measured_drop, span_relevance
from sightline.reader import Reader
from sightline.sentences import Span, sentences
from sightline.tasks._prompt import Prompt
from tiny_model import DOCUMENT, tiny_config, tiny_tokenizer

TOKENIZER = tiny_tokenizer()
PROMPT = Prompt(DOCUMENT, "How is the fare paid?", TOKENIZER)
ANSWER = TOKENIZER("Fares are paid in eggs.")["input_ids"]
SPANS = sentences(DOCUMENT)

TOLERANCE = 1e-4
"""The models are float64, but Transformers computes eager softmax, norms and rotary angles in float32 even then."""

_small = {k: v for k, v in tiny_config(len(TOKENIZER)).to_dict().items() if k in LlamaConfig().to_dict()}
for _name in ("model_type", "architectures", "transformers_version", "rope_parameters"):
    _small.pop(_name, None)

CONFIGS = {
    "llama": LlamaConfig(**_small),
    "qwen3": Qwen3Config(**_small | {"head_dim": 8}),
    "mistral with a sliding window": MistralConfig(**_small | {"sliding_window": 40}),
    "gemma2 with a softcap": Gemma2Config(
        **_small | {"head_dim": 8, "query_pre_attn_scalar": 8, "sliding_window": 40, "attn_logit_softcapping": 2.0}
    ),
}


def made(config: PreTrainedConfig) -> Any:
    torch.manual_seed(1)
    model = AutoModelForCausalLM.from_config(config, attn_implementation="eager", dtype=torch.float64)
    return model.eval()


@pytest.fixture(params=CONFIGS)
def model(request: pytest.FixtureRequest) -> Any:
    return made(CONFIGS[request.param])


def read(model: Any) -> Reader:
    reader = Reader(model)
    reader.read(PROMPT.tokens[:-1])
    return reader


def plain_log_prob(model: Any, prompt: tuple[int, ...]) -> float:
    with torch.no_grad():
        logits = model(torch.tensor([[*prompt, *ANSWER]]), use_cache=False).logits[0, len(prompt) - 1 : -1]
    return float(torch.log_softmax(logits, -1).gather(1, torch.tensor(ANSWER)[:, None]).sum())


def test_relevance_is_the_dense_definition_through_a_full_backward(model: Any) -> None:
    p, t = len(PROMPT.tokens), len(ANSWER)
    output = model(torch.tensor([[*PROMPT.tokens, *ANSWER]]), use_cache=False, output_attentions=True)
    for weights in output.attentions:
        weights.retain_grad()
    log_probs = torch.log_softmax(output.logits[0, p - 1 : p + t - 1], -1)
    total = log_probs.gather(1, torch.tensor(ANSWER)[:, None]).sum()
    total.backward()
    # O = P v, so the gradient of P_ij is dO_i · v_j.
    dense = sum((w.detach() * w.grad)[0, :, p - 1 : p + t - 1, :p].clamp_min(0).sum((0, 1)) for w in output.attentions)

    weights, log_prob = key_relevance(read(model), PROMPT.tokens, ANSWER)
    torch.testing.assert_close(weights, dense, rtol=TOLERANCE, atol=TOLERANCE * float(dense.max()))
    assert log_prob == pytest.approx(total.item(), abs=TOLERANCE)
    assert float(weights.max()) > 1e-4


def test_measured_drops_equal_plain_forward_passes(model: Any) -> None:
    reader = read(model)
    baseline = plain_log_prob(model, PROMPT.tokens)
    found = find_evidence(reader, PROMPT.tokens, PROMPT.places, SPANS, ANSWER, PROMPT.without, top=len(SPANS))
    assert {evidence.span for evidence in found} == set(SPANS)
    for evidence in found:
        expected = baseline - plain_log_prob(model, PROMPT.without(evidence.span))
        assert evidence.drop == pytest.approx(expected, abs=TOLERANCE)
    assert [e.drop for e in found] == sorted((e.drop for e in found), reverse=True)


def test_the_most_relevant_are_measured_and_shares_are_of_the_whole_document() -> None:
    model = made(CONFIGS["llama"])
    weights, _ = key_relevance(read(model), PROMPT.tokens, ANSWER)
    scores = span_relevance(weights, PROMPT.places, SPANS)
    ranked = sorted(range(len(SPANS)), key=lambda i: -scores[i])
    found = find_evidence(read(model), PROMPT.tokens, PROMPT.places, SPANS, ANSWER, PROMPT.without, top=3)
    assert {e.span for e in found} == {SPANS[i] for i in ranked[:3]}
    for evidence in found:
        assert evidence.relevance == pytest.approx(scores[SPANS.index(evidence.span)] / sum(scores))


def test_asking_for_more_spans_than_there_are_gives_them_all_and_none_gives_none() -> None:
    model = made(CONFIGS["llama"])
    common = (PROMPT.tokens, PROMPT.places, SPANS, ANSWER, PROMPT.without)
    assert len(find_evidence(read(model), *common, top=100)) == len(SPANS)
    assert find_evidence(read(model), *common, top=0) == []


def test_drops_are_right_where_sentences_repeat() -> None:
    """Taking out the first of two equal sentences leaves the same text as the second: they share a longer beginning."""
    model = made(CONFIGS["llama"])
    prompt = Prompt("Eggs. Eggs. Eggs. Goats go. Eggs.", "What?", TOKENIZER)
    reader = Reader(model)
    reader.read(prompt.tokens[:-1])
    baseline = plain_log_prob(model, prompt.tokens)
    spans = sentences(prompt.document)
    for span in [*spans, *reversed(spans)]:
        shortened = prompt.without(span)
        expected = baseline - plain_log_prob(model, shortened)
        assert measured_drop(reader, prompt.tokens, shortened, ANSWER, baseline) == pytest.approx(
            expected, abs=TOLERANCE
        )


def test_looking_for_evidence_leaves_the_model_as_it_was() -> None:
    model = made(CONFIGS["llama"])
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    find_evidence(read(model), PROMPT.tokens, PROMPT.places, SPANS, ANSWER, PROMPT.without, top=2)
    assert model.config._attn_implementation == "eager"
    for name, parameter in model.named_parameters():
        assert parameter.grad is None
        assert parameter.requires_grad
        assert torch.equal(parameter, before[name])


def test_progress_counts_tokens_and_never_goes_back() -> None:
    heard: list[tuple[int, int]] = []
    find_evidence(
        read(made(CONFIGS["llama"])),
        PROMPT.tokens,
        PROMPT.places,
        SPANS,
        ANSWER,
        PROMPT.without,
        top=3,
        progress=lambda done, total: heard.append((done, total)),
    )
    assert [done for done, _ in heard] == sorted(done for done, _ in heard)
    assert len({total for _, total in heard}) == 1
    assert heard[0][0] == 0
    assert heard[-1][0] == heard[-1][1]


def test_a_token_across_a_border_counts_for_the_span_that_holds_most_of_it() -> None:
    spans = [Span(0, 4), Span(5, 9), Span(12, 20)]
    places = [Span(0, 3), Span(3, 5), Span(4, 7), Span(9, 12), Span(10, 13), Span(2, 7), None, Span(0, 20)]
    weights = torch.tensor([1.0, 2, 4, 8, 16, 32, 64, 128])
    # (2, 7) holds two characters of each of the first two spans: the earlier one has it.
    assert span_relevance(weights, places, spans) == [1 + 2 + 32, 4, 16 + 128]
    assert span_relevance(weights, places, []) == []
