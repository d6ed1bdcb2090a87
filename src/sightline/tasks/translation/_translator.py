"""The model's side of a translation: what it can read, what it writes, and where it looked while it wrote."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ...errors import Unsupported
from ...functional import Observed
from ...recording import Call
from ...reductions import Reduction, Rows
from ...sentences import Span, words
from .._network import context

__all__ = ["Part", "Translator", "Written"]

_LONGEST = 256
"""Tokens that are read at once. Translation models learn from sentences; longer runs are cut at a clause or a word."""

_ROOM = (2, 50)
"""A translation may take this many times its source's tokens, and so many more."""

_UNREAD = "LNS"
"""Kinds of characters (letters, numbers, symbols) that must not be lost where the vocabulary lacks them."""


class Part(NamedTuple):
    """What is translated at once: a span of the text, its tokens as the model reads them, and their places in it."""

    span: Span
    ids: tuple[int, ...]
    places: tuple[Span, ...]


class Written(NamedTuple):
    """A translation: its text, each token's place in it, the weight [tokens, source tokens] that each gave to what was
    read (None where it was not asked for), and whether the model came to an end.
    """

    text: str
    places: tuple[Span, ...]
    weights: Tensor | None
    complete: bool


class _Looks:
    """Keeps the attention of the last decoder layer to the source, the mean of its heads [b,n,m]."""

    weights: Tensor | None = None

    def reductions(self, call: Call) -> Mapping[str, Reduction]:
        """See `Listener`: every row. One sentence has few, and the layer that is last is known only afterwards."""
        if not _crosses(call):
            return {}
        return {"rows": Rows(torch.arange(call.matrix.shape[2], device=call.value.device))}

    def received(self, call: Call, observed: Observed) -> None:
        """See `Listener`."""
        if _crosses(call):
            self.weights = observed["rows"].mean(1).cpu()


@dataclass(frozen=True)
class Translator:
    """A model with an encoder and a decoder, and its tokenizer.

    `align` asks for the weights: after a batch is written the decoder reads it once more, all tokens together, while
    its attention to the source is observed. What is written does not depend on it. `beams` = 1 is greedy.

    Raises Unsupported for a model without an encoder, for one that must be told its languages by tokens, and with
    `align` for a tokenizer that cannot say where its tokens lie.
    """

    network: Any = field(repr=False)
    tokenizer: Any = field(repr=False)
    name: str
    align: bool
    beams: int

    def __post_init__(self) -> None:
        if not getattr(self.network.config, "is_encoder_decoder", False):
            raise Unsupported(
                f"a translation by {self.name} was asked for; it has no encoder, and so no attention from the "
                "translation to its source. Use a translation model, such as marian-en-pt."
            )
        if hasattr(self.tokenizer, "src_lang"):
            raise Unsupported(
                f"a translation by {self.name} was asked for; it serves many languages and is told by tokens which, "
                "which is not supported yet. Use a model for one pair of languages, such as marian-en-pt."
            )
        if not (hasattr(self.tokenizer, "pieces") or getattr(self.tokenizer, "is_fast", False)):
            raise Unsupported(
                f"a translation by {self.name} was asked for; its tokenizer, {type(self.tokenizer).__name__}, cannot "
                "say where its tokens lie. Use a model with a fast tokenizer (a tokenizer.json)."
            )

    # -- reading

    def parts(self, text: str, span: Span) -> list[Part]:
        """A segment as what the model can read: the whole of it, or what is left around words that it cannot read.

        Words of which the vocabulary has no character (emoji, another script) are left out, and so stay as they are. A
        segment of too many tokens is cut, after punctuation if there is any, else between words.
        """
        ids, places = self._pieces(text, span)
        if not ids:
            return []
        unknown = getattr(self.tokenizer, "unk_token_id", None)
        if unknown in ids and (unread := _unread(text, span, ids, places, unknown)):
            return [part for piece in _around(text, span, unread) for part in self.parts(text, piece)]
        most = self._longest()
        if len(ids) <= most:
            return [Part(span, ids, places)]
        first, rest = _halved(text, span, places[most].start)
        return [*self.parts(text, first), *self.parts(text, rest)]

    def _longest(self) -> int:
        limit = context(self.network)
        return _LONGEST if limit is None else max(1, min(_LONGEST, limit // 2 - 2))

    def _pieces(self, text: str, span: Span) -> tuple[tuple[int, ...], tuple[Span, ...]]:
        """Tokens of a span, without those that frame it, and their places in the text. Line breaks are spaces."""
        start, end = span
        inside = re.sub(r"[\r\n]", " ", text[start:end])
        if hasattr(self.tokenizer, "pieces"):
            found = self.tokenizer.pieces(inside)
            return tuple(p.id for p in found), tuple(Span(start + p.start, start + p.end) for p in found)
        encoded = self.tokenizer(inside, add_special_tokens=False, return_offsets_mapping=True, verbose=False)
        places = (_stripped(inside, a, b) for a, b in encoded["offset_mapping"])
        return tuple(encoded["input_ids"]), tuple(Span(start + a, start + b) for a, b in places)

    # -- writing

    def write(self, batch: Sequence[Part]) -> list[Written]:
        """Translate parts, together."""
        ids, mask, before = self._padded(batch)
        rooms = [self._room(part) for part in batch]
        with torch.inference_mode():
            states = self.network.get_encoder()(input_ids=ids, attention_mask=mask).last_hidden_state
            out = self.network.generate(
                encoder_outputs=_encoded(states),
                attention_mask=mask,
                max_new_tokens=max(rooms),
                num_beams=self.beams,
                do_sample=False,
            )
            weights = self._weights(states, mask, out) if self.align else None
        ends = _ends(self.network)
        written: list[Written] = []
        for i, (part, room, tokens) in enumerate(zip(batch, rooms, out[:, 1:].tolist(), strict=True)):
            row = tokens[:room]  # each its own, so that the neighbours in a batch change nothing
            text, places = self._spelled(row)
            seen = None if weights is None else weights[i, :, before : before + len(part.ids)]
            written.append(Written(text, places, seen, not ends or any(token in ends for token in row)))
        return written

    def _room(self, part: Part) -> int:
        """The tokens that a part's translation may take."""
        room, limit = _ROOM[0] * len(part.ids) + _ROOM[1], context(self.network)
        return room if limit is None else min(room, limit - 2)

    def _padded(self, batch: Sequence[Part]) -> tuple[Tensor, Tensor, int]:
        """Ids and mask [b,m], padded on the right, and how many tokens come before a text's own."""
        head, tail = _frame(self.tokenizer)
        framed = [[*head, *part.ids, *tail] for part in batch]
        m = max(map(len, framed))
        pad = self.network.config.pad_token_id or 0
        ids = torch.tensor([[*row, *[pad] * (m - len(row))] for row in framed])
        mask = torch.tensor([[1] * len(row) + [0] * (m - len(row)) for row in framed])
        device = self.network.device
        return ids.to(device), mask.to(device), len(head)

    def _weights(self, states: Tensor, mask: Tensor, out: Tensor) -> Tensor:
        """What each written token gave to each that was read, [b,n,m]. Row i is that of the token after out[:, i]."""
        # Imported late: with it comes all of Transformers.
        from ...integrations.transformers import listening

        looks = _Looks()
        with listening(self.network, looks):
            self.network(
                encoder_outputs=_encoded(states), attention_mask=mask, decoder_input_ids=out[:, :-1], use_cache=False
            )
        if looks.weights is None:
            raise Unsupported(
                f"word alignment by {self.name} was asked for; no attention from its decoder to its encoder was heard. "
                "Ask for the translation alone."
            )
        return looks.weights

    def _spelled(self, ids: list[int]) -> tuple[str, tuple[Span, ...]]:
        """The text of tokens, and each one's place in it. Those that end or pad stand for nothing."""
        if hasattr(self.tokenizer, "spell"):
            text, pieces = self.tokenizer.spell(ids)
            return text, tuple(Span(p.start, p.end) for p in pieces)
        silent = set(self.tokenizer.all_special_ids)
        kept = [i for i in ids if i not in silent]
        whole = self._decoded(kept)
        start = len(whole) - len(whole.lstrip())
        text = whole.strip()
        places: list[Span] = []
        at = shown = 0
        for i in ids:
            before = at
            if i not in silent:
                shown += 1
                # Half a character decodes to a replacement, which is not yet the text's own.
                at = max(at, len(_common(self._decoded(kept[:shown]), whole)))
            places.append(_stripped(text, min(len(text), max(0, before - start)), min(len(text), max(0, at - start))))
        return text, tuple(places)

    def _decoded(self, ids: list[int]) -> str:
        return str(self.tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False))


def _crosses(call: Call) -> bool:
    """Whether the decoder looks at the source. The encoder does not run here, so what is not causal does.

    A call's kind alone does not say it of a module that is handed keys in place of states, with as many as queries.
    """
    return call.kind == "cross" or getattr(call.module, "is_causal", True) is False


def _encoded(states: Tensor) -> Any:
    """States as an encoder's output; a new one each time, since generation with beams changes it in place."""
    from transformers.modeling_outputs import BaseModelOutput

    return BaseModelOutput(last_hidden_state=states)  # type: ignore[arg-type]


def _frame(tokenizer: Any) -> tuple[list[int], list[int]]:
    """The tokens that a model expects before a text and after it."""
    if hasattr(tokenizer, "pieces"):
        return [], [tokenizer.ends]
    # Seen around the ids of one letter.
    bare: list[int] = tokenizer("a", add_special_tokens=False)["input_ids"]
    full: list[int] = tokenizer("a")["input_ids"]
    at = next((i for i in range(len(full)) if full[i : i + len(bare)] == bare), 0)
    return full[:at], full[at + len(bare) :]


def _ends(network: Any) -> frozenset[int]:
    found = network.generation_config.eos_token_id
    return frozenset(found if isinstance(found, list) else () if found is None else (found,))


def _unread(text: str, span: Span, ids: Sequence[int], places: Sequence[Span], unknown: Any) -> list[Span]:
    """Words none of whose characters the vocabulary has. Signs of punctuation are no loss to translate without."""
    lacking: set[int] = set()
    for i, place in zip(ids, places, strict=True):
        if i == unknown:
            lacking.update(range(place.start, place.end))
    found: list[Span] = []
    for start, end in words(text[span.start : span.end], signs=True):
        place = range(span.start + start, span.start + end)
        core = [i for i in place if unicodedata.category(text[i])[0] in _UNREAD]
        if core and lacking.issuperset(core):
            found.append(Span(place.start, place.stop))
    return found


def _around(text: str, span: Span, left_out: Sequence[Span]) -> list[Span]:
    """What is left of a span, without white space at the ends; pieces without a letter are left out too."""
    edges = [span.start, *(edge for place in left_out for edge in place), span.end]
    pieces = (_stripped(text, a, b) for a, b in zip(edges[::2], edges[1::2], strict=True))
    return [piece for piece in pieces if any(map(str.isalpha, text[piece.start : piece.end]))]


def _halved(text: str, span: Span, before: int) -> tuple[Span, Span]:
    """Cut a span before a place: after the last punctuation, else the last blank, else right there."""
    inside = text[span.start : before]
    least = len(inside) // 4  # a cut close to the beginning would gain little
    cuts = [m.end() for m in re.finditer(r"[,;:.!?)—–]\s+", inside)] or [m.end() for m in re.finditer(r"\s+", inside)]
    at = cuts[-1] if cuts and cuts[-1] > least else max(1, len(inside))
    return _stripped(text, span.start, span.start + at), _stripped(text, span.start + at, span.end)


def _stripped(text: str, start: int, end: int) -> Span:
    """A span without the white space at its ends."""
    inside = text[start:end]
    start += len(inside) - len(inside.lstrip())
    return Span(start, max(start, end - (len(inside) - len(inside.rstrip()))))


def _common(a: str, b: str) -> str:
    """What two texts begin with."""
    n = next((i for i, (x, y) in enumerate(zip(a, b)) if x != y), min(len(a), len(b)))
    return a[:n]
