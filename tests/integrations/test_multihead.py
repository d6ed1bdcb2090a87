"""record() in models built of nn.MultiheadAttention: what it hears, and that it leaves nothing behind."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import sightline as sl
import sightline.nn
from integrations.families import batch, build
from processes import fresh
from sightline.integrations import record
from sightline.integrations.multihead import attached
from sightline.reductions import Entropy, Received, Rows

pytestmark = pytest.mark.filterwarnings(
    "ignore:The PyTorch API of nested tensors", "ignore:enable_nested_tensor is True"
)

CAUSAL = nn.Transformer.generate_square_subsequent_mask(5)
NAMES = {
    "encoder.layers.0.self_attn": "encoder",
    "encoder.layers.1.self_attn": "encoder",
    "decoder.layers.0.self_attn": "decoder",
    "decoder.layers.0.multihead_attn": "cross",
    "decoder.layers.1.self_attn": "decoder",
    "decoder.layers.1.multihead_attn": "cross",
}


def transformer(**options: Any) -> nn.Transformer:
    torch.manual_seed(0)
    return nn.Transformer(16, 4, 2, 2, 32, dropout=0.0, batch_first=True, **options).eval()


def inputs(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(5))


def weights(model: nn.Module, *args: Any, **kwargs: Any) -> dict[str, Tensor]:
    """PyTorch's own weights per head, [b, h, n, m] by module: each call is made again with need_weights."""
    found: dict[str, Tensor] = {}
    hooks = []
    for name, part in model.named_modules():
        if isinstance(part, nn.MultiheadAttention):

            def again(module: nn.Module, given: Any, named: Any, name: str = name) -> None:
                asked = {**named, "need_weights": True, "average_attn_weights": False}
                found[name] = type(module).forward(module, *given, **asked)[1]

            hooks.append(part.register_forward_pre_hook(again, with_kwargs=True))
    with torch.no_grad():
        model(*args, **kwargs)
    for hook in hooks:
        hook.remove()
    return found


@pytest.mark.parametrize("training", [False, True])
def test_the_heads_of_a_transformer(training: bool) -> None:
    model, x, y = transformer().train(training), inputs(2, 7, 16), inputs(2, 5, 16)
    padding = torch.zeros(2, 7, dtype=torch.bool)
    padding[0, 4:] = True
    call = {"tgt_mask": CAUSAL, "tgt_is_causal": True, "memory_key_padding_mask": padding}
    right = weights(model, x, y, **call)
    with torch.no_grad():
        plain = model(x, y, **call)
        with record(model, {"entropy": Entropy(), "rows": Rows(torch.tensor([0, 3]))}) as rec:
            output = model(x, y, **call)
    assert torch.allclose(output, plain, atol=1e-5)
    assert {name: calls[0].kind for name, calls in rec.items()} == NAMES
    for name, calls in rec.items():
        (one,), p = calls, right[name]
        assert torch.allclose(one["rows"], p[:, :, [0, 3]], atol=1e-5)
        assert torch.allclose(one["entropy"], -(p * p.clamp(min=1e-30).log()).sum(-1), atol=1e-4)
        assert one.key_positions == range(p.shape[-1])
        assert one.query_positions == (None if one.kind == "cross" else range(p.shape[-2]))


def test_padding_of_an_encoder_in_inference() -> None:
    """There nn.TransformerEncoder would go around its attention, and hands it nested tensors."""
    model = nn.TransformerEncoder(nn.TransformerEncoderLayer(16, 4, 32, batch_first=True), 2).eval()
    x, padding = inputs(2, 6, 16), torch.zeros(2, 6, dtype=torch.bool)
    padding[0, 4:] = True
    with torch.no_grad():
        plain = model(x, src_key_padding_mask=padding)
        alone = model(x[:1, :4])
        with record(model, {"entropy": Entropy()}, layers=[1], heads=[2]) as rec:
            assert torch.allclose(model(x, src_key_padding_mask=padding), plain, atol=1e-5)
            assert torch.allclose(model(x[:1, :4]), alone, atol=1e-5)
    assert list(rec) == ["layers.1.self_attn"]
    padded, single = rec["layers.1.self_attn"]
    assert padded.heads == (2,)
    assert torch.allclose(padded["entropy"][:1, :, :4], single["entropy"], atol=1e-5)
    assert not padded["entropy"][0, :, 4:].any()


def kinds_of(model: nn.Module) -> dict[str, type]:
    return {name: type(part) for name, part in model.named_modules()}


def test_every_module_gets_its_class_back() -> None:
    model = transformer()
    sightline.nn.replace_attention(model.decoder)
    before, states = kinds_of(model), {name: dict(vars(part)) for name, part in model.named_modules()}
    asked = {"entropy": Entropy()}
    with pytest.raises(ZeroDivisionError), record(model, asked):
        raise ZeroDivisionError
    with record(model, asked), record(model.encoder, asked):
        assert kinds_of(model) != before
    first, second = record(model, asked), record(model.encoder.layers[0], asked)
    with first as outer:
        second.__enter__()
    with torch.no_grad():
        model.encoder(inputs(1, 4, 16))  # the first has ended, the second has not
    second.__exit__(None, None, None)
    assert len(outer) == 0
    assert kinds_of(model) == before
    assert {name: dict(vars(part)) for name, part in model.named_modules()} == states


def test_recorders_hear_what_is_theirs_and_change_nothing() -> None:
    model, x = transformer().encoder, inputs(2, 6, 16)
    with torch.no_grad(), record(model, {"entropy": Entropy()}) as outer:
        alone = model(x)
        with record(model.layers[1], {"received": Received()}) as inner:
            assert torch.equal(model(x), alone)
    assert {name: len(calls) for name, calls in outer.items()} == {"layers.0.self_attn": 2, "layers.1.self_attn": 2}
    assert [set(r) for r in outer["layers.1.self_attn"]] == [{"entropy"}] * 2
    assert {name: len(calls) for name, calls in inner.items()} == {"self_attn": 1}
    a, b = (r["entropy"] for r in outer["layers.1.self_attn"])
    assert torch.equal(a, b)


def test_a_call_that_observes_by_itself_gets_its_own() -> None:
    module, x = sightline.nn.MultiheadAttention(16, 4, batch_first=True), inputs(2, 6, 16)
    with record(module, {"entropy": Entropy()}) as rec:
        _, seen = module(x, x, x, is_causal=True, observe={"received": Received()})
        _, p = module(x, x, x, average_attn_weights=False)
    assert list(seen) == ["received"]
    causal, other = rec[""]
    assert (causal.kind, other.kind) == ("decoder", "encoder")
    assert torch.allclose(other["entropy"], -(p * p.log()).sum(-1), atol=1e-5)


def test_gradients_flow_while_it_is_recorded() -> None:
    model, x = transformer().encoder.train(), inputs(2, 6, 16)
    model(x).square().sum().backward()
    right = [p.grad.clone() for p in model.parameters() if p.grad is not None]
    model.zero_grad()
    with record(model, {"entropy": Entropy()}):
        model(x).square().sum().backward()
    found = [p.grad for p in model.parameters() if p.grad is not None]
    assert len(found) == len(right) > 0
    assert all(torch.allclose(a, b, rtol=1e-3, atol=1e-3) for a, b in zip(found, right, strict=True))


@pytest.mark.unpoisoned
def test_a_compiled_module_is_recorded_too() -> None:
    module, x = nn.MultiheadAttention(16, 4, batch_first=True).eval(), inputs(2, 6, 16)
    compiled = torch.compile(module, backend="aot_eager")
    with torch.no_grad():
        before = compiled(x, x, x)[0]
        with record(compiled, {"entropy": Entropy()}) as rec:
            assert torch.allclose(compiled(x, x, x)[0], before, atol=1e-5)
        assert torch.allclose(compiled(x, x, x)[0], before, atol=1e-5)
    assert len(rec["_orig_mod"]) == 1


class Both(nn.Module):
    """A model of Transformers and a multi-head attention over what it gives."""

    def __init__(self) -> None:
        super().__init__()
        self.language = build("llama")
        self.pool = nn.MultiheadAttention(VOCABULARY, 1, batch_first=True)

    def forward(self, ids: Tensor) -> Tensor:
        logits = self.language(ids).logits
        return self.pool(logits[:, :1], logits, logits)[0]


VOCABULARY = 0


def test_attention_of_transformers_and_of_pytorch_in_one_model(monkeypatch: pytest.MonkeyPatch) -> None:
    ids = batch()[0]
    monkeypatch.setitem(globals(), "VOCABULARY", build("llama").config.vocab_size)
    model = Both()
    with torch.no_grad():
        plain = model(ids)
        with record(model, {"entropy": Entropy()}) as rec:
            assert torch.allclose(model(ids), plain, atol=1e-4)
    assert list(rec)[-1] == "pool"
    assert [name for name in rec if name.startswith("language.")] == list(rec)[:-1] != []
    assert rec["pool"][0].kind == "cross"
    assert type(model.pool) is nn.MultiheadAttention
    assert model.language.config._attn_implementation == "eager"


class Derived(sightline.nn.MultiheadAttention):
    pass


class Own(nn.MultiheadAttention):
    pass


@pytest.mark.parametrize("kind", [Derived, Own])
def test_what_would_lose_its_own_code_is_refused_before_anything_changes(kind: type[nn.MultiheadAttention]) -> None:
    model = nn.ModuleList([nn.MultiheadAttention(16, 4), kind(16, 4)])
    before = kinds_of(model)
    with pytest.raises(sl.Unsupported, match=f"{kind.__name__}, a subclass"), attached(model):
        pass
    assert kinds_of(model) == before


def test_a_choice_that_matches_nothing_leaves_nothing_behind() -> None:
    model = transformer()
    before = kinds_of(model)
    with (
        pytest.raises(sl.SpecError, match="no module of the model matches"),
        record(model, {"e": Entropy()}, layers=[9]),
    ):
        pass
    assert kinds_of(model) == before


WITHOUT_TRANSFORMERS = """
import json, sys
sys.modules["transformers"] = None  # importing it is an ImportError
import torch
import sightline as sl
layer = torch.nn.TransformerEncoderLayer(16, 4, 32, batch_first=True).eval()
with sl.record(layer, {"entropy": sl.Entropy()}) as rec, torch.no_grad():
    layer(torch.randn(1, 5, 16))
try:
    with sl.record(torch.nn.Linear(2, 2), {"entropy": sl.Entropy()}):
        pass
except sl.Unsupported as error:
    said = str(error)
print(json.dumps([list(rec), said]))
"""


def test_it_needs_no_transformers() -> None:
    heard, said = fresh(WITHOUT_TRANSFORMERS)
    assert heard == ["self_attn"]
    assert "holds no nn.MultiheadAttention" in said
    assert "pip install transformers" in said
