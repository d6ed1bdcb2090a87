"""A tensor's bytes, seen and not copied."""

from __future__ import annotations

import ctypes

from torch import Tensor

__all__ = ["plain", "raw"]


def raw(tensor: Tensor) -> memoryview:
    """The bytes of a contiguous tensor on the CPU, writable, in the machine's order. The tensor must outlive the view.

    Not by way of NumPy, which knows no bfloat16 and need not be installed.
    """
    if not tensor.is_contiguous() or tensor.device.type != "cpu":
        raise ValueError("the bytes of a tensor are looked at where it is contiguous and on the CPU")
    size = tensor.numel() * tensor.element_size()
    if not size:
        return memoryview(bytearray())
    return memoryview((ctypes.c_char * size).from_address(tensor.data_ptr())).cast("B")


def plain(tensor: Tensor) -> Tensor:
    """The tensor without a graph, on the CPU and contiguous, as its bytes are written."""
    return tensor.detach().to("cpu").contiguous()
