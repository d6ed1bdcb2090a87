"""What the decoder of a Marian student remembers from one token to the next."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

__all__ = ["DecoderCache"]


@dataclass
class DecoderCache:
    """What decoding remembers: tokens read; each layer's cell [b,d]; keys and values [b,h,m,d/h] of the source.

    It takes the same memory at every length. The cell of an earlier position cannot be had back.
    """

    length: int
    cells: list[Tensor]
    source: list[tuple[Tensor, Tensor]]

    is_compileable = False

    def get_seq_length(self, layer_idx: int = 0) -> int:
        """Tokens read."""
        return self.length

    def reorder_cache(self, beam_idx: Tensor) -> None:
        """Go on with other hypotheses: entry i becomes what entry beam_idx[i] was."""
        self.cells = [cell.index_select(0, beam_idx) for cell in self.cells]
        self.source = [(k.index_select(0, beam_idx), v.index_select(0, beam_idx)) for k, v in self.source]
