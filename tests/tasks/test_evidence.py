"""Relevance against its dense definition through eager attention, drops against plain forward passes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import (
    AutoModelForCausalLM,
    Gemma2Config,
    LlamaConfig,
    MistralConfig,
    PreTrainedConfig,
    Qwen3Config,
)

from sightline.errors import ShapeError
from sightline.evidence import (
    direct_drops,
    document_drop,
    find_evidence,
    key_relevance,
    measured_drop,
    ranked,
    span_relevance,
)
from sightline.integrations.transformers import attached, hiding
from sightline.reader import Reader
from sightline.sentences import Span, sentences
from sightline.tasks._prompt import Prompt
from tiny_model import DOCUMENT, tiny_config, tiny_tokenizer

TOKENIZER = tiny_tokenizer()
PROMPT = Prompt(DOCUMENT, "How is the fare paid?", TOKENIZER)
ANSWER = TOKENIZER("Fares are paid in eggs.")["input_ids"]
SPANS = sentences(DOCUMENT)
QUESTION = (PROMPT.tokens, PROMPT.places, SPANS, ANSWER, PROMPT.without)
ROWS = range(len(PROMPT.tokens) - 1, len(PROMPT.tokens) + len(ANSWER) - 1)
"""The rows that predict the answer's tokens."""

TOLERANCE = 1e-4
"""The models are float64, but Transformers computes eager softmax, norms and rotary angles in float32 even then."""

_small = {k: v for k, v in tiny_config(len(TOKENIZER)).to_dict().items() if k in LlamaConfig().to_dict()}
for _name in ("model_type", "architectures", "transformers_version", "rope_parameters"):
    _small.pop(_name, None)

CONFIGS = {
    "llama": LlamaConfig(**_small),
    "qwen3": Qwen3Config(**_small | {"head_dim": 8}),
    "mistral with a sliding window": MistralConfig(**_small | {"sliding_window": 100}),
    "gemma2 with a softcap": Gemma2Config(
        **_small | {"head_dim": 8, "query_pre_attn_scalar": 8, "sliding_window": 100, "attn_logit_softcapping": 2.0}
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


def test_the_most_relevant_are_measured_and_shares_are_of_the_direct_drops_on_the_list() -> None:
    model = made(CONFIGS["llama"])
    weights, _ = key_relevance(read(model), PROMPT.tokens, ANSWER)
    scores = span_relevance(weights, PROMPT.places, SPANS)
    listed = sorted(range(len(SPANS)), key=lambda i: -scores[i])[:3]
    direct = direct_drops(read(model), PROMPT.tokens, PROMPT.places, SPANS, ANSWER)
    whole = sum(max(0, direct[i]) for i in listed)
    found = find_evidence(read(model), *QUESTION, top=3, shortlist=3)
    assert {e.span for e in found} == {SPANS[i] for i in listed}
    for evidence in found:
        assert evidence.relevance == pytest.approx(max(0, direct[SPANS.index(evidence.span)]) / whole)
    assert sum(e.relevance for e in found) == pytest.approx(1)


@pytest.mark.parametrize(("clear", "measured"), [(-1e9, 2), (1e9, 5)])
def test_more_are_measured_where_none_of_the_first_is_clear(
    clear: float, measured: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = made(CONFIGS["llama"])
    monkeypatch.setattr("sightline.evidence.CLEAR", clear)
    baseline = plain_log_prob(model, PROMPT.tokens)
    drop = {span: baseline - plain_log_prob(model, PROMPT.without(span)) for span in SPANS}
    direct = direct_drops(read(model), PROMPT.tokens, PROMPT.places, SPANS, ANSWER)
    listed = sorted(range(len(SPANS)), key=lambda i: -direct[i])[:measured]
    best = sorted((drop[SPANS[i]] for i in listed), reverse=True)[:2]
    found = find_evidence(read(model), *QUESTION, top=2, second_round=3)
    assert [e.drop for e in found] == pytest.approx(best, abs=TOLERANCE)
    assert [drop[e.span] for e in found] == pytest.approx(best, abs=TOLERANCE)


def test_no_gradient_is_taken_where_every_span_fits_on_the_short_list(monkeypatch: pytest.MonkeyPatch) -> None:
    model = made(CONFIGS["llama"])
    reader, asked = read(model), QUESTION[:-1]
    relevant = ranked(reader, *asked, shortlist=len(SPANS) - 1)
    monkeypatch.setattr("sightline.evidence._ranking.key_relevance", None)
    ranking = ranked(reader, *asked, shortlist=len(SPANS))
    direct = direct_drops(reader, PROMPT.tokens, PROMPT.places, SPANS, ANSWER)
    assert ranking.direct == pytest.approx(dict(enumerate(direct)), abs=TOLERANCE)
    assert list(ranking.direct.values()) == sorted(ranking.direct.values(), reverse=True)
    assert ranking.log_prob == pytest.approx(plain_log_prob(model, PROMPT.tokens), abs=TOLERANCE)
    # With one place too few the gradient decides who has to go, and the rest keep their drops.
    assert len(relevant.direct) == len(SPANS) - 1
    assert relevant.direct == pytest.approx({i: direct[i] for i in relevant.direct}, abs=TOLERANCE)
    with pytest.raises(TypeError, match="NoneType"):
        ranked(reader, *asked, shortlist=len(SPANS) - 1)


def keys_of(span: Span) -> list[int]:
    """Tokens of the prompt of which the span holds more than half."""
    return [
        j
        for j, place in enumerate(PROMPT.places)
        if place is not None and 2 * (min(place.end, span.end) - max(place.start, span.start)) > place.end - place.start
    ]


def dense_log_prob(model: Any, keys: list[int], rows: range = ROWS) -> float:
    """log p(answer) by eager attention with all its masks in four dimensions, in which `rows` may not see `keys`."""
    n = len(PROMPT.tokens) + len(ANSWER)
    i, j = torch.arange(n)[:, None], torch.arange(n)[None]
    hidden = torch.zeros(n, n, dtype=torch.bool)
    hidden[torch.tensor(rows)[:, None], torch.tensor(keys, dtype=torch.int64)[None]] = True
    window = getattr(model.config, "sliding_window", None) or n
    masks = {
        kind: torch.zeros(1, 1, n, n, dtype=torch.float64).masked_fill(~admitted | hidden, -torch.inf)
        for kind, admitted in (("full_attention", j <= i), ("sliding_attention", (j <= i) & (i - j < window)))
    }
    given: Any = masks if model.config.model_type == "gemma2" else masks["sliding_attention"]
    with torch.no_grad():
        ids = torch.tensor([[*PROMPT.tokens, *ANSWER]])
        logits = model(ids, attention_mask=given, use_cache=False).logits[0, len(PROMPT.tokens) - 1 : -1]
    return float(torch.log_softmax(logits, -1).gather(1, torch.tensor(ANSWER)[:, None]).sum())


def test_direct_drops_are_the_dense_definition(model: Any) -> None:
    baseline = dense_log_prob(model, [])
    assert baseline == pytest.approx(plain_log_prob(model, PROMPT.tokens), abs=TOLERANCE), "the reference's own masks"
    drops = direct_drops(read(model), PROMPT.tokens, PROMPT.places, SPANS, ANSWER)
    expected = [baseline - dense_log_prob(model, keys_of(span)) for span in SPANS]
    assert drops == pytest.approx(expected, abs=TOLERANCE)
    # The negative control: hiding the same keys from every row that comes later is another number.
    after = range(min(ROWS) - 5, max(ROWS) + 1)
    others = [baseline - dense_log_prob(model, keys_of(span), after) for span in SPANS]
    assert max(abs(d - o) for d, o in zip(drops, others, strict=True)) > 100 * TOLERANCE


def test_the_document_drop_hides_every_key_of_the_document_and_no_other(model: Any) -> None:
    inside = [j for j, place in enumerate(PROMPT.places) if place is not None]
    expected = dense_log_prob(model, []) - dense_log_prob(model, inside)
    drop = document_drop(read(model), PROMPT.tokens, PROMPT.places, ANSWER)
    assert drop == pytest.approx(expected, abs=TOLERANCE)
    nowhere = [None] * len(PROMPT.places)
    assert document_drop(read(model), PROMPT.tokens, nowhere, ANSWER) == 0


def test_many_spans_at_once_are_as_one_by_one_and_the_reader_holds_what_it_held(
    model: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    reader = read(model)
    before = [(layer.keys.clone(), layer.values.clone()) for layer in reader._cache.layers]
    sizes: list[int] = []
    lent = reader._lent
    monkeypatch.setattr(reader, "_lent", lambda batch: sizes.append(batch) or lent(batch))
    together = direct_drops(reader, PROMPT.tokens, PROMPT.places, SPANS, ANSWER)
    assert max(sizes) > 1
    sizes.clear()
    monkeypatch.setattr("sightline.reader._LENT", 1)
    one_by_one = direct_drops(reader, PROMPT.tokens, PROMPT.places, SPANS, ANSWER)
    assert sizes == [1] * (len(SPANS) + 1)
    assert together == pytest.approx(one_by_one, abs=TOLERANCE)
    assert direct_drops(reader, PROMPT.tokens, PROMPT.places, SPANS, ANSWER, of=[4, 1]) == pytest.approx(
        [one_by_one[4], one_by_one[1]], abs=TOLERANCE
    )
    assert direct_drops(reader, PROMPT.tokens, PROMPT.places, SPANS, ANSWER, of=[]) == []
    for layer, (keys, values) in zip(reader._cache.layers, before, strict=True):
        assert torch.equal(layer.keys, keys)
        assert torch.equal(layer.values, values)
    assert reader.log_prob(PROMPT.tokens[-1:], ANSWER) == pytest.approx(
        plain_log_prob(model, PROMPT.tokens), abs=TOLERANCE
    )


def test_a_log_probability_that_is_known_is_not_computed_again(monkeypatch: pytest.MonkeyPatch) -> None:
    reader = read(made(CONFIGS["llama"]))
    asked = (PROMPT.tokens, PROMPT.places, SPANS, ANSWER)
    wanted = direct_drops(reader, *asked)
    known = reader.log_prob(PROMPT.tokens[-1:], ANSWER)
    rows: list[int] = []
    hiding_keys = Reader.log_probs_hiding

    def counted(self: Reader, last: int, answer: Sequence[int], hidden: torch.Tensor) -> list[float]:
        rows.append(len(hidden))
        return hiding_keys(self, last, answer, hidden)

    monkeypatch.setattr(Reader, "log_probs_hiding", counted)
    assert direct_drops(reader, *asked, log_prob=known) == pytest.approx(wanted, abs=TOLERANCE)
    assert direct_drops(reader, *asked, of=[], log_prob=known) == []
    assert document_drop(reader, PROMPT.tokens, PROMPT.places, ANSWER, log_prob=known) > 0
    assert rows == [len(SPANS), 0, 1]
    shifted = direct_drops(reader, *asked, log_prob=known + 1)
    assert shifted == pytest.approx([drop + 1 for drop in wanted], abs=TOLERANCE)


def test_hiding_ends_with_its_block_also_after_an_exception() -> None:
    model = made(CONFIGS["llama"])
    ids = torch.tensor([PROMPT.tokens])
    hidden = torch.ones(1, 20, dtype=torch.bool)
    with torch.no_grad(), attached(model):
        expected = model(ids).logits
        with hiding(model, hidden):
            assert not torch.allclose(model(ids).logits, expected)
            other = made(CONFIGS["llama"])
            with attached(other):
                assert torch.equal(other(ids).logits, expected), "another model's calls are its own"
        with pytest.raises(ShapeError, match="hidden from 2 sequences; this call has 1"), hiding(model, hidden[[0, 0]]):
            model(ids)
        with hiding(model, hidden, "cross"):
            assert torch.equal(model(ids).logits, expected), "only calls of the kind that was named"
        assert torch.equal(model(ids).logits, expected)


def test_the_short_list_is_put_in_order_by_direct_drop_and_what_leads_it_is_measured() -> None:
    model = made(CONFIGS["llama"])
    weights, _ = key_relevance(read(model), PROMPT.tokens, ANSWER)
    scores = span_relevance(weights, PROMPT.places, SPANS)
    direct = direct_drops(read(model), PROMPT.tokens, PROMPT.places, SPANS, ANSWER)
    by_relevance = sorted(range(len(SPANS)), key=lambda i: -scores[i])
    chosen = set()
    for shortlist in (2, 4, len(SPANS)):
        expected = sorted(by_relevance[:shortlist], key=lambda i: -direct[i])[:2]
        found = find_evidence(read(model), *QUESTION, top=2, shortlist=shortlist)
        assert {e.span for e in found} == {SPANS[i] for i in expected}
        for evidence in found:
            assert evidence.direct_drop == pytest.approx(direct[SPANS.index(evidence.span)], abs=TOLERANCE)
        chosen.add(tuple(expected))
    assert len(chosen) > 1, "the length of the list matters here"


def test_hiding_needs_no_square_of_the_length() -> None:
    """One document four times as long takes about four times the memory, with much less than its matrix."""
    model = made(CONFIGS["llama"])

    def largest(copies: int) -> int:
        prompt = Prompt(DOCUMENT * copies, "How is the fare paid?", TOKENIZER)
        reader = Reader(model)
        reader.read(prompt.tokens[:-1])
        sizes = _Sizes()
        with sizes:
            direct_drops(reader, prompt.tokens, prompt.places, sentences(prompt.document)[:10], ANSWER)
        assert len(prompt.tokens) ** 2 > 2 * sizes.largest or copies == 4
        return sizes.largest

    small, large = largest(8), largest(32)
    assert large < 5 * small


class _Sizes(TorchDispatchMode):
    """Notes the most elements of any tensor made."""

    largest = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = func(*args, **kwargs or {})
        for tensor in made if isinstance(made, list | tuple) else [made]:
            if isinstance(tensor, torch.Tensor):
                self.largest = max(self.largest, tensor.numel())
        return made


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
