"""Methods against plain PyTorch and eager attention, on a tiny model with random weights."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from sightline.bench.focus import scores
from sightline.bench.focus.asked import Asked
from sightline.bench.focus.item import Item
from sightline.bench.focus.study import context_cite, examine
from sightline.bench.focus.templates import made
from sightline.evidence import fitted_drops, owners
from tiny_model import tiny_config, tiny_tokenizer

TOKENIZER = tiny_tokenizer()
ITEM = Item("A", "eggs", ("Fares are paid in eggs.", "Goats go free.", "It leaves at six.", "Was it wise?"), "What?")


@pytest.fixture(scope="module")
def asked() -> Asked:
    torch.manual_seed(0)
    config = tiny_config(len(TOKENIZER))
    model = AutoModelForCausalLM.from_config(config, attn_implementation="eager", dtype=torch.float64).eval()
    return Asked(model, TOKENIZER, ITEM, limit=6)


def plain(asked: Asked, prompt: tuple[int, ...], **options: Any) -> tuple[torch.Tensor, Any]:
    """log p(answer | prompt) in one forward pass without a cache, and all that the pass returned."""
    ids = torch.tensor([[*prompt, *asked.answer[:-1]]])
    output = asked.network(ids, use_cache=False, **options)
    log_probs = torch.log_softmax(output.logits[0, len(prompt) - 1 :], -1)
    return log_probs.gather(1, torch.tensor(asked.answer)[:, None]).sum(), output


def summed(asked: Asked, by_token: torch.Tensor) -> list[float]:
    found = [0.0] * len(asked.spans)
    for weight, owner in zip(by_token.tolist(), owners(asked.prompt.places, asked.spans), strict=True):
        if owner is not None:
            found[owner] += weight
    return found


def test_log_probabilities_without_sentences_equal_plain_forward_passes(asked: Asked) -> None:
    removed = [(), (0,), (3,), (1, 2), (0, 1, 2, 3), (0, 3), (1,)]
    with torch.no_grad():
        expected = [float(plain(asked, asked.lacking(numbers))[0]) for numbers in removed]
    assert asked.without(removed) == pytest.approx(expected, abs=1e-5)
    assert asked.drops([(0,)]) == pytest.approx([expected[0] - expected[1]], abs=1e-5)
    assert len(set(expected)) == len(expected)
    assert asked.lacking((1,)) == asked.prompt.without(asked.spans[1])
    assert asked.lacking(()) == asked.prompt.tokens


def test_attention_of_heads_is_that_of_eager_attention(asked: Asked) -> None:
    p = len(asked.prompt.tokens)
    with torch.no_grad():
        _, output = plain(asked, asked.prompt.tokens, output_attentions=True)
    rows = torch.cat([weights[0, :, p - 1 :, :p].sum(1) for weights in output.attentions])
    found, _ = scores.attention_of_heads(asked)
    expected = torch.tensor([summed(asked, head) for head in rows])
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-4)


def test_gradients_are_those_of_a_plain_backward(asked: Asked) -> None:
    p = len(asked.prompt.tokens)
    ids = torch.tensor([[*asked.prompt.tokens, *asked.answer[:-1]]])
    leaf = asked.network.get_input_embeddings()(ids).detach().requires_grad_(True)
    logits = asked.network(inputs_embeds=leaf, use_cache=False).logits[0, p - 1 :]
    torch.log_softmax(logits, -1).gather(1, torch.tensor(asked.answer)[:, None]).sum().backward()
    gradient, embedded = leaf.grad[0, :p], leaf.detach()[0, :p]
    found, _ = scores.gradients(asked)
    assert found["gradient norm"] == pytest.approx(summed(asked, gradient.norm(dim=-1)), rel=1e-3)
    assert found["gradient × input"] == pytest.approx(summed(asked, (gradient * embedded).sum(-1).abs()), rel=1e-3)


def test_rollout_is_the_product_of_matrices(asked: Asked) -> None:
    p, t = len(asked.prompt.tokens), len(asked.answer)
    with torch.no_grad():
        _, output = plain(asked, asked.prompt.tokens, output_attentions=True)
    product = torch.eye(p + t - 1, dtype=torch.float64)
    for weights in output.attentions:
        product = (weights[0].double().mean(0) + torch.eye(p + t - 1)) / 2 @ product
    found, _ = scores.rolled_out(asked)
    assert found == pytest.approx(summed(asked, product[p - 1 :].mean(0)[:p]), rel=1e-3)


def test_bm25_by_hand() -> None:
    # Two sentences of two words each, so lengths do not matter: f / (f + k₁) = 1 / 2.5 for f = 1; asked for once.
    found = scores.shared_words("The goat, the goat", ["goat eats", "nothing here"])
    once = math.log(1 + (2 - 1 + 0.5) / (1 + 0.5))
    assert found == pytest.approx([once / 2.5, 0])
    assert (
        scores.shared_words("egg", ["egg", "egg egg egg egg"])[1]
        > scores.shared_words("egg", ["egg", "a b c egg"])[1]
        > 0
    )


def additive(weights: list[float]) -> list[tuple[list[int], float]]:
    """Every set of sentences, and a log-probability that is a sum over those kept."""
    n = len(weights)
    sets = [[i for i in range(n) if bits >> i & 1] for bits in range(2**n)]
    return [(kept, -9 + sum(weights[i] for i in kept)) for kept in sets]


def test_context_cite_puts_additive_weights_in_order() -> None:
    found = context_cite(additive([1.0, 3.0, 0.0, -2.0]), 4)
    assert sorted(range(4), key=lambda i: -found[i]) == [1, 0, 2, 3]
    assert found[2] == pytest.approx(0, abs=0.05)


@pytest.mark.parametrize("forwards", [3, 8, 16])
def test_fitted_drops_are_the_ridge_on_plain_forward_passes(asked: Asked, forwards: int) -> None:
    removed: list[tuple[int, ...]] = []

    def without(spans: Any) -> tuple[int, ...]:
        removed.append(tuple(asked.spans.index(span) for span in spans))
        return asked.lacking(removed[-1])

    found = fitted_drops(asked.held(), asked.prompt.tokens, asked.spans, asked.answer, without, forwards=forwards)
    assert len(removed) == forwards
    assert (forwards == 3) == (removed[:4] != [(0,), (1,), (2,), (3,)])
    with torch.no_grad():
        y = [float(plain(asked, asked.lacking(numbers))[0]) for numbers in [(), *removed]]
    x = torch.tensor([[i not in numbers for i in range(4)] for numbers in [(), *removed]]).double()
    # The definition as one least-squares problem, with the penalty as rows and the constant as a column.
    left = torch.cat([torch.cat([x, torch.ones(len(x), 1)], 1), torch.eye(4, 5) * 0.1**0.5])
    right = torch.cat([torch.tensor(y, dtype=torch.float64), torch.zeros(4)])
    expected = torch.linalg.lstsq(left.double(), right.double()[:, None]).solution[:4, 0]
    assert found == pytest.approx(expected.tolist(), abs=1e-4)


def test_a_thorough_row_has_every_method_and_its_cost(asked: Asked) -> None:
    row = examine(asked.network, TOKENIZER, made("A", 1, 0, length=6)[0], thorough=True)
    assert row is not None
    n = 6
    assert {len(found) for found in row["scores"].values()} == {n}
    assert {"BM25", "relevance", "direct drop", "rollout", "gradient norm", "ContextCite-32"} <= set(row["scores"])
    drops = row["scores"]["leave-one-out"]
    assert [drop for _, drop in row["shown"]] == pytest.approx([drops[i] for i, _ in row["shown"]], abs=1e-4)
    assert [i for i, _ in row["shown"]] == sorted((i for i, _ in row["ranked"][:3]), key=lambda i: -drops[i])
    steps = {stage: steps for stage, (steps, _) in row["costs"].items()}
    p, t = row["tokens"]
    assert steps["prefill"] == p - 1
    assert steps["ranking"] == t * n
    assert steps["all told"] < t * n + 3 * (p + t)
