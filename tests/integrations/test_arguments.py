"""What a model passes to its attention is honoured or refused; nothing is dropped in silence."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from integrations.families import batch, build
from sightline.errors import ShapeError, Unsupported
from sightline.integrations import record
from sightline.integrations._arguments import READ_ELSEWHERE
from sightline.integrations._attention import sightline_attention
from sightline.integrations._lazy_mask import lazy_mask
from sightline.integrations.transformers import attached
from sightline.reductions import Rows

B, H, HK, N, D = 2, 4, 2, 5, 8


class Attention(nn.Module):
    def __init__(self, is_causal: bool | None = True) -> None:
        super().__init__()
        if is_causal is not None:
            self.is_causal = is_causal


def qkv(n: int = N, m: int = N) -> tuple[Tensor, Tensor, Tensor]:
    g = torch.Generator().manual_seed(0)
    return tuple(torch.randn(B, heads, length, D, generator=g) for heads, length in ((H, n), (HK, m), (HK, m)))


def reference(q: Tensor, k: Tensor, v: Tensor, added: Tensor | None = None, scale: float = D**-0.5) -> Tensor:
    """[b, n, h, d], by the definition."""
    s = scale * q @ k.repeat_interleave(H // HK, 1).mT
    p = (s if added is None else s + added).softmax(-1)
    return (p @ v.repeat_interleave(H // HK, 1)).transpose(1, 2)


def causal(n: int = N, m: int = N) -> Tensor:
    return torch.full((n, m), -math.inf).triu(m - n + 1)


def call(mask: Tensor | None = None, module: nn.Module | None = None, tensors: Any = None, **kwargs: Any) -> Tensor:
    output, matrix = sightline_attention(module or Attention(), *(tensors or qkv()), mask, **kwargs)
    assert matrix is None
    return output


# -- keyword arguments


@pytest.mark.parametrize(
    "name", ["indices", "block_indices", "cache", "cu_seq_lens_q", "seq_idx", "sinks", "brand_new"]
)
def test_arguments_that_may_matter_are_refused(name: str) -> None:
    with pytest.raises(Unsupported, match=f"Attention passed '{name}'"):
        call(**{name: torch.zeros(1)})
    assert call(**{name: None}).shape == (B, N, H, D), "None asks for nothing"


def test_harmless_arguments_change_nothing() -> None:
    harmless = {name: torch.ones(1) for name in READ_ELSEWHERE}
    assert torch.equal(call(**harmless), call())
    assert all(READ_ELSEWHERE.values()), "each is allowed for a reason"


def test_output_attentions_is_refused_with_the_alternative() -> None:
    with pytest.raises(Unsupported, match=r"sightline\.record"):
        call(output_attentions=True)
    assert call(output_attentions=False).shape == (B, N, H, D)


def test_dropout_is_refused() -> None:
    with pytest.raises(Unsupported, match=r"dropout 0\.1"):
        call(dropout=0.1)
    model = build("llama").train()
    with attached(model):
        model(batch()[0])  # its dropout is 0
        model.model.layers[0].self_attn.attention_dropout = 0.5
        with pytest.raises(Unsupported, match=r"model\.eval"):
            model(batch()[0])


def test_scale() -> None:
    torch.testing.assert_close(call(scaling=0.5), reference(*qkv(), causal(), scale=0.5))
    torch.testing.assert_close(call(scaling=None), reference(*qkv(), causal()))


def test_softcap() -> None:
    q, k, v = qkv()
    s = 1.5 * (D**-0.5 * q @ k.repeat_interleave(2, 1).mT / 1.5).tanh() + causal()
    expected = (s.softmax(-1) @ v.repeat_interleave(2, 1)).transpose(1, 2)
    torch.testing.assert_close(call(softcap=1.5), expected)


def test_sinks() -> None:
    q, k, v = qkv()
    sinks = torch.linspace(-1, 2, H)
    s = D**-0.5 * q @ k.repeat_interleave(2, 1).mT + causal()
    with_sink = torch.cat([s, sinks[:, None, None].expand(B, H, N, 1)], -1).softmax(-1)[..., :-1]
    torch.testing.assert_close(call(s_aux=sinks), (with_sink @ v.repeat_interleave(2, 1)).transpose(1, 2))


# -- no mask


def test_without_a_mask_the_argument_decides_and_then_the_module() -> None:
    both, seen = reference(*qkv()), reference(*qkv(), causal())
    torch.testing.assert_close(call(module=Attention(True)), seen)
    torch.testing.assert_close(call(module=Attention(False)), both)
    torch.testing.assert_close(call(module=Attention(None)), seen)
    torch.testing.assert_close(call(module=Attention(True), is_causal=False), both)
    torch.testing.assert_close(call(module=Attention(False), is_causal=True), seen)


def test_without_a_mask_one_query_sees_all_keys() -> None:
    tensors = qkv(1, 7)
    torch.testing.assert_close(call(tensors=tensors), reference(*tensors))


def test_without_a_mask_causal_over_more_keys_is_ambiguous() -> None:
    with pytest.raises(Unsupported, match="5 queries over 7 keys"):
        call(tensors=qkv(5, 7))
    tensors = qkv(5, 7)
    torch.testing.assert_close(call(tensors=tensors, is_causal=False), reference(*tensors))


# -- masks


def test_with_a_mask_is_causal_is_ignored() -> None:
    """Some models leave is_causal at a value that does not fit the mask they pass."""
    everything = torch.ones(1, 1, N, N, dtype=torch.bool)
    torch.testing.assert_close(call(everything, is_causal=True), reference(*qkv()))
    torch.testing.assert_close(call(lazy_mask(B, N, N), Attention(False)), reference(*qkv(), causal()))


@pytest.mark.parametrize("shape", [(1, 1, N, N), (B, 1, N, N), (B, H, N, N), (B, 1, 1, N)])
def test_a_dense_mask_given_by_the_user(shape: tuple[int, ...]) -> None:
    allowed = torch.rand(shape, generator=torch.Generator().manual_seed(1)) > 0.5
    allowed |= torch.eye(N, dtype=torch.bool)[: shape[2]]
    added = torch.where(allowed, 0.0, -math.inf)
    expected = reference(*qkv(), added)
    torch.testing.assert_close(call(allowed), expected)
    torch.testing.assert_close(call(added), expected)
    lowest = torch.where(allowed, 0.0, torch.finfo(torch.float32).min)
    torch.testing.assert_close(call(lowest), expected)
    slope = torch.randn(shape, generator=torch.Generator().manual_seed(2))
    torch.testing.assert_close(call(added + slope), reference(*qkv(), added + slope))


def test_a_dense_mask_through_the_model() -> None:
    model, (ids, _) = build("llama"), batch(N)
    allowed = torch.ones(N, N, dtype=torch.bool).tril()
    allowed[3, 1] = False
    added = torch.where(allowed, 0.0, torch.finfo(torch.float32).min)[None, None].expand(2, 1, N, N)
    with torch.no_grad():
        eager = model(ids, attention_mask=added).logits
        for mask in (added, allowed[None, None].expand(2, 1, N, N)):
            with record(model, {"rows": Rows(torch.tensor([3]))}) as rec:
                torch.testing.assert_close(model(ids, attention_mask=mask).logits, eager, atol=1e-4, rtol=1e-4)
            assert not rec["model.layers.0.self_attn"][0]["rows"][..., 1].any()


def test_masks_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ShapeError, match="5 queries and 5 keys"):
        call(torch.ones(1, 1, N, N + 1, dtype=torch.bool))
    with pytest.raises(ShapeError, match="a 2-D one over the tokens"):
        call(torch.ones(B, N, dtype=torch.bool))
    with pytest.raises(ShapeError, match="5 queries and 5 keys"):
        call(lazy_mask(B, N, N + 1))
    with pytest.raises(Unsupported, match=r"torch\.int64"):
        call(torch.ones(1, 1, N, N, dtype=torch.int64))


# -- position bias


@pytest.mark.parametrize("mask", ["none", "lazy", "dense"])
def test_position_bias(mask: str) -> None:
    bias = torch.randn(1, H, N, N, generator=torch.Generator().manual_seed(3))
    given = {"none": None, "lazy": lazy_mask(B, N, N), "dense": causal()[None, None]}[mask]
    torch.testing.assert_close(call(given, position_bias=bias), reference(*qkv(), bias + causal()))
