"""What each method says of each sentence: a number, larger where the answer is said to rest on it more."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from ...evidence import direct_drops, fitted_drops, key_relevance, owners, span_relevance, to_read
from ...functional import Observed
from ...integrations.transformers import listening
from ...matrix import AttentionMatrix
from ...recording import Call
from ...reductions import Received, Reduction
from ...relevance import rollout
from ...sentences import Span
from ...tasks.answering._search import bm25, terms
from .asked import Asked, Cost, timed

__all__ = ["attention_of_heads", "direct", "fitted", "gradients", "relevance", "rolled_out", "shared_words"]


def relevance(asked: Asked) -> tuple[list[float], Cost]:
    """Gradient-weighted attention at the answer's rows, its positive part: `key_relevance`."""
    reader = asked.held()

    def work() -> list[float]:
        weights, _ = key_relevance(reader, asked.prompt.tokens, asked.answer)
        return span_relevance(weights, asked.prompt.places, asked.spans)

    return timed(3 * len(asked.answer), work)


def direct(asked: Asked) -> tuple[list[float], Cost]:
    """The direct drop of every sentence: `direct_drops`."""
    reader, prompt = asked.held(), asked.prompt
    return timed(
        len(asked.answer) * len(asked.spans),
        lambda: direct_drops(reader, prompt.tokens, prompt.places, asked.spans, asked.answer, log_prob=asked.log_prob),
    )


def fitted(asked: Asked, forwards: int) -> tuple[list[float], Cost]:
    """Ridge on that many removals: `fitted_drops`."""
    reader, prompt = asked.held(), asked.prompt
    read = 0

    def without(spans: Collection[Span]) -> tuple[int, ...]:
        nonlocal read
        shortened = asked.lacking(asked.spans.index(span) for span in spans)
        read += to_read(prompt.tokens, shortened) + len(asked.answer)
        return shortened

    found, cost = timed(
        0, lambda: fitted_drops(reader, prompt.tokens, asked.spans, asked.answer, without, forwards=forwards)
    )
    return found, Cost(read, cost.seconds)


def attention_of_heads(asked: Asked) -> tuple[Tensor, Cost]:
    """The attention of the answer's rows that each sentence gets in each head [layers · h, S], layer by layer."""
    reader = asked.held()
    listener = _Heads(len(asked.prompt.tokens))

    def work() -> Tensor:
        with listening(asked.network, listener):
            reader.log_prob(asked.prompt.tokens[-1:], asked.answer)
        return _by_sentence(torch.cat(listener.found), asked)

    return timed(len(asked.answer), work)


def gradients(asked: Asked) -> tuple[dict[str, list[float]], Cost]:
    """|Σ gradient · embedding| and ‖gradient‖ of log p(answer) at the prompt's embeddings, summed over sentences."""
    p, answer = len(asked.prompt.tokens), asked.answer

    def work() -> dict[str, list[float]]:
        ids = torch.tensor([[*asked.prompt.tokens, *answer[:-1]]], device=asked.network.device)
        leaf = asked.network.get_input_embeddings()(ids).detach().requires_grad_(True)
        with torch.enable_grad(), listening(asked.network, _Nobody()):
            logits = asked.network(inputs_embeds=leaf, use_cache=False).logits[0, p - 1 :].float()
            total = torch.log_softmax(logits, -1).gather(1, torch.tensor(answer, device=logits.device)[:, None]).sum()
        (gradient,) = torch.autograd.grad(total, leaf)
        gradient, embedded = gradient[0, :p].float(), leaf.detach()[0, :p].float()
        by_token = torch.stack([(gradient * embedded).sum(-1).abs(), gradient.norm(dim=-1)])
        times, norm = _by_sentence(by_token, asked).tolist()
        return {"gradient × input": times, "gradient norm": norm}

    return timed(3 * (p + len(answer)), work)


def rolled_out(asked: Asked) -> tuple[list[float], Cost]:
    """Attention rollout through all layers to the rows that predict the answer."""
    p, t = len(asked.prompt.tokens), len(asked.answer)
    listener = _Matrices()

    def work() -> list[float]:
        ids = torch.tensor([[*asked.prompt.tokens, *asked.answer[:-1]]], device=asked.network.device)
        with torch.no_grad(), listening(asked.network, listener):
            asked.network(input_ids=ids, use_cache=False)
        target = torch.zeros(1, p + t - 1, device=asked.network.device)
        target[:, p - 1 :] = 1 / t
        with torch.no_grad():
            received = rollout(listener.found, target.to(listener.found[0].q.dtype))
        return _by_sentence(received[:, :p].float(), asked)[0].tolist()

    return timed(2 * (p + t), work)


def shared_words(query: str, sentences: Sequence[str]) -> list[float]:
    """BM25 of each sentence for the words of a query: the search of `answer`."""
    return bm25([terms(sentence) for sentence in sentences], list(dict.fromkeys(terms(query))))


def _by_sentence(by_token: Tensor, asked: Asked) -> Tensor:
    """Sums [r, S] of [r, p] over the tokens of each sentence."""
    owner = owners(asked.prompt.places, asked.spans)
    kept = torch.tensor([j for j, i in enumerate(owner) if i is not None], dtype=torch.int64)
    to = torch.tensor([i for i in owner if i is not None], dtype=torch.int64)
    return torch.zeros(len(by_token), len(asked.spans)).index_add_(1, to, by_token[:, kept].float().cpu())


class _Nobody:
    """Hears calls and asks for nothing."""

    def reductions(self, call: Call) -> Mapping[str, Reduction]:
        return {}

    def received(self, call: Call, observed: Observed) -> Any:
        return None


class _Heads(_Nobody):
    """What each of the first `keys` keys receives in each head, over the rows of a call."""

    def __init__(self, keys: int) -> None:
        self.keys = keys
        self.found: list[Tensor] = []

    def reductions(self, call: Call) -> Mapping[str, Reduction]:
        return {"received": Received()}

    def received(self, call: Call, observed: Observed) -> None:
        columns = observed["received"][0].float()
        held = columns.new_zeros(columns.shape[0], self.keys)
        there = columns[:, : self.keys - call.key_start]
        held[:, call.key_start : call.key_start + there.shape[1]] = there
        self.found.append(held)


class _Matrices(_Nobody):
    """The matrix of every call."""

    def __init__(self) -> None:
        self.found: list[AttentionMatrix] = []

    def received(self, call: Call, observed: Observed) -> None:
        self.found.append(call.matrix)
