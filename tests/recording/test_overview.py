"""What stands out in a trace, against a direct count on the matrices themselves."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from recording.worlds import recorded, tokens
from sightline import AttentionMatrix, Causal
from sightline.functional import observe
from sightline.recording import Call, Recorder, Tokens, Trace, overview
from sightline.reductions import Entropy, Peak, Received


def of(weights_by_head: list[Tensor], ids: list[int]) -> Trace:
    """A trace of one call whose causal matrix has, up to e^−40, these rows [n, n] of one-hot weights, one per head."""
    n = len(ids)
    q = torch.stack(weights_by_head)[None] * 40.0
    k = torch.eye(n).expand(1, len(weights_by_head), n, n)
    asked = {"entropy": Entropy(), "peak": Peak(), "received": Received()}
    recorder = Recorder(asked)
    call = Call("layers.0.attn", torch.nn.Identity(), AttentionMatrix(q, k, mask=Causal(), scale=1.0), k, 0)
    recorder.received(call, observe(q, k, k, recorder.reductions(call), mask=Causal(), scale=1.0))
    strings = tuple(f"t{i}" for i in ids)
    return recorder.trace(Tokens(torch.tensor([ids]), (strings,)))


def rows(targets: list[int]) -> Tensor:
    return torch.nn.functional.one_hot(torch.tensor(targets), len(targets)).float()


N = 24
FIRST = rows([0] * N)
PREVIOUS = rows([max(0, i - 1) for i in range(N)])
IDS = [*range(100, 112), *range(100, 112)]  # a text and its repetition
COPYING = rows([i if i < 12 else i - 11 for i in range(N)])  # the token after the earlier one that is the same


def test_heads_of_known_kinds_are_told_apart() -> None:
    first, previous, copying = overview.heads(of([FIRST, PREVIOUS, COPYING], IDS))
    assert [h.head for h in (first, previous, copying)] == [0, 1, 2]
    assert (first.module, first.kind) == ("layers.0.attn", "decoder")
    assert first.sink == pytest.approx(1.0)
    assert first.sink_key == 0
    assert first.local == pytest.approx(overview.LOCAL / N)
    assert previous.local == pytest.approx(1.0)
    assert previous.sink == pytest.approx(2 / N)
    assert previous.retrieval == 0.0
    assert first.retrieval == pytest.approx(1 / (N - 1))  # row 11, whose next token is the first one again
    assert copying.retrieval == pytest.approx(11 / (N - 1))  # of the rows that have a next token, 12 … 22
    assert copying.local == pytest.approx(12 / N)
    assert copying.entropy == pytest.approx(0, abs=1e-6)


def test_without_its_repetition_nothing_is_copied() -> None:
    """Negative control: the same looks at other tokens."""
    (copying,) = overview.heads(of([COPYING], list(range(N))))
    assert copying.retrieval == 0.0


def test_what_is_received_and_the_sinks_of_it() -> None:
    trace = of([FIRST, PREVIOUS], IDS)
    share = overview.received(trace, "decoder")
    assert share is not None
    assert float(share.sum()) == pytest.approx(1)
    assert float(share[0]) == pytest.approx((N + 2) / (2 * N))
    assert overview.sinks(trace, "decoder") == [0]
    assert overview.sinks(of([PREVIOUS], IDS), "decoder") == []
    assert overview.received(trace, "cross") is None


def test_pairs_leave_out_sinks_and_a_tokens_own() -> None:
    trace = of([FIRST, PREVIOUS, rows(list(range(N)))], IDS)
    found = overview.pairs(trace, 100)
    assert {(pair.head, pair.query, pair.key) for pair in found} == {(1, i, i - 1) for i in range(2, N)}
    assert all(pair.weight == pytest.approx(1) for pair in found)
    assert len(overview.pairs(trace, 3)) == 3


def test_over_calls_and_a_batch_it_is_the_mean_of_them() -> None:
    """A prefill and its steps, padded, against the matrices computed from q and k."""
    trace = recorded(padding="none").trace(tokens())
    for head in overview.heads(trace):
        weights = [call.matrix(head.head).dense()[:, 0].double() for call in trace[head.module]]
        entropy = torch.cat([-(p * p.clamp(min=1e-300).log()).sum(-1).flatten() for p in weights])
        assert head.entropy == pytest.approx(float(entropy.mean()), abs=1e-4)
        received = torch.zeros(12, dtype=torch.float64)
        for p in weights:
            received[: p.shape[-1]] += p.sum((0, 1))
        assert head.sink_key == int(received.argmax())
        assert head.sink == pytest.approx(float(received.max() / received.sum()), abs=1e-5)


def test_what_was_not_recorded_is_none() -> None:
    from sightline.reductions import TopK

    recorder = Recorder({"top": TopK(2)})
    q = torch.randn(1, 2, 6, 8, generator=torch.Generator().manual_seed(0))
    call = Call("attn", torch.nn.Identity(), AttentionMatrix(q, q), q, 0)
    recorder.received(call, observe(q, q, q, recorder.reductions(call)))
    trace = recorder.trace()
    for head in overview.heads(trace):
        assert (head.entropy, head.sink, head.sink_key, head.local, head.retrieval) == (None,) * 5
    assert overview.pairs(trace, 5) == []
    assert overview.sinks(trace, "decoder") == []
