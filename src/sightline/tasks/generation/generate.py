"""A text written after a prompt, token by token, with where the model looked for each.

for token in stream("Who kept the lighthouse?", focus=3):
    print(token.text, token.log_prob, token.sources)

generate("Once upon a time", chat=False, temperature=0.8, seed=1).text
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any, Literal

import torch

from ... import models
from ...errors import InputError, ModelError, SpecError
from ...evidence import Row
from ...models import Progress, unheard
from ...reader import Reader
from .. import _shown
from .._chat import stop_tokens
from .._meter import Meter
from .._network import context, loaded
from .._written import Written
from ._encoded import Encoded, check_prompt, encode
from ._focus import Focus, Source
from ._sampling import Chooser, Sampling

__all__ = ["Generation", "Produced", "Source", "generate", "stream"]


@dataclass(frozen=True)
class Produced:
    """A token as it was produced.

    `text` is what it added to the output, characters start … end − 1 of it: a token that ends in the middle of a
    character adds what is whole, and the token that completes the character adds it. `log_prob` is log p(token | all
    before) in nats, of the model itself: before temperature, top_k and top_p. `sources` is where the model looked,
    largest share first, empty without focus.
    """

    token: int
    text: str
    start: int
    log_prob: float
    sources: tuple[Source, ...] = ()

    @property
    def end(self) -> int:
        """Where its text ends in the output."""
        return self.start + len(self.text)


@dataclass(frozen=True)
class Generation:
    """What was written. `text` is that of its `units`, joined; half a character at the very end is left out.

    `ended` says why: "stop" where the model chose a stop token, which is no unit, "length" after max_new_tokens.
    `seconds` is the time taken, loading included; `peak_bytes` the most memory the process held meanwhile.
    """

    text: str
    units: tuple[Produced, ...]
    ended: Literal["stop", "length"]
    model: str
    seconds: float
    peak_bytes: int

    def _repr_html_(self) -> str:
        return _shown.generation(self)

    def to_dict(self) -> dict[str, Any]:
        """As plain data for JSON; a unit has its text, its place in the whole text, log_prob, citations and supported.

        Citations are the sources: each a word's text, its place (`where` "prompt" or "output") and its share. They are
        shares of what was read, not measured drops: measuring one is a run of the model for each word and token.

        `supported` is null, not known. It says in other tasks that a text loses log-probability without the document;
        here there is no document that the text was to rest on, and a share cannot stand in for that drop: shares are
        parts of one whole, and as large for a token that the prompt did nothing for.
        """
        return {
            "text": self.text,
            "units": [
                {
                    "text": unit.text,
                    "start": unit.start,
                    "end": unit.end,
                    "log_prob": unit.log_prob,
                    "citations": [asdict(source) for source in unit.sources],
                    "supported": None,
                }
                for unit in self.units
            ],
            "ended": self.ended,
            "model": self.model,
            "seconds": self.seconds,
            "peak_bytes": self.peak_bytes,
        }


def generate(
    prompt: str,
    *,
    model: str | tuple[Any, Any] = models.DEFAULT,
    max_new_tokens: int = 256,
    temperature: float = 0.0,
    top_p: float | None = None,
    top_k: int | None = None,
    seed: int | None = None,
    chat: bool = True,
    focus: int = 0,
    progress: Progress | None = None,
) -> Generation:
    """`stream`, to its end: the same arguments, the same tokens, the same errors."""
    with Meter() as meter:
        job = _prepared(prompt, model, max_new_tokens, Sampling(temperature, top_p, top_k, seed), chat, focus, progress)
        units = []
        for unit in job.produced():
            units.append(unit)
            if progress is not None:
                progress("writing", len(units), max_new_tokens)
    ended = "length" if len(units) == max_new_tokens else "stop"
    return Generation("".join(u.text for u in units), tuple(units), ended, job.name, meter.seconds, meter.peak_bytes)


def stream(
    prompt: str,
    *,
    model: str | tuple[Any, Any] = models.DEFAULT,
    max_new_tokens: int = 256,
    temperature: float = 0.0,
    top_p: float | None = None,
    top_k: int | None = None,
    seed: int | None = None,
    chat: bool = True,
    focus: int = 0,
    progress: Progress | None = None,
) -> Iterator[Produced]:
    """Write what follows a prompt: tokens as they are produced, at most `max_new_tokens`, until a stop token.

    `model` is a name as in `sightline.models.resolve`, or a loaded pair (model, tokenizer). With `chat` the prompt is
    the user's message in the model's chat template; without, the text is continued as it is.

    `temperature` 0 takes the likeliest token each time. Above 0 tokens are drawn, by Transformers' own rules, from
    softmax(logits / temperature) of the `top_k` likeliest, of which the likeliest are left that together have
    probability `top_p`; `seed` makes that repeatable. Nothing else of the model's generation settings is applied.

    With `focus` n each token comes with the n words of the prompt and of the output so far that it drew on most. Of the
    row i that predicts token t, with P the attention matrix of a head, v its values, O = P v, dO = ∂ log p(t) / ∂O,

        c_j = Σ_layers Σ_heads max(0, P_ij · (dO_i · v_j))          share of a word = Σ_{j in word} c_j / Σ_j c_j

    at the price of one backward over one row. `progress` is told of the phases "converting", "loading" and "reading".

    The model is loaded when this is called; the prompt is read when the first token is asked for. Memory: O(prompt +
    output), no attention matrix is stored.

    Raises InputError for an empty prompt and for one that leaves no room for max_new_tokens in the model's context;
    SpecError for options that make no sense; ModelError and Unsupported for a model that cannot be used, such as one
    with an encoder and a decoder.
    Source of the relevance: Chefer, Gur & Wolf (2021), equation 5, as in `sightline.evidence`.
    """
    sampling = Sampling(temperature, top_p, top_k, seed)
    return _prepared(prompt, model, max_new_tokens, sampling, chat, focus, progress).produced()


@dataclass(frozen=True)
class _Job:
    """All that is known before the prompt is read."""

    name: str
    reader: Reader
    tokenizer: Any
    prompt: str
    encoded: Encoded
    max_new_tokens: int
    sampling: Sampling
    focus: int
    tell: Progress

    def produced(self) -> Iterator[Produced]:
        """The tokens. Between them the model is as it was: its attention is Sightline's only while it runs."""
        *most, token = self.encoded.tokens
        reader = self.reader
        self.tell("reading", 0, len(most))
        with models.quiet():
            reader.read(most, lambda done: self.tell("reading", done, len(most)))
        stop = stop_tokens(reader.model, self.tokenizer)
        chooser = Chooser(self.sampling, reader.model.device)
        written = Written(self.tokenizer, self.encoded.tokens)
        focus = Focus(self.prompt, self.encoded.places, self.focus) if self.focus else None
        length = 0
        for _ in range(self.max_new_tokens):
            with models.quiet():
                row = Row(reader, token) if focus is not None else None
                logits = reader.next_logits(token) if row is None else row.logits
                _check_numbers(logits, self.name)
                token = chooser.choose(logits)
                if token in stop:
                    return
                sources = () if focus is None or row is None else focus.sources(row.relevance(token))
            unit = Produced(token, written.add(token), length, _log_prob(logits, token), sources)
            length = unit.end
            if focus is not None:
                focus.add(unit.text)
            yield unit


def _prepared(
    prompt: str,
    model: str | tuple[Any, Any],
    max_new_tokens: int,
    sampling: Sampling,
    chat: bool,
    focus: int,
    progress: Progress | None,
) -> _Job:
    """Check what was asked, load the model, encode the prompt."""
    check_prompt(prompt)
    if max_new_tokens < 1:
        raise SpecError(f"max_new_tokens is {max_new_tokens}; it counts the tokens to write. Pass 1 or more.")
    if focus < 0:
        raise SpecError(f"focus is {focus}; it counts the sources of each token. Pass 0 or more.")
    name, network, tokenizer = loaded(model, progress)
    if getattr(network.config, "is_encoder_decoder", False):
        raise ModelError(
            f"{name} was asked to write after a prompt; it has an encoder and a decoder, which turn one text into "
            "another and do not continue one. Translate with it (sightline translate), or use a decoder-only model, "
            "such as smollm2-135m."
        )
    with models.quiet():
        encoded = encode(prompt, tokenizer, chat=chat)
    limit = context(network)
    if limit is not None and len(encoded.tokens) + max_new_tokens > limit:
        raise InputError(
            f"a text was to be written after a prompt; the prompt has {len(encoded.tokens):,} tokens and the text may "
            f"take {max_new_tokens:,} more, and the context of {name} is {limit:,} tokens. Give a shorter prompt, ask "
            "for fewer tokens, or use a model with a longer context."
        )
    return _Job(name, Reader(network), tokenizer, prompt, encoded, max_new_tokens, sampling, focus, progress or unheard)


def _check_numbers(logits: torch.Tensor, name: str) -> None:
    if bool(torch.isnan(logits).any()):
        raise ModelError(
            f"{name} was asked for the next token; its logits are not numbers (NaN), as those of damaged or "
            "overflowing weights are. Fetch the model again, or load it in a wider type."
        )


def _log_prob(logits: torch.Tensor, token: int) -> float:
    """log softmax(logits)[token], in float32 or better."""
    exact = logits.detach().to(torch.promote_types(logits.dtype, torch.float32))
    return float(torch.log_softmax(exact, dim=-1)[token])
