"""Tensors that carry a specification in place of values.

Masks and position biases travel from a model to its attention as tensors of N×N elements. A `LazyTensor` takes the
place of one: it holds one element, stretched to the shape with strides of 0, and says what the tensor would have held.
It is a tensor because models ask it for its shape, its dtype and its device, which it answers. Nothing may read its
values: any operation that would raises Unsupported.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from ..errors import Unsupported


class LazyTensor(Tensor):
    """A stride-0 tensor without values; `what` names in errors what it stands for."""

    what = "a tensor"

    @classmethod
    def __torch_function__(
        cls,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        if func in _KEEPS:
            return args[0]
        if func in _DESCRIBES:
            with torch._C.DisableTorchFunctionSubclass():
                return func(*args, **(kwargs or {}))
        name = getattr(func, "__qualname__", None) or getattr(func, "__name__", repr(func))
        raise Unsupported(
            f"the model reads the values of its {cls.what} itself ({name}); under Sightline it is a specification, and "
            f"no N×N tensor is ever built. This model's attention needs its {cls.what} in memory: run it with its own "
            "attention implementation."
        )


# What leaves it as it is. A change of dtype too: it has no values to convert, and arithmetic on it raises.
_KEEPS: frozenset[Any] = frozenset(
    {Tensor.contiguous, Tensor.to, Tensor.detach, Tensor.clone, Tensor.cpu, Tensor.cuda, Tensor.__deepcopy__}
)
# What asks about the tensor and not for its values: models do, and torch.compile of all that enters a graph.
_ATTRIBUTES = [
    "shape", "dtype", "device", "ndim", "layout", "requires_grad", "is_cuda", "is_cpu", "is_meta", "is_leaf",
    "_base", "grad", "grad_fn", "is_mkldnn", "is_nested", "is_quantized", "is_sparse",
]  # fmt: skip
_METHODS = [
    "size", "dim", "numel", "stride", "is_contiguous", "is_floating_point", "is_complex", "get_device",
    "__len__", "__hash__", "_is_view", "is_conj", "is_neg", "storage_offset", "untyped_storage",
]  # fmt: skip
_DESCRIBES: frozenset[Any] = frozenset(
    [getattr(Tensor, name).__get__ for name in _ATTRIBUTES] + [getattr(Tensor, name) for name in _METHODS]
)
