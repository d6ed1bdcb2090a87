"""The header of a trace: what the tensors of the file are. format.md describes it for readers in other languages."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Literal

import msgspec

from ..errors import TraceError
from .call import Kind

__all__ = ["VERSION", "CallHeader", "Header", "KeptHeader", "ScoresHeader", "TensorHeader", "TokensHeader"]

VERSION = 1
"""Raised when a reader of the earlier format would misread a file."""

_MOST = 1 << 40
"""No number of tokens, heads or positions is larger than this."""


class _Part(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A part of the header: what it does not know it refuses."""


class TensorHeader(_Part, frozen=True):
    """A tensor of the file; dtype as safetensors spells it."""

    dtype: str
    shape: tuple[int, ...]


class TokensHeader(_Part, frozen=True):
    """See `Tokens`; ids and offsets name tensors."""

    ids: str
    strings: tuple[tuple[str, ...], ...]
    texts: tuple[str, ...] | None
    offsets: str | None


class ScoresHeader(_Part, frozen=True):
    """See `sightline.scores.Scores`; all but the numbers name tensors."""

    scale: float
    softcap: float | None
    lo: str | None
    hi: str | None
    allowed: str | None
    relative: str | None
    additive: str | None
    sinks: str | None


class KeptHeader(_Part, frozen=True):
    """See `Kept`; q, k and lse name tensors."""

    q: str
    k: str
    lse: str
    scores: ScoresHeader
    first: int
    stored: int
    group: int


class CallHeader(_Part, frozen=True):
    """See `Record`. A result names a tensor, or one for each field of a named tuple."""

    kind: Kind
    shape: tuple[int, int, int, int]
    query_start: int | None
    key_start: int
    heads: tuple[int, ...]
    results: dict[str, str | dict[str, str]]
    kept: KeptHeader | None


class Header(_Part, frozen=True):
    """All but the tensors."""

    version: Literal[1]
    written_by: str
    model: str | None
    reductions: dict[str, dict[str, str | int | float | None]]
    tokens: TokensHeader | None
    source: TokensHeader | None
    modules: dict[str, tuple[CallHeader, ...]]
    tensors: dict[str, TensorHeader]
    checksums: dict[str, int]
    """CRC-32 of each tensor's bytes."""

    def encode(self) -> bytes:
        """As JSON."""
        return msgspec.json.encode(self)

    @staticmethod
    def decode(text: bytes) -> Header:
        """From JSON. Raises TraceError where it is not a header, or contradicts itself."""
        try:
            version = msgspec.json.decode(text, type=_Version).version
            if version != VERSION:
                raise TraceError(
                    f"the trace is of version {version}; this sightline reads version {VERSION}. "
                    "Use the version of sightline that wrote it, or record it again."
                )
            header = msgspec.json.decode(text, type=Header)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise TraceError(f"the trace's header cannot be read: {error}. Record it again.") from error
        header.check()
        return header

    def check(self) -> None:
        """Raise TraceError where the parts do not fit together."""
        for complaint in self._complaints():
            raise TraceError(f"the trace's header contradicts itself: {complaint}. Record it again.")

    def _complaints(self) -> Iterator[str]:
        if self.tensors.keys() != self.checksums.keys():
            yield "it has not one checksum for each tensor"
        for tensor in self.tensors.values():
            if any(not 0 <= size < _MOST for size in tensor.shape):
                yield f"a tensor has the shape {tensor.shape}"
        for tokens in (self.tokens, self.source):
            if tokens is not None:
                yield from self._of_tokens(tokens)
        for name, calls in self.modules.items():
            for number, call in enumerate(calls):
                for complaint in self._of_call(call):
                    yield f"call {number} of {name}: {complaint}"

    def _shape(self, key: str) -> tuple[int, ...] | None:
        return self.tensors[key].shape if key in self.tensors else None

    def _of_tokens(self, tokens: TokensHeader) -> Iterator[str]:
        b = len(tokens.strings)
        lengths = {len(row) for row in tokens.strings}
        if len(lengths) != 1 or 0 in lengths:
            yield "its sequences of tokens differ in length"
            return
        (t,) = lengths
        if self._shape(tokens.ids) != (b, t):
            yield "its tokens' ids are not as many as its tokens"
        if tokens.texts is not None and len(tokens.texts) != b:
            yield "its texts are not as many as its sequences"
        if tokens.offsets is not None and self._shape(tokens.offsets) != (b, t, 2):
            yield "its tokens' offsets are not as many as its tokens"
        for key in (tokens.ids, tokens.offsets):
            if key is not None and key in self.tensors and self.tensors[key].dtype != "I64":
                yield f"{key} holds {self.tensors[key].dtype} and not I64"

    def _of_call(self, call: CallHeader) -> Iterator[str]:
        _, h, _, _ = call.shape
        if not all(0 < size < _MOST for size in call.shape):
            yield f"its shape is {call.shape}"
        if not 0 <= call.key_start < _MOST or not 0 <= (call.query_start or 0) < _MOST:
            yield "its positions are no positions"
        if len(call.heads) != h or len(set(call.heads)) != h or not all(0 <= head < _MOST for head in call.heads):
            yield "its heads are not as many as its results have"
        for name, result in call.results.items():
            if name not in self.reductions:
                yield f"its result {name!r} is none of the reductions"
            for key in [result] if isinstance(result, str) else result.values():
                if key not in self.tensors:
                    yield f"its result {name!r} is in no tensor"
        if call.kept is not None:
            yield from self._of_kept(call, call.kept)

    def _of_kept(self, call: CallHeader, kept: KeptHeader) -> Iterator[str]:
        b, h, n, m = call.shape
        q, k = self._shape(kept.q), self._shape(kept.k)
        if q is None or k is None or len(q) != 4 or len(k) != 4 or q[:3] != (b, h, n) or k[1] != b or q[3] != k[3]:
            yield "its queries and keys do not fit"
            return
        floats = {"F16", "BF16", "F32", "F64"}
        if self.tensors[kept.q].dtype not in floats or self.tensors[kept.q].dtype != self.tensors[kept.k].dtype:
            yield "its queries and keys have no common floating dtype"
        if self._shape(kept.lse) != (b, h, n):
            yield "its log-sum-exp does not fit"
        if kept.group < 1 or max(call.heads, default=0) // max(1, kept.group) >= k[2]:
            yield "its heads have no keys"
        if not (kept.first >= 0 and 0 <= kept.stored <= m and kept.first + kept.stored <= k[0]):
            yield "its keys lie outside of those that are kept"
        yield from self._of_scores(kept.scores, call.shape)

    def _of_scores(self, scores: ScoresHeader, shape: tuple[int, int, int, int]) -> Iterator[str]:
        b, h, n, m = shape
        if not math.isfinite(scores.scale) or (scores.softcap is not None and not scores.softcap > 0):
            yield "its scale or softcap is no scale or softcap"
        if (scores.lo is None) != (scores.hi is None):
            yield "its mask has one end"
        wanted: Mapping[str, tuple[tuple[int, ...], set[str]]] = {
            "lo": ((b, n), {"I32"}),
            "hi": ((b, n), {"I32"}),
            "allowed": ((b, h, n, m), {"BOOL"}),
            "relative": ((h, n + m - 1), {"F32", "F64"}),
            "additive": ((b, h, n, m), {"F16", "BF16", "F32", "F64"}),
            "sinks": ((h,), {"F16", "BF16", "F32", "F64"}),
        }
        for name, (full, dtypes) in wanted.items():
            key = getattr(scores, name)
            if key is None:
                continue
            got = self._shape(key)
            stretched = name not in ("sinks",)
            fits = (
                got is not None
                and len(got) == len(full)
                and all(have == want or (stretched and have == 1) for have, want in zip(got, full, strict=True))
            )
            if not fits or self.tensors[key].dtype not in dtypes:
                yield f"its {name} does not fit"


class _Version(msgspec.Struct, frozen=True):
    version: int
