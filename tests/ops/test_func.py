"""torch.func: each transform that PyTorch's own attention takes, checked on both; and clear errors for the rest."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.func import functional_call, grad, grad_and_value, jacfwd, jacrev, jvp, vjp, vmap
from torch.nn.functional import scaled_dot_product_attention

from ops.samples import tensor
from sightline import (
    Alibi,
    AttentionMatrix,
    BlockMass,
    Causal,
    ColumnMax,
    ColumnMoment,
    DenseBias,
    DenseMask,
    Entries,
    Entropy,
    Lengths,
    LogSumExp,
    Packed,
    Peak,
    Prefix,
    Received,
    RelativeBias,
    RowMoment,
    Rows,
    SegmentMass,
    TopK,
    Unsupported,
    attention,
    observe,
    relevance,
    rollout,
)

#: What PyTorch says of its own operations under vmap: its attention, and searchsorted.
pytestmark = [
    pytest.mark.filterwarnings("ignore:There is a performance drop:UserWarning"),
    pytest.mark.filterwarnings("ignore:torch.searchsorted.*non-contiguous:UserWarning"),
]

Attention = Callable[[Tensor, Tensor, Tensor], Tensor]

Q, K, V = (tensor(2, 2, n, 3, seed=at) for at, n in enumerate((4, 5, 5)))


def three(t: Tensor) -> Tensor:
    """A batch of three different ones."""
    return torch.stack([t, 2 * t, 0.5 - t])


def loss(f: Attention) -> Attention:
    return lambda q, k, v: f(q, k, v).square().sum()


TRANSFORMS: dict[str, Callable[[Attention], Any]] = {
    "grad": lambda f: grad(loss(f), argnums=(0, 1, 2))(Q, K, V),
    "grad of one": lambda f: grad(loss(f), argnums=1)(Q, K, V),
    "grad_and_value": lambda f: grad_and_value(loss(f))(Q, K, V),
    "vjp": lambda f: (vjp(f, Q, K, V)[0], vjp(f, Q, K, V)[1](tensor(2, 2, 4, 3, seed=9))),
    "jacrev": lambda f: jacrev(f, argnums=(0, 2))(Q, K, V),
    "vmap": lambda f: vmap(f)(three(Q), three(K), three(V)),
    "vmap of q alone": lambda f: vmap(f, in_dims=(0, None, None))(three(Q), K, V),
    "vmap of v alone": lambda f: vmap(f, in_dims=(None, None, 0))(Q, K, three(V)),
    "vmap along other dimensions": lambda f: vmap(f, in_dims=(1, 2, -1), out_dims=1)(
        three(Q).movedim(0, 1), three(K).movedim(0, 2), three(V).movedim(0, -1)
    ),
    "vmap in chunks": lambda f: vmap(f, chunk_size=2)(three(Q), three(K), three(V)),
    "vmap of vmap": lambda f: vmap(vmap(f))(*(torch.stack([three(t), -three(t)]) for t in (Q, K, V))),
    "vmap of grad": lambda f: vmap(grad(loss(f), argnums=(0, 1, 2)))(three(Q), three(K), three(V)),
    "vmap of grad, keys shared": lambda f: vmap(grad(loss(f), argnums=(0, 1, 2)), in_dims=(0, None, None))(
        three(Q), K, V
    ),
    "grad of vmap": lambda f: grad(lambda q, k, v: loss(vmap(f))(q, k, v), argnums=(0, 1, 2))(
        three(Q), three(K), three(V)
    ),
    "grad of vmap, keys shared": lambda f: grad(
        lambda q, k, v: vmap(f, in_dims=(0, None, None))(q, k, v).square().sum(), argnums=(0, 1, 2)
    )(three(Q), K, V),
    "vmap of jacrev": lambda f: vmap(jacrev(f))(three(Q), three(K), three(V)),
    "vjp of vmap": lambda f: vjp(vmap(f), three(Q), three(K), three(V))[1](three(tensor(2, 2, 4, 3, seed=9))),
}


@pytest.mark.parametrize("name", list(TRANSFORMS))
def test_a_transform_of_pytorchs_attention_gives_the_same_of_ours(name: str) -> None:
    wanted = torch.utils._pytree.tree_leaves(TRANSFORMS[name](scaled_dot_product_attention))
    actual = torch.utils._pytree.tree_leaves(TRANSFORMS[name](attention))
    assert len(actual) == len(wanted) > 0
    for a, w in zip(actual, wanted, strict=True):
        torch.testing.assert_close(a, w, rtol=1e-11, atol=1e-11)


def test_a_backward_pass_through_a_vmapped_call_is_that_of_pytorchs() -> None:
    grads: list[Tensor] = []
    for f in (attention, scaled_dot_product_attention):
        q = three(Q).requires_grad_()
        vmap(f, in_dims=(0, None, None))(q, K, V).square().sum().backward()
        assert q.grad is not None
        grads.append(q.grad)
    torch.testing.assert_close(*grads, rtol=1e-11, atol=1e-11)


def test_a_boolean_mask_may_be_mapped_over_as_pytorchs_may() -> None:
    seen = torch.arange(60).reshape(3, 4, 5) % 3 > 0
    ours = vmap(lambda q, k, v, m: attention(q, k, v, mask=DenseMask(m)))
    torchs = vmap(lambda q, k, v, m: scaled_dot_product_attention(q, k, v, attn_mask=m))
    given = (three(Q), three(K), three(V), seen)
    torch.testing.assert_close(ours(*given), torchs(*given), rtol=1e-11, atol=1e-11)


def test_a_bias_may_be_differentiated_and_mapped_over_as_pytorchs_may() -> None:
    def ours(b: Tensor) -> Tensor:
        return attention(Q, K, V, bias=DenseBias(b)).square().sum()

    def torchs(b: Tensor) -> Tensor:
        return scaled_dot_product_attention(Q, K, V, attn_mask=b).square().sum()

    biases = tensor(3, 4, 5, seed=3)
    torch.testing.assert_close(vmap(grad(ours))(biases), vmap(grad(torchs))(biases), rtol=1e-11, atol=1e-11)


WHAT_IS_MAPPED: dict[str, tuple[Callable[[Tensor], Any], Tensor]] = {
    "lengths": (lambda t: attention(Q, K, V, mask=Lengths(k=t)), torch.tensor([[3, 4], [5, 5], [1, 0]])),
    "boundaries": (lambda t: attention(Q, K, V, mask=Packed(t)), torch.tensor([[0, 2, 4], [0, 1, 3], [0, 0, 4]])),
    "prefixes": (lambda t: attention(Q, K, V, mask=Prefix(t)), torch.tensor([[1, 2], [3, 4], [5, 0]])),
    "causal and lengths": (
        lambda t: attention(Q, K, V, mask=Causal() & Lengths(k=t)),
        torch.tensor([[3, 4], [5, 5], [1, 2]]),
    ),
    "slopes": (lambda t: attention(Q, K, V, bias=Alibi(t)), tensor(3, 2, seed=4)),
    "a table": (lambda t: attention(Q, K, V, bias=RelativeBias(t)), tensor(3, 8, 2, seed=5)),
    "sinks": (lambda t: attention(Q, K, V, sinks=t), tensor(3, 2, seed=6)),
    "keys of entries": (
        lambda t: AttentionMatrix(Q, K).reduce({"it": Entries(t)})["it"],
        torch.arange(24).reshape(3, 4, 2) % 5,
    ),
    "ids of segments": (
        lambda t: AttentionMatrix(Q, K).reduce({"it": SegmentMass(t, 3)})["it"],
        torch.arange(15).reshape(3, 5) % 3,
    ),
    "chosen rows": (
        lambda t: AttentionMatrix(Q, K).reduce({"it": Rows(t)})["it"],
        torch.tensor([[0, -1], [2, 2], [3, 0]]),
    ),
    "values": (lambda t: AttentionMatrix(Q, K) @ t, tensor(3, 5, 2, seed=7)),
    "weights of rows": (lambda t: AttentionMatrix(Q, K).reduce({"it": Received(t)})["it"], tensor(3, 4, seed=8)),
    "slices": (lambda t: AttentionMatrix(t, K)[..., 1:3, -1], three(Q)),
    "relevance": (lambda t: relevance(AttentionMatrix(Q, K), V, t, {"it": Received()})["it"], three(Q)),
    "rollout": (lambda t: rollout([AttentionMatrix(Q, K[:, :, :4])] * 2, t), tensor(3, 2, 4, seed=1)),
}


@pytest.mark.parametrize("name", list(WHAT_IS_MAPPED))
def test_vmap_over_what_a_mask_bias_or_reduction_holds_is_a_loop(name: str) -> None:
    call, given = WHAT_IS_MAPPED[name]
    torch.testing.assert_close(vmap(call)(given), torch.stack([call(t) for t in given]), rtol=1e-13, atol=1e-13)


def test_every_kind_of_reduction_may_be_mapped_and_differentiated() -> None:
    def call(q: Tensor, k: Tensor, v: Tensor) -> dict[str, Any]:
        reductions = {
            "entropy": Entropy(), "lse": LogSumExp(), "peak": Peak(), "top": TopK(2), "received": Received(),
            "blocks": BlockMass(2, 2), "largest": ColumnMax(), "moment": RowMoment(v), "columns": ColumnMoment(q),
        }  # fmt: skip
        return dict(observe(q, k, v, reductions, mask=Causal()))

    mapped = vmap(call)(three(Q), three(K), three(V))
    looped = [call(*one) for one in zip(three(Q), three(K), three(V), strict=True)]
    for name, made in mapped.items():
        for at, alone in enumerate(looped):
            torch.testing.assert_close(
                torch.utils._pytree.tree_map(lambda t, at=at: t[at], made), alone[name], rtol=1e-13, atol=1e-13
            )

    def total(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        made = call(q, k, v)
        return sum(made[name].square().sum() for name in ("entropy", "lse", "received", "blocks", "moment", "columns"))  # type: ignore[return-value]

    together = vmap(grad(total, argnums=(0, 1, 2)))(three(Q), three(K), three(V))
    for at, one in enumerate(zip(three(Q), three(K), three(V), strict=True)):
        for made, alone in zip(together, grad(total, argnums=(0, 1, 2))(*one), strict=True):
            torch.testing.assert_close(made[at], alone, rtol=1e-13, atol=1e-13)


def test_gradients_per_sample_of_a_module_are_those_of_pytorchs_attention() -> None:
    class Layer(torch.nn.Module):
        def __init__(self, f: Attention) -> None:
            super().__init__()
            self.f, self.project = f, torch.nn.Linear(3, 3, dtype=torch.float64)

        def forward(self, x: Tensor) -> Tensor:
            return self.f(self.project(x), x, x)

    found = []
    for f in (attention, scaled_dot_product_attention):
        layer = Layer(f)
        parameters = {name: torch.full_like(p, 0.3).cumsum(0).detach() for name, p in layer.named_parameters()}

        def one(parameters: dict[str, Tensor], x: Tensor, layer: Layer = layer) -> Tensor:
            return functional_call(layer, parameters, (x[None],)).square().sum()

        found.append(vmap(grad(one), in_dims=(None, 0))(parameters, K))
    for name in found[0]:
        torch.testing.assert_close(found[0][name], found[1][name], rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("name", ["jvp", "jacfwd"])
def test_forward_mode_is_refused_where_pytorchs_attention_refuses_it_and_the_definition_has_it(name: str) -> None:
    def transform(f: Attention) -> Any:
        return jvp(f, (Q, K, V), (V[:, :, :4], Q[:, :, [0, 1, 2, 3, 3]], K))[1] if name == "jvp" else jacfwd(f)(Q, K, V)

    for refusing in (scaled_dot_product_attention, attention):
        with pytest.raises(NotImplementedError):
            transform(refusing)
    defined = transform(lambda q, k, v: attention(q, k, v, backend="dense"))
    wanted = transform(lambda q, k, v: (q @ k.mT / 3**0.5).softmax(-1) @ v)
    torch.testing.assert_close(defined, wanted, rtol=1e-11, atol=1e-11)


def test_a_gradient_of_a_gradient_is_refused_where_pytorchs_attention_refuses_it() -> None:
    def twice(f: Attention) -> Tensor:
        return grad(lambda q: grad(loss(f))(q, K, V).square().sum())(Q)

    with pytest.raises(RuntimeError, match="not implemented"):
        twice(scaled_dot_product_attention)
    with pytest.raises(Unsupported, match=r"gradient of a gradient.*backend='dense'"):
        twice(attention)
    torch.testing.assert_close(
        twice(lambda q, k, v: attention(q, k, v, backend="dense")),
        twice(lambda q, k, v: (q @ k.mT / 3**0.5).softmax(-1) @ v),
        rtol=1e-11,
        atol=1e-11,
    )
