"""One attention call of a model, who may listen to it, and the listener that keeps what it heard.

An integration (`sightline.integrations.transformers`) turns each attention call of a running model into a `Call` and
offers it to `Listener`s. `Recorder` is the listener behind `sightline.record`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Any, Literal, Protocol

import torch
from torch import Tensor, nn

from ..errors import SpecError
from ..functional import Observed
from ..matrix import AttentionMatrix
from ..reductions import Reduction


Kind = Literal["encoder", "decoder", "cross"]
"""Whose tokens attend to whose: an encoder's to its own, a decoder's to its own, a decoder's to the encoder's."""


@dataclass(frozen=True)
class Call:
    """One attention call: a module of the model, run once.

    `name` is the module's name in `model.named_modules()`, `matrix` the attention matrix P [b,h,n,m] of the call (never
    stored), `value` [b,hk,m,dv] what it is multiplied with. Keeping a Call keeps its q, k and v alive.

    Positions are slots of the model's input, padding included: row i of P is the token at `query_start + i`, column j
    the token at `key_start + j`. `query_start` is None where the model does not say, as in cross-attention.
    """

    name: str
    module: nn.Module
    matrix: AttentionMatrix
    value: Tensor
    query_start: int | None = None
    key_start: int = 0
    kind: Kind = "decoder"


class Listener(Protocol):
    """Hears every attention call of a model. Raising from either method stops the model."""

    def reductions(self, call: Call) -> Mapping[str, Reduction]:
        """What to observe in this call; {} observes nothing. Asked once per call, before it is computed."""
        ...

    def received(self, call: Call, observed: Observed) -> None:
        """What came of it. Called for every call, also where `reductions` was {}.

        `observed.output` [b,h,n,dv] is the tensor that the model goes on with: it carries the autograd graph, and a
        hook registered on it sees the model's gradient.
        """
        ...


@dataclass(frozen=True)
class Record(Mapping[str, Any]):
    """The reductions of one call, by name: `record["entropy"]`.

    `query_positions` (None where not known) and `key_positions` are those of P's rows and columns in the model's input,
    padding included (see `Call`); `heads` are the query heads that the results' head dimension holds. In beam search
    the batch dimension holds the beams; the keys of a static cache include its slots that are still empty.
    """

    module: str
    kind: Kind
    query_positions: range | None
    key_positions: range
    heads: range | tuple[int, ...]
    results: Mapping[str, Any] = field(repr=False)

    def __getitem__(self, name: str) -> Any:
        if name not in self.results:
            raise KeyError(f"{name!r} was not recorded; recorded were {', '.join(self.results)}")
        return self.results[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.results)

    def __len__(self) -> int:
        return len(self.results)


class Recorder(Mapping[str, "tuple[Record, ...]"]):
    """Keeps the results of `reductions` for every attention call it hears: module name → one `Record` per call.

        rec["model.layers.0.self_attn"][0]["entropy"]        # [b, h, n], the first call: the prefill

    A model run in generation makes one call per module for the prefill (or for each of its chunks) and one for each
    decoding step, in that order. What is kept is detached and is all that is kept: memory grows with the results, not
    with the model or N². Where gradient checkpointing runs a layer twice, it is recorded twice.

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
    ) -> None:
        if not reductions:
            raise SpecError("nothing was asked to be recorded: the mapping of reductions is empty. Name at least one.")
        for name, reduction in reductions.items():
            if not isinstance(reduction, Reduction):
                raise SpecError(
                    f"{name!r} should name a reduction; it is {reduction!r}. Pass an instance, such as Entropy()."
                )
        self._reductions = dict(reductions)
        self._layers = None if layers is None else _chosen(layers, "layers", (int, str))
        self._heads = None if heads is None else _chosen(heads, "heads", (int,))
        self._records: dict[str, list[Record]] = {}

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
        return self._reductions

    def received(self, call: Call, observed: Observed) -> None:
        """See `Listener`."""
        if not self.chooses(call.name):
            return
        _, h, n, m = call.matrix.shape
        start = call.query_start
        record = Record(
            module=call.name,
            kind=call.kind,
            query_positions=None if start is None else range(start, start + n),
            key_positions=range(call.key_start, call.key_start + m),
            heads=range(h) if self._heads is None else self._heads,
            results={name: _map_tensors(observed[name], self._kept) for name in self._reductions},
        )
        self._records.setdefault(call.name, []).append(record)

    def chooses(self, name: str) -> bool:
        """Whether `layers` admits the module of this name."""
        return self._layers is None or any(_matches(choice, name) for choice in self._layers)

    def check(self, names: Iterable[str]) -> None:
        """Raise SpecError where one of `layers` matches none of these module names: a choice that records nothing."""
        names = list(names)
        for choice in self._layers or ():
            if not any(_matches(choice, name) for name in names):
                raise SpecError(
                    f"layers holds {choice!r}; no module of the model matches it. An int is the first number of a "
                    'module\'s name, counted from 0; a string is a pattern such as "*.layers.3.self_attn".'
                )

    def _kept(self, result: Tensor) -> Tensor:
        """A result [b,h,…] as it is kept: the chosen heads, no graph, and no larger tensor held alive behind it."""
        result = result.detach()
        if self._heads is not None:
            return result.index_select(1, torch.tensor(self._heads, device=result.device))
        if result.untyped_storage().nbytes() > result.numel() * result.element_size():
            return result.clone(memory_format=torch.contiguous_format)
        return result

    # -- reading

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
        return f"<Recorder of {', '.join(self._reductions)}: {calls} calls of {len(self)} modules>"


def _chosen(choice: Iterable[Any], what: str, kinds: tuple[type, ...]) -> tuple[Any, ...]:
    """The choice as a tuple. Raises SpecError where it is no iterable of `kinds`, or empty."""
    wanted = " or ".join(kind.__name__ for kind in kinds)
    if isinstance(choice, str | int):
        raise SpecError(f"{what} should be a list of {wanted}; it is {choice!r}. Write [{choice!r}].")
    items = tuple(choice)
    if not items:
        raise SpecError(f"{what} is empty, so nothing would be recorded. Leave it out to record all.")
    for item in items:
        if isinstance(item, bool) or not isinstance(item, kinds):
            raise SpecError(f"{what} should hold {wanted}; it holds {item!r}.")
    return items


def _matches(choice: int | str, name: str) -> bool:
    if isinstance(choice, str):
        return fnmatchcase(name, choice)
    first = re.search(r"(?:^|\.)(\d+)(?:\.|$)", name)
    return first is not None and int(first[1]) == choice


def _map_tensors(result: Any, change: Callable[[Tensor], Tensor]) -> Any:
    """`change` every tensor of a reduction's result: a tensor, or a (named) tuple of them."""
    if isinstance(result, Tensor):
        return change(result)
    changed = [_map_tensors(part, change) for part in result]
    return type(result)(*changed) if hasattr(result, "_fields") else tuple(changed)
