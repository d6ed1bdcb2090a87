"""A mask that Transformers passes around as a tensor and that is never one.

Transformers asks a mask function, once per forward and kind of layer, for a [b,1,n,m] tensor. `LazyMask` is what ours
returns: a tensor of one element, stretched to that shape, that carries the specification of the mask. It must be a
tensor, because Transformers recognises a mask that is already made by its four dimensions and makes a new one
otherwise.

Source: transformers/masking_utils.py (`sdpa_mask`, `_preprocess_mask_arguments`), transformers 5.23.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from transformers.masking_utils import bidirectional_mask_function, causal_mask_function

from ._lazy import LazyTensor
from ._mask_lowering import Lowered, MaskSpec, lower


class LazyMask(LazyTensor):
    """A stride-0 [b,1,n,m] boolean tensor without values. `lowered(device)` is the mask it stands for."""

    what = "attention mask"
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


@torch.compiler.disable(reason="masks are worked out from their values, outside of any graph")
def lazy_mask(
    batch_size: int,
    q_length: int,
    kv_length: int,
    q_offset: int | Tensor = 0,
    kv_offset: int | Tensor = 0,
    mask_function: Callable[..., Any] = causal_mask_function,
    attention_mask: Tensor | None = None,
    allow_is_bidirectional_skip: bool | None = None,
    use_vmap: bool = False,
    device: torch.device | str = "cpu",
    **_unread: Any,
) -> LazyMask:
    """The mask function registered with Transformers: same arguments as its `sdpa_mask`, nothing evaluated.

    Offsets are copied to numbers now: a static cache passes the tensor that it counts with, and advances it in place
    before the first layer reads the mask. `allow_is_bidirectional_skip` is passed for bidirectional masks alone, as
    True or False, and tells them from causal ones. Arguments that are not read only allow leaving the mask out
    (`allow_is_causal_skip`, `local_size`), set the dtype of a dense one, or describe the model (`config`). It is never
    left out: it carries the positions, too.
    """
    return LazyMask.of(
        MaskSpec(
            batch=batch_size,
            n=int(q_length),
            m=int(kv_length),
            q_offset=int(q_offset),
            k_offset=int(kv_offset),
            function=mask_function,
            causal=allow_is_bidirectional_skip is None and mask_function is not bidirectional_mask_function,
            padding=attention_mask,
            use_vmap=use_vmap,
            device=torch.device(device),
        )
    )
