"""What a call of a module does: the tensors it makes, and the operations it runs."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode


def inputs(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(5))


def close(a: Tensor, b: Tensor) -> bool:
    return a.shape == b.shape and a.dtype == b.dtype and torch.allclose(a, b, rtol=1e-4, atol=1e-5)


class Seen(TorchDispatchMode):
    """The largest tensor that any operation made, and the operations by name."""

    def __init__(self) -> None:
        super().__init__()
        self.largest, self.names = 0, set[str]()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = func(*args, **(kwargs or {}))
        self.names.add(str(func).rpartition(".")[0])
        given = {t.untyped_storage().data_ptr() for t in args if isinstance(t, Tensor) and not t.is_nested}
        for t in made if isinstance(made, tuple | list) else (made,):
            if isinstance(t, Tensor) and not t.is_nested and t.untyped_storage().data_ptr() not in given:
                self.largest = max(self.largest, t.untyped_storage().nbytes())
        return made


FUSED = {"aten._transformer_encoder_layer_fwd", "aten._native_multi_head_attention"}


def fused(module: nn.Module, *args: Any, **kwargs: Any) -> set[str]:
    """The fused kernels that a call without gradients runs."""
    with torch.no_grad(), Seen() as seen:
        module(*args, **kwargs)
    return seen.names & FUSED
