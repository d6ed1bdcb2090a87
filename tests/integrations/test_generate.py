"""In generation, a recorded model writes the tokens that eager writes, and every step is recorded where it stands."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import PreTrainedModel

from integrations.families import DECODERS, batch, build
from sightline.functional import Observed
from sightline.integrations import record
from sightline.integrations.transformers import listening
from sightline.recording import Call
from sightline.reductions import Entropy, Received, Reduction

NEW = 6
MODES: dict[str, dict[str, Any]] = {
    "greedy": {},
    "beams": {"num_beams": 3},
    "static cache": {"cache_implementation": "static"},
    "no cache": {"use_cache": False},
    "chunked prefill": {"prefill_chunk_size": 4},
}


def write(model: PreTrainedModel, ids: Tensor, real: Tensor, **mode: Any) -> Tensor:
    return model.generate(
        ids, attention_mask=real, max_new_tokens=NEW, min_new_tokens=NEW, do_sample=False, disable_compile=True, **mode
    )


# Every family in the plain mode; every mode on a full, a mixed and a sliding cache.
CASES = [(family, "greedy", "left") for family in DECODERS] + [
    (family, mode, padding)
    for family in ("llama", "gemma2", "mistral")
    for mode in MODES
    for padding in ("none", "left")
    if (mode, padding) != ("greedy", "left")
]


@pytest.mark.parametrize(("family", "mode", "padding"), CASES)
def test_writes_the_same_tokens(family: str, mode: str, padding: str) -> None:
    model, (ids, real) = build(family), batch(9, padding)
    expected = write(model, ids, real, **MODES[mode])
    with record(model, {"entropy": Entropy()}) as rec:
        assert torch.equal(write(model, ids, real, **MODES[mode]), expected)
    assert len(rec) == 2
    prefill = {
        "chunked prefill": [range(4), range(4, 8), range(8, 9)],
        "no cache": [range(stop) for stop in range(9, 9 + NEW)],
    }.get(mode, [range(9)])
    steps = [] if mode == "no cache" else [range(at, at + 1) for at in range(9, 9 + NEW - 1)]
    for calls in rec.values():
        assert [call.query_positions for call in calls] == prefill + steps


def test_static_cache_reads_the_positions_of_its_own_step() -> None:
    """A static cache advances its counter in place, before the first layer reads the mask. Tokens do not show it."""
    model, (ids, real) = build("llama"), batch(9, "left")
    found = {}
    for mode in ("greedy", "static cache"):
        with record(model, {"entropy": Entropy(), "received": Received()}) as rec:
            write(model, ids, real, **MODES[mode])
        found[mode] = rec
    for name, calls in found["greedy"].items():
        for call, static in zip(calls, found["static cache"][name], strict=True):
            m = len(call.key_positions)
            torch.testing.assert_close(static["entropy"], call["entropy"], atol=2e-6, rtol=1e-5)
            torch.testing.assert_close(static["received"][..., :m], call["received"], atol=2e-6, rtol=1e-5)
            assert not static["received"][..., m:].any(), "slots that are still empty receive nothing"


def test_grouped_queries_keep_their_key_heads() -> None:
    seen: list[tuple[int, int, int]] = []

    class Shapes:
        def reductions(self, call: Call) -> dict[str, Reduction]:
            return {}

        def received(self, call: Call, observed: Observed) -> None:
            seen.append((call.matrix.shape[1], call.value.shape[1], observed.output.shape[1]))

    model, (ids, real) = build("llama"), batch(9)
    with listening(model, Shapes()):
        write(model, ids, real)
    assert set(seen) == {(4, 2, 4)}
