"""Promise: nn.Transformer and its parts give the same with Sightline's attention in them, and never go around it."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import sightline as sl
import sightline.nn
from nn.watching import FUSED, close, fused, inputs
from sightline.nn import replace_attention, restore_attention

pytestmark = pytest.mark.filterwarnings(
    "ignore:The PyTorch API of nested tensors", "ignore:enable_nested_tensor is True"
)

CAUSAL = nn.Transformer.generate_square_subsequent_mask(6)
PADDING = torch.tensor([[False] * 4 + [True] * 2, [False] * 6, [True] + [False] * 5])


def encoder_layer(**options: Any) -> nn.Module:
    return nn.TransformerEncoderLayer(16, 4, 32, dropout=0.0, **options)


def encoder(**options: Any) -> nn.Module:
    return nn.TransformerEncoder(nn.TransformerEncoderLayer(16, 4, 32, dropout=0.0, **options), 2)


def decoder_layer(**options: Any) -> nn.Module:
    return nn.TransformerDecoderLayer(16, 4, 32, dropout=0.0, **options)


def transformer(**options: Any) -> nn.Module:
    return nn.Transformer(16, 4, 2, 2, 32, dropout=0.0, **options)


CALLS: list[tuple[Callable[..., nn.Module], int, dict[str, Any]]] = [
    (encoder_layer, 1, {}),
    (encoder_layer, 1, {"src_key_padding_mask": PADDING}),
    (encoder_layer, 1, {"src_mask": CAUSAL, "is_causal": True}),
    (encoder_layer, 1, {"src_mask": CAUSAL.isinf(), "src_key_padding_mask": PADDING}),
    (encoder, 1, {}),
    (encoder, 1, {"src_key_padding_mask": PADDING}),
    (encoder, 1, {"src_key_padding_mask": PADDING[:2].repeat(2, 1)[:3]}),  # right padding: nested tensors
    (encoder, 1, {"mask": CAUSAL, "is_causal": True}),
    (encoder, 1, {"mask": CAUSAL}),
    (decoder_layer, 2, {}),
    (decoder_layer, 2, {"tgt_mask": CAUSAL, "tgt_is_causal": True, "memory_key_padding_mask": PADDING}),
    (transformer, 2, {}),
    (transformer, 2, {"src_key_padding_mask": PADDING, "memory_key_padding_mask": PADDING}),
    (transformer, 2, {"tgt_mask": CAUSAL, "tgt_is_causal": True, "tgt_key_padding_mask": torch.zeros(3, 6)}),
]


def seen_rows(output: Tensor, options: dict[str, Any], batch_first: bool) -> Tensor:
    """What is defined: under left padding and a causal mask the first row of the last entry sees no key."""
    output = output if batch_first else output.transpose(0, 1)
    return output[:2] if "src_mask" in options and "src_key_padding_mask" in options else output


@pytest.mark.parametrize("norm_first", [False, True])
@pytest.mark.parametrize("batch_first", [True, False])
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize(("build", "count", "options"), CALLS)
def test_transformers_give_the_same(
    build: Callable[..., nn.Module],
    count: int,
    options: dict[str, Any],
    training: bool,
    batch_first: bool,
    norm_first: bool,
) -> None:
    torch.manual_seed(0)
    theirs = build(batch_first=batch_first, norm_first=norm_first).train(training)
    ours = replace_attention(copy.deepcopy(theirs))
    results = []
    for model in (theirs, ours):
        given = [inputs(3, 6, 16).add(i).requires_grad_(training) for i in range(count)]
        with torch.set_grad_enabled(training):
            output = model(*(given if batch_first else [t.transpose(0, 1) for t in given]), **options)
            output = seen_rows(output, options, batch_first)
            found = [output.detach()]
            if training:
                found += torch.autograd.grad(output.square().sum(), [*given, *model.parameters()])
        results.append(found)
    theirs_found, ours_found = results
    assert ours_found[0].isfinite().all()
    for a, b in zip(ours_found, theirs_found, strict=True):
        assert a.shape == b.shape
        assert float((a - b).abs().max()) <= 1e-4 * max(1.0, float(b.abs().max()))


@pytest.mark.parametrize("options", [{}, {"src_key_padding_mask": PADDING[:2]}], ids=["plain", "padded"])
def test_fused_kernels_go_around_pytorchs_module_and_not_around_ours(options: dict[str, Any]) -> None:
    x = inputs(2, 6, 16)
    for build in (encoder_layer, encoder):
        model = build(batch_first=True).eval()
        assert fused(model, x, **options) == {"aten._transformer_encoder_layer_fwd"}
        assert fused(replace_attention(model), x, **options) == set()
        assert fused(restore_attention(model), x, **options) == {"aten._transformer_encoder_layer_fwd"}
    attention = nn.MultiheadAttention(16, 4, batch_first=True).eval()
    assert fused(attention, x, x, x) == {"aten._native_multi_head_attention"}
    assert fused(replace_attention(attention), x, x, x) == set()
    assert len(FUSED) == 2


def test_padded_places_of_an_encoder_are_as_in_pytorch() -> None:
    """In inference nn.TransformerEncoder makes nested tensors of padded ones, and 0 of what was padding."""
    model, x = encoder(batch_first=True).eval(), inputs(2, 6, 16)
    with torch.no_grad():
        right = model(x, src_key_padding_mask=PADDING[:2])
        output = replace_attention(model)(x, src_key_padding_mask=PADDING[:2])
    assert close(output, right)
    assert not output[0, 4:].any()
    assert output[0, :4].abs().min() > 0


def test_it_is_the_same_object_with_the_same_parameters_and_hooks() -> None:
    model = transformer()
    parts = {name: part for name, part in model.named_modules() if isinstance(part, nn.MultiheadAttention)}
    parameters = [id(p) for p in model.parameters()]
    called: list[nn.Module] = []
    parts["encoder.layers.0.self_attn"].register_forward_hook(lambda module, *_: called.append(module))
    assert replace_attention(model) is model
    assert {name: part for name, part in model.named_modules() if name in parts} == parts
    assert {type(part) for part in parts.values()} == {sightline.nn.MultiheadAttention}
    assert [id(p) for p in model.parameters()] == parameters
    model(inputs(3, 2, 16), inputs(3, 2, 16))
    assert called == [parts["encoder.layers.0.self_attn"]]
    replace_attention(model)  # again: nothing more to do
    assert restore_attention(model) is model
    assert {type(part) for part in parts.values()} == {nn.MultiheadAttention}
    restore_attention(model)


@pytest.mark.parametrize("options", [{}, {"kdim": 3}], ids=str)
def test_what_was_sightlines_from_the_start_becomes_pytorchs(options: dict[str, Any]) -> None:
    ours, fresh = sightline.nn.MultiheadAttention(16, 4, **options), nn.MultiheadAttention(16, 4, **options)
    state = vars(restore_attention(ours))
    assert type(ours) is nn.MultiheadAttention
    assert state["_qkv_same_embed_dim"] == vars(fresh)["_qkv_same_embed_dim"]
    assert state.keys() == vars(fresh).keys()
    before = ours.out_proj.weight.clone()
    ours._reset_parameters()
    assert torch.equal(ours.out_proj.weight, before)


def test_states_pass_between_replaced_and_other_models() -> None:
    theirs, ours = transformer().eval(), replace_attention(transformer()).eval()
    ours.load_state_dict(theirs.state_dict())
    x, y = inputs(5, 2, 16), inputs(4, 2, 16)
    assert close(ours(x, y), theirs(x, y))
    again = transformer().eval()
    again.load_state_dict(ours.state_dict())
    assert torch.equal(again(x, y), theirs(x, y))


class Own(nn.MultiheadAttention):
    def forward(self, *args: Any, **kwargs: Any) -> Any:
        return super().forward(*args, **kwargs)


def test_what_cannot_be_replaced_is_refused_before_anything_changes() -> None:
    model = nn.ModuleDict({"a": nn.MultiheadAttention(16, 4), "b": Own(16, 4)})
    with pytest.raises(sl.Unsupported, match=r"ModuleDict .* b is a Own, a subclass of nn\.MultiheadAttention"):
        replace_attention(model)
    assert type(model["a"]) is nn.MultiheadAttention
    with pytest.raises(sl.Unsupported, match=r"Linear .* holds no nn\.MultiheadAttention"):
        replace_attention(nn.Linear(2, 2))
    parametrized = nn.MultiheadAttention(16, 4)
    nn.utils.parametrizations.weight_norm(parametrized, "in_proj_weight")
    with pytest.raises(sl.Unsupported, match="replace before it"):
        replace_attention(parametrized)


def test_parametrized_after_it_was_replaced() -> None:
    theirs, x = nn.MultiheadAttention(16, 4, batch_first=True), inputs(2, 5, 16)
    ours = replace_attention(copy.deepcopy(theirs))
    for module in (theirs, ours):
        nn.utils.parametrizations.weight_norm(module, "in_proj_weight")
        with torch.no_grad():
            module.parametrizations.in_proj_weight.original0.mul_(1.5)  # type: ignore[union-attr]
    assert close(ours(x, x, x)[0], theirs(x, x, x)[0])


def test_layers_with_dropout_say_what_to_do_in_training() -> None:
    layer = replace_attention(nn.TransformerEncoderLayer(16, 4, 32))
    x = inputs(5, 2, 16)
    with pytest.raises(sl.Unsupported, match=r"dropout=0\.1 .* Set the module's `dropout` to 0"):
        layer(x)
    layer.self_attn.dropout = 0.0
    assert layer(x).isfinite().all()


def test_a_layer_without_any_real_token_is_finite() -> None:
    layer = replace_attention(encoder_layer(batch_first=True)).eval()
    added = torch.zeros(1, 6).fill_(-math.inf)
    assert layer(inputs(1, 6, 16), src_key_padding_mask=added).isfinite().all()
