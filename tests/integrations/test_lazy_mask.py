"""The lazy mask says exactly what Transformers' dense mask says, without ever holding it."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from transformers.masking_utils import (
    and_masks,
    bidirectional_mask_function,
    blockwise_overlay,
    causal_mask_function,
    chunked_causal_mask_function,
    or_masks,
    packed_sequence_compatibility_function,
    sdpa_mask,
    sliding_window_bidirectional_mask_function,
    sliding_window_causal_mask_function,
)

from sightline._dims import Dims
from sightline.errors import Unsupported
from sightline.integrations import _mask_lowering
from sightline.integrations._lazy_mask import LazyMask, lazy_mask
from sightline.masks import Causal, Intervals

CPU = torch.device("cpu")
B, M = 2, 12
LEFT_PADDING = torch.tensor([3, 0])
PACKED_IDS = torch.tensor([[0] * 5 + [1] * 4 + [2] * 3, [0] * 2 + [1] * 10])
PACKED_POSITIONS = torch.tensor([[*range(5), *range(4), *range(3)], [*range(2), *range(10)]])
IMAGES = torch.tensor([[-1, -1, 0, 0, 0, -1, -1, 1, 1, -1, -1, -1], [-1] * 6 + [0] * 4 + [-1] * 2])

PATTERNS: dict[str, Callable[..., Any]] = {
    "causal": causal_mask_function,
    "bidirectional": bidirectional_mask_function,
    "sliding": sliding_window_causal_mask_function(4),
    "sliding both ways": sliding_window_bidirectional_mask_function(2),
    "chunked": chunked_causal_mask_function(5, LEFT_PADDING),
    "packed": packed_sequence_compatibility_function(causal_mask_function, PACKED_POSITIONS, PACKED_IDS),
    "images": or_masks(causal_mask_function, blockwise_overlay(IMAGES)),
    "images, sliding": or_masks(sliding_window_causal_mask_function(4), blockwise_overlay(IMAGES)),
    "every other key": and_masks(causal_mask_function, lambda b, h, q, k: (k - q) % 2 == 0),
}
PADDINGS: dict[str, Tensor | None] = {
    "none": None,
    "all real": torch.ones(B, M, dtype=torch.bool),
    "left": torch.arange(M) >= torch.tensor([[3], [0]]),
    "right": torch.arange(M) < torch.tensor([[M], [8]]),
    "holes": torch.rand(B, M, generator=torch.Generator().manual_seed(0)) > 0.4,
    "nothing real": torch.tensor([[False], [True]]).expand(B, M),
    "shorter than the cache": torch.arange(M - 3) >= torch.tensor([[2], [0]]),
}
# n, m, q_offset, k_offset: prefill, decoding, a chunk, a static cache with empty slots, a sliding cache
PLACES = [(12, 12, 0, 0), (1, 12, 11, 0), (5, 12, 7, 0), (4, 12, 3, 0), (1, 12, 6, 0), (3, 6, 9, 6)]


def dense(mask: LazyMask, n: int, m: int) -> Tensor:
    lowered = mask.lowered(CPU).mask
    if lowered is None:
        return torch.ones(B, 1, n, m, dtype=torch.bool)
    return lowered.dense(Dims(B, 1, 1, n, m, 1)).expand(B, 1, n, m)


@pytest.mark.parametrize("place", PLACES, ids=str)
@pytest.mark.parametrize("padding", PADDINGS)
@pytest.mark.parametrize("pattern", PATTERNS)
def test_says_what_the_dense_mask_says(pattern: str, padding: str, place: tuple[int, int, int, int]) -> None:
    n, m, q_offset, k_offset = place
    asked = {
        "batch_size": B,
        "q_length": n,
        "kv_length": m,
        "q_offset": q_offset,
        "kv_offset": k_offset,
        "mask_function": PATTERNS[pattern],
        "attention_mask": PADDINGS[padding],
    }
    expected = sdpa_mask(**asked, allow_is_causal_skip=False)
    mask = lazy_mask(**asked)
    assert torch.equal(dense(mask, n, m), expected)
    assert mask.shape == expected.shape
    assert mask.lowered(CPU).key_start == k_offset
    if pattern != "bidirectional":
        assert mask.lowered(CPU).query_start == q_offset


def test_evaluates_functions_that_need_vmap() -> None:
    def data_dependent(b: Tensor, h: Tensor, q: Tensor, k: Tensor) -> Tensor:
        return IMAGES[b][k] < 0  # indexes with a scalar: broadcast index tensors would not do

    asked = {"batch_size": B, "q_length": M, "kv_length": M, "use_vmap": True}
    for function in (data_dependent, and_masks(causal_mask_function, data_dependent)):
        expected = sdpa_mask(**asked, mask_function=function, allow_is_causal_skip=False)
        assert torch.equal(dense(lazy_mask(**asked, mask_function=function), M, M), expected)


def test_the_plain_cases_are_the_plain_masks() -> None:
    assert isinstance(lazy_mask(B, M, M).lowered(CPU).mask, Causal)
    assert isinstance(lazy_mask(B, 4, M, q_offset=M - 4).lowered(CPU).mask, Causal)
    assert lazy_mask(B, 1, M, q_offset=M - 1).lowered(CPU).mask is None
    assert lazy_mask(B, M, M, mask_function=bidirectional_mask_function).lowered(CPU).mask is None
    padded = lazy_mask(B, M, M, attention_mask=PADDINGS["left"]).lowered(CPU).mask
    assert isinstance(padded, Intervals), "padding on one side keeps every row an interval"


@pytest.mark.parametrize("block", [1, 50, 1 << 20])
def test_rows_are_evaluated_in_blocks(monkeypatch: pytest.MonkeyPatch, block: int) -> None:
    monkeypatch.setattr(_mask_lowering, "_BLOCK_ENTRIES", block)
    for pattern in ("sliding", "packed", "every other key"):
        expected = sdpa_mask(B, M, M, mask_function=PATTERNS[pattern], allow_is_causal_skip=False)
        assert torch.equal(dense(lazy_mask(B, M, M, mask_function=PATTERNS[pattern]), M, M), expected)


def test_a_large_mask_that_is_no_interval_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_mask_lowering, "_DENSE_ENTRIES", 100)
    with pytest.raises(Unsupported, match="not one interval"):
        lazy_mask(B, M, M, mask_function=PATTERNS["every other key"]).lowered(CPU)
    sliding = lazy_mask(B, M, M, mask_function=PATTERNS["sliding"]).lowered(CPU)
    assert isinstance(sliding.mask, Intervals), "intervals have no such limit"


def test_offsets_are_copied() -> None:
    # A static cache passes the tensor that it counts with and advances it before the first layer reads the mask.
    counter = torch.tensor(3)
    mask = lazy_mask(1, 2, M, q_offset=counter)
    counter += 2
    assert mask.lowered(CPU).query_start == 3
    lowered = mask.lowered(CPU).mask
    assert isinstance(lowered, Intervals)
    assert lowered.hi.tolist() == [[4, 5]]


def test_lowered_once_for_all_layers() -> None:
    mask = lazy_mask(B, M, M, mask_function=PATTERNS["sliding"])
    assert mask.lowered(CPU) is mask.lowered(CPU)


def test_is_a_tensor_that_describes_itself() -> None:
    mask = lazy_mask(B, 3, M, q_offset=M - 3)
    assert isinstance(mask, Tensor)
    assert (mask.shape, mask.ndim, mask.dim(), mask.size(-1), len(mask)) == ((B, 1, 3, M), 4, 4, M, B)
    assert (mask.dtype, mask.device, mask.stride()) == (torch.bool, CPU, (0, 0, 0, 0))
    assert "queries from 9" in repr(mask)
    # Generation with a static cache calls contiguous(), device maps call to(): both keep it.
    for kept in (mask.contiguous(), mask.to("cpu"), mask.detach(), mask.clone(), copy.deepcopy(mask)):
        assert kept is mask
    assert {mask: 1}[mask] == 1


@pytest.mark.parametrize(
    "read",
    [
        lambda mask: mask[:, :, :, :2],
        lambda mask: mask + 0.0,
        lambda mask: ~mask,
        lambda mask: torch.where(mask, 0.0, 1.0),
        lambda mask: mask.all(),
        lambda mask: mask.tolist(),
        lambda mask: mask.numpy(),
        lambda mask: bool(mask),
        lambda mask: mask.expand(4, -1, -1, -1),
        lambda mask: torch.cat([mask, mask]),
        lambda mask: torch.zeros(B, 1, 3, M).masked_fill(mask, 1.0),
        lambda mask: torch.nn.functional.scaled_dot_product_attention(
            torch.zeros(B, 1, 3, 4), torch.zeros(B, 1, M, 4), torch.zeros(B, 1, M, 4), attn_mask=mask
        ),
    ],
)
def test_reading_its_values_raises(read: Callable[[Tensor], object]) -> None:
    with pytest.raises(Unsupported, match="reads the values of its attention mask"):
        read(lazy_mask(B, 3, M, q_offset=M - 3))


class Largest(TorchDispatchMode):
    """Watches every tensor that is made, and keeps the largest size in bytes."""

    nbytes = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for part in result if isinstance(result, tuple) else (result,):
            if isinstance(part, Tensor):
                self.nbytes = max(self.nbytes, part.untyped_storage().nbytes())
        return result


@pytest.mark.parametrize("pattern", ["causal", "sliding", "images"])
def test_memory_stays_linear(pattern: str) -> None:
    n = 4096  # the boolean matrix would be 16 MiB
    images = torch.full((1, n), -1)
    images[:, 100:300] = 0
    function = or_masks(causal_mask_function, blockwise_overlay(images)) if pattern == "images" else PATTERNS[pattern]
    real = torch.arange(n)[None] >= 10
    with Largest() as largest:
        lowered = lazy_mask(1, n, n, mask_function=function, attention_mask=real).lowered(CPU).mask
    assert isinstance(lowered, Intervals)
    assert lowered.lo.numel() + lowered.hi.numel() == 2 * n
    assert largest.nbytes <= _mask_lowering._BLOCK_ENTRIES
