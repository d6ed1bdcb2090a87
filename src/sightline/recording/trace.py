"""A recording as a value: what was observed, with its tokens, in memory or in a file."""

from __future__ import annotations

import math
import zlib
from collections.abc import Iterator, Mapping
from copy import copy
from dataclasses import fields, is_dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import msgspec
from torch import Tensor

from .._files import replacing
from ..errors import SpecError, TraceError
from ..matrix import AttentionMatrix
from ..reductions import Peaks, Reduction
from ..scores import Scores
from ._container import DTYPES, File, InFile, write
from ._shown import shown
from .choice import matches
from .header import VERSION, CallHeader, Header, KeptHeader, ScoresHeader, TensorHeader, TokensHeader
from .kept import SCORE_TENSORS, Kept
from .record import Record
from .stored import InMemory, Stored, checksum
from .tokens import Tokens

__all__ = ["Trace"]

_HEADER, _CHECKSUM = "sightline", "sightline.crc32"
"""The keys of the file's metadata under which the header lies, and its CRC-32."""


class Trace(Mapping[str, "tuple[Record, ...]"]):
    """What was recorded: module name → one `Record` per call, as in the `Recorder` it came from.

        trace = rec.trace(Tokens.of(tokenizer, ids))
        trace.save("run.safetensors")
        trace = Trace.load("run.safetensors")                # maps the file: what is not read costs nothing
        trace["model.layers.3.self_attn"][0]["entropy"]      # [b, h, n]
        trace.matrix(3, head=5)[0, 0, 100:110, :]            # exact weights, where q and k were kept

    `tokens` are those of the decoder or of the only stack, `source` those of the encoder of an encoder–decoder model.
    `reductions` says what was asked for: {"top": {"type": "TopK", "k": 8}}. The file is a safetensors file that any
    reader of the format opens; sightline/recording/format.md specifies it. Nothing in it is executed.
    """

    def __init__(self, header: Header, tensors: Mapping[str, Stored]) -> None:
        self._header = header
        self._tensors = tensors
        self._records: dict[str, tuple[Record, ...]] = {}
        self.model = header.model
        self.reductions: Mapping[str, Mapping[str, Any]] = header.reductions
        self.tokens = self._read_tokens(header.tokens)
        self.source = self._read_tokens(header.source)

    # -- making, saving, loading

    @staticmethod
    def of(
        records: Mapping[str, tuple[Record, ...]],
        reductions: Mapping[str, Reduction],
        tokens: Tokens | None = None,
        source: Tokens | None = None,
        model: str | None = None,
    ) -> Trace:
        """These records as a trace; see `Recorder.trace`. Raises SpecError."""
        if not records:
            raise SpecError("a trace was asked for; nothing was recorded. Run the model inside the `with` block first.")
        writer = _Writer()
        header = Header(
            version=VERSION,
            written_by=version("sightline"),
            model=model,
            reductions={name: _described(reduction) for name, reduction in reductions.items()},
            tokens=writer.tokens("tokens", tokens),
            source=writer.tokens("source", source),
            modules={name: tuple(map(writer.call, calls, range(len(calls)))) for name, calls in records.items()},
            tensors={name: TensorHeader(DTYPES[t.dtype], t.shape) for name, t in writer.tensors.items()},
            checksums=dict.fromkeys(writer.tensors, 0),  # worked out when it is saved
        )
        header.check()
        return Trace(header, writer.tensors)

    def save(self, path: str | Path) -> None:
        """Write the trace: beside its place first and then renamed, so a killed process leaves the old file or none.

        Takes memory for one chunk of one tensor. Raises InputError where the file cannot be written.
        """
        sums = {name: checksum(tensor) for name, tensor in self._tensors.items()}
        text = msgspec.structs.replace(self._header, checksums=sums).encode()
        with replacing(path) as file:
            metadata = {"format": "pt", _HEADER: text.decode(), _CHECKSUM: f"{zlib.crc32(text):08x}"}
            write(file, metadata, self._tensors)

    @staticmethod
    def load(path: str | Path) -> Trace:
        """Open a trace. The file is mapped into memory, and each tensor's checksum is compared when it is first read.

        Raises TraceError where the file is no trace, is damaged, or is of a newer version.
        """
        file = File(Path(path).expanduser())
        text = file.metadata.get(_HEADER)
        if text is None:
            raise TraceError(
                f"the trace {str(path)!r} was asked for; the file is a safetensors file without a sightline header. "
                "Name a file written by `sightline record` or Trace.save."
            )
        if f"{zlib.crc32(text.encode(errors='surrogatepass')):08x}" != file.metadata.get(_CHECKSUM):
            raise TraceError(
                f"the trace {str(path)!r} was asked for; its header is not what was written (its checksum differs). "
                "Copy the file again, or record it again."
            )
        header = Header.decode(text.encode(errors="surrogatepass"))
        dtypes = {name: dtype for dtype, name in DTYPES.items()}
        if file.names != header.tensors.keys() or any(
            file.describe(name) != (tensor.dtype, tensor.shape) or tensor.dtype not in dtypes
            for name, tensor in header.tensors.items()
        ):
            raise TraceError(
                f"the trace {str(path)!r} was asked for; its tensors are not those its header lists. Record it again."
            )
        return Trace(
            header,
            {
                name: InFile(file, name, dtypes[tensor.dtype], tensor.shape, header.checksums[name])
                for name, tensor in header.tensors.items()
            },
        )

    def verify(self) -> None:
        """Read every tensor once and compare its checksum. Raises TraceError for the first that differs."""
        for tensor in self._tensors.values():
            tensor.read()

    # -- reading

    def matrix(self, layer: int | str, head: int | None = None, call: int = 0) -> AttentionMatrix:
        """The attention matrix of one call of one module, computed as it is asked for; see `Record.matrix`.

        `layer` is a module's name, a pattern, or the first number of a name. Raises SpecError where it chooses no
        module or several, where there is no such call, and where q and k were not kept.
        """
        chosen = [name for name in self if matches(layer, name)]
        if len(chosen) != 1:
            known = ", ".join((chosen or list(self))[:6]) + (" …" if len(chosen or self) > 6 else "")
            raise SpecError(f"one module was asked for with {layer!r}; it matches {len(chosen)}. Name one of: {known}")
        calls = self[chosen[0]]
        if not -len(calls) <= call < len(calls):
            raise SpecError(
                f"call {call} of {chosen[0]} was asked for; it was called {len(calls)} times. Use 0 … {len(calls) - 1}."
            )
        return calls[call].matrix(head)

    def __getitem__(self, name: str) -> tuple[Record, ...]:
        if name not in self._header.modules:
            raise KeyError(f"no call of {name!r} was recorded; recorded were: {', '.join(self._header.modules)}")
        if name not in self._records:
            self._records[name] = tuple(self._record(name, call) for call in self._header.modules[name])
        return self._records[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._header.modules)

    def __len__(self) -> int:
        return len(self._header.modules)

    def __repr__(self) -> str:
        calls = sum(map(len, self._header.modules.values()))
        of = ", ".join(self.reductions) or "q and k"
        return f"<Trace of {of}: {calls} calls of {len(self)} modules{f' of {self.model}' if self.model else ''}>"

    def _repr_html_(self) -> str:
        return shown(self)

    def _tensor(self, key: str) -> Tensor:
        return self._tensors[key].read()

    def _read_tokens(self, tokens: TokensHeader | None) -> Tokens | None:
        if tokens is None:
            return None
        offsets = None if tokens.offsets is None else self._tensor(tokens.offsets)
        return Tokens(self._tensor(tokens.ids), tokens.strings, tokens.texts, offsets)

    def _record(self, name: str, call: CallHeader) -> Record:
        _, _, n, m = call.shape
        first = call.heads[0]
        one_by_one = range(first, first + len(call.heads))
        return Record(
            module=name,
            kind=call.kind,
            shape=call.shape,
            query_positions=None if call.query_start is None else range(call.query_start, call.query_start + n),
            key_positions=range(call.key_start, call.key_start + m),
            heads=one_by_one if call.heads == tuple(one_by_one) else call.heads,
            results=_Results(call.results, self._tensor),
            kept=None if call.kept is None else self._kept(call, call.kept),
        )

    def _kept(self, call: CallHeader, kept: KeptHeader) -> Kept:
        there = {name: key for name in SCORE_TENSORS if (key := getattr(kept.scores, name)) is not None}
        scores = Scores(
            scale=kept.scores.scale,
            softcap=kept.scores.softcap,
            **{name: self._tensor(key) for name, key in there.items()},
        )
        q, k, lse = (self._tensors[key] for key in (kept.q, kept.k, kept.lse))
        return Kept(q, k, lse, scores, kept.first, kept.stored, call.shape[3], kept.group)


class _Results(Mapping[str, Any]):
    """The results of a call, each read when it is asked for."""

    def __init__(self, where: Mapping[str, str | Mapping[str, str]], read: Any) -> None:
        self._where, self._read = where, read

    def __getitem__(self, name: str) -> Any:
        place = self._where[name]
        if isinstance(place, str):
            return self._read(place)
        parts = [self._read(key) for key in place.values()]
        return Peaks(*parts) if tuple(place) == Peaks._fields else tuple(parts)

    def __iter__(self) -> Iterator[str]:
        return iter(self._where)

    def __len__(self) -> int:
        return len(self._where)


class _Writer:
    """Gives each tensor of the records its name in the file."""

    def __init__(self) -> None:
        self.tensors: dict[str, Stored] = {}
        self._names: dict[int, str] = {}  # of tensors that several calls share, by identity

    def tokens(self, name: str, tokens: Tokens | None) -> TokensHeader | None:
        if tokens is None:
            return None
        return TokensHeader(
            ids=self._add(f"{name}/ids", InMemory(tokens.ids)),
            strings=tokens.strings,
            texts=tokens.texts,
            offsets=None if tokens.offsets is None else self._add(f"{name}/offsets", InMemory(tokens.offsets)),
        )

    def call(self, record: Record, number: int) -> CallHeader:
        prefix = f"{record.module}/{number}"
        return CallHeader(
            kind=record.kind,
            shape=record.shape,
            query_start=None if record.query_positions is None else record.query_positions.start,
            key_start=record.key_positions.start,
            heads=tuple(record.heads),
            results={name: self._result(f"{prefix}/{_plain(name)}", record[name]) for name in record},
            kept=None if record.kept is None else self._kept(record.module, number, record.kept),
        )

    def _result(self, name: str, result: Any) -> str | dict[str, str]:
        if isinstance(result, Tensor):
            return self._add(name, InMemory(result))
        parts = getattr(type(result), "_fields", None) or [str(i) for i in range(len(result))]
        return {part: self._add(f"{name}/{part}", InMemory(t)) for part, t in zip(parts, result, strict=True)}

    def _kept(self, module: str, number: int, kept: Kept) -> KeptHeader:
        prefix = f"{module}/{number}/kept"
        scores = kept.scores
        names = {
            name: None if (t := getattr(scores, name)) is None else self._share(f"scores/{len(self._names)}", t)
            for name in SCORE_TENSORS
        }
        return KeptHeader(
            q=self._add(f"{prefix}/q", kept.q),
            k=self._share(f"{module}/keys/{number}", kept.k),
            lse=self._add(f"{prefix}/lse", kept.lse),
            scores=ScoresHeader(scale=scores.scale, softcap=scores.softcap, **names),
            first=kept.first,
            stored=kept.stored,
            group=kept.group,
        )

    def _share(self, name: str, tensor: Any) -> str:
        if id(tensor) not in self._names:
            self._names[id(tensor)] = self._add(name, InMemory(tensor) if isinstance(tensor, Tensor) else copy(tensor))
        return self._names[id(tensor)]

    def _add(self, name: str, tensor: Any) -> str:
        if tensor.dtype not in DTYPES:
            raise SpecError(f"{name} has the dtype {tensor.dtype}, which a trace cannot hold. Convert it.")
        if name in self.tensors:
            raise SpecError(f"two results of a recording would both be called {name!r} in its trace. Rename one.")
        self.tensors[name] = tensor
        return name


def _plain(name: str) -> str:
    if "/" in name:
        raise SpecError(f'the result {name!r} has a "/" in its name, which a trace uses to part names. Rename it.')
    return name


def _described(reduction: Reduction) -> dict[str, str | int | float | None]:
    """{"type": "TopK", "k": 8}; a tensor is described by its dtype and shape."""
    described: dict[str, str | int | float | None] = {"type": type(reduction).__name__}
    for field in fields(reduction) if is_dataclass(reduction) else ():
        value = getattr(reduction, field.name)
        if isinstance(value, Tensor):
            value = f"{value.dtype} {list(value.shape)}".removeprefix("torch.")
        elif isinstance(value, float) and not math.isfinite(value):
            value = str(value)
        described[field.name] = value if value is None or isinstance(value, str | int | float) else repr(value)
    return described
