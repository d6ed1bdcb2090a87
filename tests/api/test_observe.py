"""observe returns the output and a mapping of results; backends says who can run."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

import pytest
import torch
from torch import Tensor

import sightline
from sightline import (
    AttentionMatrix,
    BackendInfo,
    Causal,
    Entropy,
    Observed,
    Peak,
    Peaks,
    Received,
    attention,
    backends,
    observe,
)


def randn(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(sum(shape)), dtype=torch.float64)


Q, K, V = randn(2, 4, 5, 3), randn(2, 2, 7, 3), randn(2, 2, 7, 2)


def test_it_always_returns_an_observed_whatever_is_asked() -> None:
    for reductions in ({}, {"one": Entropy()}, {"one": Entropy(), "two": Peak()}):
        seen = observe(Q, K, V, reductions)
        assert isinstance(seen, Observed)
        assert isinstance(seen, Mapping)
        assert list(seen) == list(reductions)
        assert len(seen) == len(reductions)
        assert seen.output.shape == (2, 4, 5, 2)


def test_results_are_found_by_the_names_given_in_the_order_given() -> None:
    seen = observe(Q, K, V, {"z": Received(), "output": Entropy(), "a b": Peak()}, mask=Causal())
    assert next(iter(seen.items()))[0] == "z"
    assert "a b" in seen
    assert "nothing" not in seen
    whole = AttentionMatrix(Q, K, mask=Causal()).reduce({"z": Received(), "output": Entropy()})
    torch.testing.assert_close(seen["z"], whole["z"], rtol=0, atol=0)
    torch.testing.assert_close(seen["output"], whole["output"], rtol=0, atol=0)
    assert isinstance(seen["a b"], Peaks)
    assert seen.output.shape == (2, 4, 5, 2)  # a reduction named "output" does not hide the attention


def test_a_name_that_was_not_asked_for_is_a_key_error() -> None:
    with pytest.raises(KeyError, match="entropy"):
        observe(Q, K, V, {})["entropy"]


def test_what_it_returns_cannot_be_changed() -> None:
    seen = observe(Q, K, V, {"it": Entropy()})
    with pytest.raises(TypeError):
        seen["it"] = seen.output  # type: ignore[index]
    with pytest.raises(AttributeError):
        seen.output = seen["it"]  # type: ignore[misc]


def test_the_output_is_bitwise_attentions() -> None:
    seen = observe(Q, K, V, {"entropy": Entropy(), "received": Received()}, mask=Causal())
    assert torch.equal(seen.output, attention(Q, K, V, mask=Causal()))


def test_it_takes_the_keyword_arguments_of_attention_and_of_the_matrix() -> None:
    def options(call: Any) -> dict[str, Any]:
        parameters = inspect.signature(call).parameters.values()
        return {p.name: p.default for p in parameters if p.kind is p.KEYWORD_ONLY}

    assert options(attention) == options(observe) == options(AttentionMatrix)
    assert list(options(attention)) == ["mask", "bias", "scale", "softcap", "sinks", "backend"]


def test_an_unknown_keyword_argument_is_refused() -> None:
    with pytest.raises(TypeError, match="is_causal"):
        attention(Q, K, V, is_causal=True)  # type: ignore[call-arg]


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
def test_the_output_has_the_values_dtype_and_observations_float32_at_least(dtype: torch.dtype) -> None:
    seen = observe(Q.to(dtype), K.to(dtype), V.to(dtype), {"it": Entropy()})
    assert seen.output.dtype == dtype
    assert seen["it"].dtype == (torch.float64 if dtype == torch.float64 else torch.float32)


def test_every_backend_is_listed_with_its_name_and_whether_it_can_run() -> None:
    listed = backends()
    assert {"tiled", "dense"} <= {b.name for b in listed}
    assert len({b.name for b in listed}) == len(listed)
    for b in listed:
        assert isinstance(b, BackendInfo)
        assert b.available == (not b.reasons)
        assert all(isinstance(reason, str) and reason for reason in b.reasons)


def test_every_available_backend_serves_a_call_and_agrees() -> None:
    wanted = attention(Q, K, V, mask=Causal())
    for b in backends():
        if b.available:
            dtype = torch.float32 if b.name == "cpu" else torch.float64  # the native kernels refuse float64
            made = attention(*(t.to(dtype) for t in (Q, K, V)), mask=Causal(), backend=b.name)
            close = 1e-12 if dtype == torch.float64 else 1e-6
            torch.testing.assert_close(made.double(), wanted, rtol=close, atol=close)


def test_auto_never_takes_the_definition() -> None:
    # The definition holds the whole matrix: 2¹⁵ × 2¹⁵ weights would be 4 GiB.
    q = torch.zeros(1, 1, 2**15, 1)
    assert attention(q[:, :, :1], q, q, backend="auto").shape == (1, 1, 1, 1)
    with pytest.raises(sightline.Unsupported, match=r"backend='dense'.*more than"):
        attention(q, q, q, backend="dense")
