"""A causal language model and what it has read so far.

    reader = Reader(model)
    reader.read(tokens[:-1])                          # prefill, in chunks
    answer = reader.generate(tokens[-1], 64, stop)    # greedy

Everything a task does with a model goes through here: its key-value cache is read into, cropped and read into again, so
that text which two prompts begin with is read once. Attention is computed by Sightline throughout.
"""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from .errors import ModelError

__all__ = ["Reader", "Step"]

_CHUNK = 384
"""Tokens read at once: enough to keep the matrix products busy, few enough for a progress bar that moves."""

_LENT = 16384
"""Tokens of one layer's cache copied at once for variants of a run that differ in what they hide, or one copy of it."""


class Step(NamedTuple):
    """A token as it was chosen, and log p(token | all before) in nats."""

    token: int
    log_prob: float


class Reader:
    """A model with its key-value cache, one sequence.

    The cache keeps every position, also in layers with a sliding window (their mask still hides what they may not see),
    because a window that has moved on could not be cropped back. It costs layers · hk · (d + dv) numbers per token.

    Raises ModelError for a model whose state is not a key-value cache, which cannot go back to an earlier position.
    """

    def __init__(self, model: Any) -> None:
        # Imported late: Transformers is optional, and whoever passes a model has it.
        from transformers import DynamicCache

        from .integrations.transformers import attached, hiding

        if getattr(model, "_is_stateful", False) or getattr(model.config, "is_encoder_decoder", False):
            raise ModelError(
                f"{type(model).__name__} was asked to answer; it is not a decoder that keeps keys and values only, so "
                "it cannot go back to an earlier position. Use a decoder-only attention model, such as Llama or Qwen."
            )
        self.model = model
        self._attached = attached
        self._hiding = hiding
        self._cache: Any = DynamicCache()
        self._can_keep_few = "logits_to_keep" in inspect.signature(model.forward).parameters

    @property
    def length(self) -> int:
        """Tokens read."""
        return int(self._cache.get_seq_length())

    def rewind(self, length: int) -> None:
        """Forget all but the first `length` tokens."""
        if length < self.length:
            self._cache.crop(length - self.length)

    def fork(self) -> Reader:
        """Another reader that has read the same, without a copy: what either goes on to read is its own."""
        fork = copy.copy(self)
        fork._cache = copy.copy(self._cache)
        # Layers grow by concatenation into new tensors, so that copies may begin with the same ones.
        fork._cache.layers = [copy.copy(layer) for layer in self._cache.layers]
        return fork

    def read(self, tokens: Sequence[int], progress: Callable[[int], None] | None = None) -> None:
        """Read tokens after those read already; `progress` hears how many of these are done."""
        for start in range(0, len(tokens), _CHUNK):
            chunk = tokens[start : start + _CHUNK]
            self._logits(chunk, 1)
            if progress is not None:
                progress(start + len(chunk))

    def generate(
        self,
        last: int,
        limit: int,
        stop: Collection[int],
        progress: Callable[[int], None] | None = None,
    ) -> list[int]:
        """The likeliest next token, again and again: at most `limit` tokens, ended by one of `stop`, which is left out.

        `last` is the last token of the prompt, not read yet: its row predicts the first token of the answer.
        """
        answer: list[int] = []
        for step in self.stream(last, limit, stop):
            answer.append(step.token)
            if progress is not None:
                progress(len(answer))
        return answer

    def stream(self, last: int, limit: int, stop: Collection[int]) -> Iterator[Step]:
        """The tokens of `generate`, each as it is chosen."""
        token = last
        for _ in range(limit):
            logits = self.next_logits(token)
            token = int(logits.argmax())
            if token in stop:
                return
            yield Step(token, float(_log_prob(logits[None], [token])))

    def log_prob(
        self, rest: Sequence[int], answer: Sequence[int], progress: Callable[[int], None] | None = None
    ) -> float:
        """log p(answer | read tokens, rest), in nats; rest: one token or more. All that is read for it is forgotten.

        `progress` hears how many tokens of a long rest are done.
        """
        length = self.length
        # The end of the rest is read together with the answer: one pass over the model's weights fewer.
        alone = max(0, len(rest) - max(1, _CHUNK + 1 - len(answer)))
        self.read(rest[:alone], progress)
        logits = self._logits([*rest[alone:], *answer[:-1]], len(answer))
        self.rewind(length)
        return float(_log_prob(logits, answer))

    @torch.no_grad()
    def log_probs_hiding(self, last: int, answer: Sequence[int], hidden: Tensor) -> list[float]:
        """log p(answer | read tokens, last) in nats, once for each row of `hidden` [s, length], boolean.

        Where `hidden` is True, the T rows that predict the answer (that of `last` and of all but the last of the
        answer's tokens) may not attend to the token's key, in any layer. Keys and values stay those of the whole text:
        nothing is read again. The rows themselves are never hidden. O(s · T · length) time per head and layer, several
        variants at once where that copies no more of the cache than one variant of a long text does.
        """
        rows = torch.tensor([[last, *answer[:-1]]], device=self.model.device)
        batch = max(1, min(_LENT // max(1, self.length), _CHUNK // rows.shape[1]))
        few = {"logits_to_keep": rows.shape[1]} if self._can_keep_few else {}
        found: list[float] = []
        for part in hidden.split(batch) if len(hidden) else ():
            cache = self._lent(len(part))
            with self._hiding(self.model, part):
                output = self.model(input_ids=rows.expand(len(part), -1), past_key_values=cache, use_cache=True, **few)
            found += [float(_log_prob(logits, answer)) for logits in output.logits]
        return found

    def differentiable_log_prob(self, last: int, answer: Sequence[int]) -> tuple[Tensor, Tensor]:
        """log p(answer | read tokens, last) with its graph, and the leaf it hangs from: the rows' embeddings [1,T,c].

        Only the T rows that predict the answer are in the graph; the cache is a constant. Nothing stays read.
        """
        layers = self._cache.layers
        kept = [(layer.keys, layer.values) for layer in layers]
        rows = torch.tensor([[last, *answer[:-1]]], device=self.model.device)
        with torch.enable_grad():
            leaf = self.model.get_input_embeddings()(rows).detach().requires_grad_(True)
            with self._attached(self.model):
                output = self.model(inputs_embeds=leaf, past_key_values=self._cache, use_cache=True)
            total = _log_prob(output.logits[0], answer)
        # The cache grew by concatenation into new tensors, which hold the graph; the old ones are untouched.
        for layer, (keys, values) in zip(layers, kept, strict=True):
            layer.keys, layer.values = keys, values
        return total, leaf

    def next_logits(self, token: int) -> Tensor:
        """Read one token; the logits [vocabulary] of the one that follows it."""
        return self._logits([token], 1)[-1]

    def differentiable_logits(self, token: int) -> tuple[Tensor, Tensor]:
        """`next_logits` with their graph, and the leaf it hangs from: the embedding [1,1,c] of the token.

        Only this row is in the graph; what was read before is a constant. The token stays read, without its graph.
        """
        row = torch.tensor([[token]], device=self.model.device)
        with torch.enable_grad():
            leaf = self.model.get_input_embeddings()(row).detach().requires_grad_(True)
            with self._attached(self.model):
                output = self.model(inputs_embeds=leaf, past_key_values=self._cache, use_cache=True)
        for layer in self._cache.layers:
            layer.keys, layer.values = layer.keys.detach(), layer.values.detach()
        return output.logits[0, -1], leaf

    def _lent(self, batch: int) -> Any:
        """What has been read, `batch` times over, for one run: a layer's copy is made for its call and not kept."""
        lent = copy.copy(self._cache)
        lent.layers = [_lent_layer(layer, batch) for layer in self._cache.layers]
        return lent

    @torch.no_grad()
    def _logits(self, tokens: Sequence[int], rows: int) -> Tensor:
        """Read tokens; the logits [rows, vocabulary] of the last `rows` of them."""
        ids = torch.tensor([list(tokens)], device=self.model.device)
        few = {"logits_to_keep": rows} if self._can_keep_few else {}
        with self._attached(self.model):
            output = self.model(input_ids=ids, past_key_values=self._cache, use_cache=True, **few)
        return output.logits[0, -rows:]


def _lent_layer(layer: Any, batch: int) -> Any:
    """A layer of a cache, `batch` times over, that hands out what it holds and what is new, and stays as it is."""
    lent = copy.copy(layer)
    if not layer.is_initialized or not layer.keys.numel():
        return lent
    keys, values = (t.expand(batch, *t.shape[1:]) for t in (layer.keys, layer.values))

    def update(more_keys: Tensor, more_values: Tensor, *_: Any, **__: Any) -> tuple[Tensor, Tensor]:
        return torch.cat([keys, more_keys], dim=-2), torch.cat([values, more_values], dim=-2)

    lent.keys, lent.values, lent.update = keys, values, update
    return lent


def _log_prob(logits: Tensor, answer: Sequence[int]) -> Tensor:
    """Σ_t log softmax(logits_t)[answer_t], in float32 or better; logits [T, vocabulary]."""
    target = torch.tensor(list(answer), device=logits.device)
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    return torch.log_softmax(logits, dim=-1).gather(1, target[:, None]).sum()
