"""What was observed in one attention call."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ..errors import SpecError
from ..matrix import AttentionMatrix
from .call import Kind
from .kept import Kept

__all__ = ["Record"]


@dataclass(frozen=True)
class Record(Mapping[str, Any]):
    """The reductions of one call, by name: `record["entropy"]`.

    `shape` is (b, H, n, m) of what was recorded, `heads` are the model's numbers of the H query heads that the results'
    head dimension holds. `query_positions` (None where not known) and `key_positions` are those of P's rows and columns
    in the model's input, padding included (see `Call`). In beam search the batch dimension holds the beams; the keys of
    a static cache include its slots that are still empty.
    """

    module: str
    kind: Kind
    shape: tuple[int, int, int, int]
    query_positions: range | None
    key_positions: range
    heads: range | tuple[int, ...]
    results: Mapping[str, Any] = field(repr=False)
    kept: Kept | None = field(default=None, repr=False)

    def __getitem__(self, name: str) -> Any:
        if name not in self.results:
            raise KeyError(f"{name!r} was not recorded; recorded were {', '.join(self.results) or 'q and k alone'}")
        return self.results[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.results)

    def __len__(self) -> int:
        return len(self.results)

    def matrix(self, head: int | None = None) -> AttentionMatrix:
        """The matrix of this call, [b, 1, n, m] of one of the model's heads, or [b, H, n, m] of all that were recorded.

        It is read from disk, and its log-sum-exp is known: a slice of it costs what the slice costs. Raises SpecError
        where q and k were not kept, and for a head that was not recorded.
        """
        if self.kept is None:
            raise SpecError(
                f"the matrix of {self.module} was asked for; only reductions of it were kept. "
                'Record with keep="qk", and any weight can be computed later.'
            )
        if head is not None and head not in self.heads:
            raise SpecError(
                f"head {head} of {self.module} was asked for; recorded were {_few(self.heads)}. Choose one of them."
            )
        return self.kept.matrix(self.heads, self.heads if head is None else [head])


def _few(heads: Sequence[int]) -> str:
    if isinstance(heads, range):
        return f"heads {heads.start} to {heads.stop - 1}"
    return "heads " + ", ".join(map(str, heads))
