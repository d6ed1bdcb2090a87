"""The listener behind `sightline.record`: it keeps what it heard."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Literal

import torch
from torch import Tensor

from .. import _resident
from ..errors import SpecError
from ..functional import Observed
from ..reductions import LogSumExp, Reduction
from .call import Call
from .choice import chosen, matches
from .kept import Keeper
from .record import Record
from .tokens import Tokens
from .trace import Trace

__all__ = ["Keep", "Recorder"]

Keep = Literal["reductions", "qk"]
"""What a recorder keeps of each call: the results that were asked for, or queries and keys as well."""

_GIVEN_BACK = 1 << 25
"""Bytes kept after which the holes between them are given back to the system."""

_LSE = "log-sum-exp of the rows that are kept, for the recorder itself"
"""The name under which the recorder asks for it: one that nobody chooses for a reduction of theirs."""


class Recorder(Mapping[str, "tuple[Record, ...]"]):
    """Keeps the results of `reductions` for every attention call it hears: module name → one `Record` per call.

        rec["model.layers.0.self_attn"][0]["entropy"]        # [b, h, n], the first call: the prefill

    A model run in generation makes one call per module for the prefill (or for each of its chunks) and one for each
    decoding step, in that order. What is kept is detached and is all that is kept: memory grows with the results, not
    with the model or N². Where gradient checkpointing runs a layer twice, it is recorded twice.

    keep="qk" also writes each call's queries, new keys and log-sum-exp to a temporary file in `folder` (by default the
    system's), so that `Record.matrix` can compute any weight later; the file goes with the recorder. `on_record` is
    called with each record once it is there. `trace` is all of it as a value that can be saved.

    `layers` chooses modules: an int picks those whose name has it as its first number ("model.layers.3.self_attn" is
    layer 3), a string those whose name it matches, with * and ? as wildcards ("*.decoder.*"). `heads` chooses query
    heads; the results then hold those heads, in the order given. None means all.

    Raises SpecError for names or reductions that are not ones, and for a choice that is empty or matches nothing.
    """

    def __init__(
        self,
        reductions: Mapping[str, Reduction],
        *,
        layers: Iterable[int | str] | None = None,
        heads: Iterable[int] | None = None,
        keep: Keep = "reductions",
        folder: str | None = None,
        on_record: Callable[[Record], None] | None = None,
    ) -> None:
        if keep not in ("reductions", "qk"):
            raise SpecError(f'keep says what to keep of each call, "reductions" or "qk"; it is {keep!r}.')
        if not reductions and keep == "reductions":
            raise SpecError("nothing was asked to be recorded: the mapping of reductions is empty. Name at least one.")
        for name, reduction in reductions.items():
            if not isinstance(reduction, Reduction):
                raise SpecError(
                    f"{name!r} should name a reduction; it is {reduction!r}. Pass an instance, such as Entropy()."
                )
        self._reductions = dict(reductions)
        self._layers = None if layers is None else chosen(layers, "layers", (int, str))
        self._heads = None if heads is None else chosen(heads, "heads", (int,))
        self._records: dict[str, list[Record]] = {}
        self._keeper = Keeper(folder) if keep == "qk" else None
        self._on_record = on_record
        self._fresh = 0  # bytes kept since memory was last given back

    # -- listening

    def reductions(self, call: Call) -> Mapping[str, Reduction]:
        """See `Listener`. Raises SpecError where a chosen head does not exist."""
        if not self.chooses(call.name):
            return {}
        if self._heads is not None:
            h = call.matrix.shape[1]
            if bad := [i for i in self._heads if i not in range(h)]:
                raise SpecError(
                    f"head {bad[0]} was asked for; {call.name} has {h} heads. Choose from 0 to {h - 1}, "
                    "or choose other layers."
                )
        if self._keeper is not None:
            return {**self._reductions, _LSE: LogSumExp()}
        return self._reductions

    def received(self, call: Call, observed: Observed) -> None:
        """See `Listener`."""
        if not self.chooses(call.name):
            return
        b, h, n, m = call.matrix.shape
        heads = range(h) if self._heads is None else self._heads
        start = call.query_start
        record = Record(
            module=call.name,
            kind=call.kind,
            shape=(b, len(heads), n, m),
            query_positions=None if start is None else range(start, start + n),
            key_positions=range(call.key_start, call.key_start + m),
            heads=heads,
            results={name: _map_tensors(observed[name], self._kept) for name in self._reductions},
            kept=None
            if self._keeper is None
            else self._keeper.keep(call.name, call.matrix, observed[_LSE], self._heads, call.key_start),
        )
        self._records.setdefault(call.name, []).append(record)
        # What is kept lies between the layers' large tensors, and the holes that these leave are not used again: over
        # all layers of a long prompt they are more than the results.
        if self._fresh >= _GIVEN_BACK:
            self._fresh = 0
            _resident.give_back()
        if self._on_record is not None:
            self._on_record(record)

    def chooses(self, name: str) -> bool:
        """Whether `layers` admits the module of this name."""
        return self._layers is None or any(matches(choice, name) for choice in self._layers)

    def check(self, names: Iterable[str]) -> None:
        """Raise SpecError where one of `layers` matches none of these module names: a choice that records nothing."""
        names = list(names)
        for choice in self._layers or ():
            if not any(matches(choice, name) for name in names):
                raise SpecError(
                    f"layers holds {choice!r}; no module of the model matches it. An int is the first number of a "
                    'module\'s name, counted from 0; a string is a pattern such as "*.layers.3.self_attn".'
                )

    def _kept(self, result: Tensor) -> Tensor:
        """A result [b,h,…] as it is kept: the chosen heads, no graph, and no larger tensor held alive behind it."""
        result = result.detach()
        if self._heads is not None:
            result = result.index_select(1, torch.tensor(self._heads, device=result.device))
        elif result.untyped_storage().nbytes() > result.nbytes:
            result = result.clone(memory_format=torch.contiguous_format)
        self._fresh += result.nbytes
        return result

    # -- reading

    def trace(self, tokens: Tokens | None = None, source: Tokens | None = None, *, model: str | None = None) -> Trace:
        """All that was recorded so far, with its tokens, as a value that can be saved and loaded.

        `tokens` are those that the decoder, or the only stack, read and wrote; `source` those of the encoder of an
        encoder–decoder model; `model` its name. Raises SpecError where nothing was recorded, and for results that a
        file cannot hold.
        """
        return Trace.of(self, self._reductions, tokens, source, model)

    def __getitem__(self, name: str) -> tuple[Record, ...]:
        if name not in self._records:
            known = ", ".join(self._records) or "nothing; was the model run inside the `with` block?"
            raise KeyError(f"no call of {name!r} was recorded; recorded were: {known}")
        return tuple(self._records[name])

    def __iter__(self) -> Iterator[str]:
        return iter(self._records)

    def __len__(self) -> int:
        return len(self._records)

    def __repr__(self) -> str:
        calls = sum(map(len, self._records.values()))
        return f"<Recorder of {', '.join(self._reductions) or 'q and k'}: {calls} calls of {len(self)} modules>"


def _map_tensors(result: Any, change: Callable[[Tensor], Tensor]) -> Any:
    """`change` every tensor of a reduction's result: a tensor, or a (named) tuple of them."""
    if isinstance(result, Tensor):
        return change(result)
    changed = [_map_tensors(part, change) for part in result]
    return type(result)(*changed) if hasattr(result, "_fields") else tuple(changed)
