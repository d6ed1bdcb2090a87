"""A mask that Transformers passes around as a tensor and that is never one.

Transformers asks a mask function, once per forward and kind of layer, for a [b,1,n,m] tensor. `LazyMask` is what ours
returns: a tensor of one element, stretched to that shape, that carries the specification of the mask. It must be a
tensor, because Transformers recognises a mask that is already made by its four dimensions and makes a new one
otherwise. Nothing may read its values: any operation that would raises Unsupported.

Source: transformers/masking_utils.py (`sdpa_mask`, `_preprocess_mask_arguments`), transformers 5.23.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from transformers.masking_utils import causal_mask_function

from ..errors import Unsupported
from ._mask_lowering import Lowered, MaskSpec, lower


class LazyMask(Tensor):
    """A stride-0 [b,1,n,m] boolean tensor without values. `lowered(device)` is the mask it stands for."""

    _spec: MaskSpec
    _cache: dict[torch.device, Lowered]

    @staticmethod
    def of(spec: MaskSpec) -> LazyMask:
        one = torch.zeros((), dtype=torch.bool, device=spec.device)
        mask = one.expand(spec.batch, 1, spec.n, spec.m).as_subclass(LazyMask)
        mask._spec = spec
        mask._cache = {}
        return mask

    def lowered(self, device: torch.device) -> Lowered:
        """The mask in Sightline's terms, on this device. Worked out on first use, then shared by all layers."""
        if device not in self._cache:
            self._cache[device] = lower(self._spec, device)
        return self._cache[device]

    def __repr__(self, *, tensor_contents: object = None) -> str:
        spec = self._spec
        shape = f"[{spec.batch}, 1, {spec.n}, {spec.m}]"
        return f"LazyMask({shape}, queries from {spec.q_offset}, keys from {spec.k_offset})"

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
            f"the model reads the values of its attention mask itself ({name}); under Sightline a mask is a "
            "specification, and no N×N tensor is ever built. This model's attention needs a mask in memory: run it "
            "with its own attention implementation."
        )


# What leaves the mask as it is. A change of dtype too: what matters is who admits whom, and arithmetic on it raises.
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


@torch.compiler.disable(reason="masks are worked out from their values, outside of any graph")
def lazy_mask(
    batch_size: int,
    q_length: int,
    kv_length: int,
    q_offset: int | Tensor = 0,
    kv_offset: int | Tensor = 0,
    mask_function: Callable[..., Any] = causal_mask_function,
    attention_mask: Tensor | None = None,
    use_vmap: bool = False,
    device: torch.device | str = "cpu",
    **_unread: Any,
) -> LazyMask:
    """The mask function registered with Transformers: same arguments as its `sdpa_mask`, nothing evaluated.

    Offsets are copied to numbers now: a static cache passes the tensor that it counts with, and advances it in place
    before the first layer reads the mask. Arguments that are not read only allow leaving the mask out (`allow_*_skip`,
    `local_size`), set the dtype of a dense one, or describe the model (`config`). It is never left out: it carries the
    positions, too.
    """
    return LazyMask.of(
        MaskSpec(
            batch=batch_size,
            n=int(q_length),
            m=int(kv_length),
            q_offset=int(q_offset),
            k_offset=int(kv_offset),
            function=mask_function,
            padding=attention_mask,
            use_vmap=use_vmap,
            device=torch.device(device),
        )
    )
