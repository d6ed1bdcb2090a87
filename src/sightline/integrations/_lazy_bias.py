"""T5's position bias as a specification.

T5 and the models made from it add a learned bias to their logits. They make it in the first layer, a [1,h,n,m] tensor,
and hand it on from layer to layer; cross-attention gets one of zeros. `lazy_biases` gives their attention modules, by a
hook on each, a `LazyBias` before they make their own. A module whose bias is not the one specified here is left alone,
and so is a model that was switched by hand: exact, in quadratic memory.

Source: Raffel et al. 2020, §2.1; transformers/models/t5/modeling_t5.py (`T5Attention`), transformers 5.23.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from .._dims import Dims
from ..biases import Added, Bias, RelativeBias
from ..errors import SpecError
from ._lazy import LazyTensor
from ._source import dispatches


@dataclass(frozen=True, eq=False)
class PlacedBias(Bias):
    """A relative bias of queries that stand at `start` among the keys, not at their end: a static cache ends in empty
    slots. Query i stands at key position start + i.
    """

    bias: RelativeBias
    start: int

    def _as_if_to_the_end(self, dims: Dims) -> Dims:
        """The same keys, with queries from `start` to their end: the first n of them are those of the call."""
        return replace(dims, n=max(dims.n, dims.m - self.start))

    def dense(self, dims: Dims, device: torch.device | str = "cpu") -> Tensor:
        return self.bias.dense(self._as_if_to_the_end(dims), device)[:, :, : dims.n]

    def lowered(self, dims: Dims, device: torch.device, dtype: torch.dtype) -> Added:
        relative = self.bias.lowered(self._as_if_to_the_end(dims), device, dtype).relative
        assert relative is not None
        return Added(relative=relative[:, -(dims.n + dims.m - 1) :])


class LazyBias(LazyTensor):
    """A stride-0 [1,h,1,1] tensor without values. `bias` is the bias that it stands for; None is one of zeros."""

    what = "position bias"
    bias: Bias | None

    @staticmethod
    def of(bias: Bias | None, heads: int, like: Tensor) -> LazyBias:
        lazy = like.new_zeros(()).expand(1, heads, 1, 1).as_subclass(LazyBias)
        lazy.bias = bias
        return lazy

    def __repr__(self, *, tensor_contents: object = None) -> str:
        return f"LazyBias({self.bias})"


@contextmanager
def lazy_biases(model: nn.Module, name: str) -> Generator[None]:
    """Inside the block, attention modules of this model get lazy biases while `name` is their implementation."""

    hooks = [m.register_forward_pre_hook(_giver(m, name), with_kwargs=True) for m in model.modules() if _takes_bias(m)]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def _giver(module: nn.Module, name: str) -> Callable[..., tuple[tuple[Any, ...], dict[str, Any]] | None]:
    """A hook that puts a lazy bias among the arguments of a call of `module`, where they hold none."""
    signature = inspect.signature(module.forward)

    @torch.compiler.disable(reason="a lazy bias is plain Python; the model around it still compiles")
    def give(module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        call = signature.bind_partial(*args, **kwargs)
        given = call.arguments
        if module.config._attn_implementation != name or given.get("position_bias") is not None:
            return None
        bias: Bias | None = None
        if module.has_relative_attention_bias:
            cache = given.get("past_key_values")
            # A number: a static cache hands out the tensor that it counts with, and advances it in place.
            start = 0 if cache is None else int(cache.get_seq_length(module.layer_idx))
            bias = PlacedBias(_specified(module), start)
        given["position_bias"] = LazyBias.of(bias, module.n_heads, given["hidden_states"])
        return call.args, call.kwargs

    return give


def _specified(module: Any) -> RelativeBias:
    return RelativeBias(
        module.relative_attention_bias.weight, not module.is_decoder, module.relative_attention_max_distance
    )


_TAKEN = {"hidden_states", "key_value_states", "position_bias", "past_key_values"}
_HELD = ("config", "has_relative_attention_bias", "compute_bias", "is_decoder", "n_heads", "layer_idx")


def _takes_bias(module: nn.Module) -> bool:
    """Whether the module is an attention as T5's, and its bias, if it has one, is that of `RelativeBias`."""
    if not dispatches(type(module)) or not all(hasattr(module, name) for name in _HELD):
        return False
    if not set(inspect.signature(module.forward).parameters) >= _TAKEN:
        return False
    return not module.has_relative_attention_bias or _is_as_specified(module)


def _is_as_specified(module: Any) -> bool:
    """Compare, over every bucket, the bias that the module makes with the one specified."""
    table = module.relative_attention_bias
    # Not one that an adapter wraps, nor one whose weights are elsewhere until it is called.
    if type(table) is not nn.Embedding or table.weight.is_meta:
        return False
    far = module.relative_attention_max_distance + 1
    for start in (0, far, 2 * far):
        with torch.no_grad():
            made = module.compute_bias(1, 2 * far + 1, past_seen_tokens=start)
        dims = Dims(1, module.n_heads, module.n_heads, 1, 2 * far + 1, 1)
        try:
            specified = PlacedBias(_specified(module), start).dense(dims, made.device)
        except SpecError:
            return False  # such as an odd number of buckets: the model knows what it means
        if not torch.equal(made, specified.detach()):
            return False
    return True
