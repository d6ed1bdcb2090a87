"""An item that a model has answered, and the log-probability of that answer with any of its sentences taken out."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from ...reader import Reader
from ...sentences import Span
from ...tasks._chat import stop_tokens
from ...tasks._prompt import Prompt
from .item import Item

__all__ = ["Asked", "Cost"]

T = TypeVar("T")


@dataclass(frozen=True)
class Cost:
    """What a piece of work took: token steps (a row of a forward pass, a backward counting two), and CPU seconds."""

    steps: float
    seconds: float


@dataclass
class Asked:
    """A model's greedy answer to an item. `log_prob` is that of the answer in nats as it was written.

    `full` is the same, computed as it is without sentences.
    `kept` holds the log-probability for every set of sentences that was asked for, by the numbers of those kept.
    """

    network: Any
    tokenizer: Any
    item: Item
    limit: int = 32
    prompt: Prompt = field(init=False)
    spans: list[Span] = field(init=False)
    reader: Reader = field(init=False)
    answer: list[int] = field(init=False)
    log_prob: float = field(init=False)
    prefill: Cost = field(init=False)
    kept: dict[frozenset[int], float] = field(init=False, default_factory=dict[frozenset[int], float])

    def __post_init__(self) -> None:
        self.prompt = Prompt(self.item.document, self.item.question, self.tokenizer)
        self.spans = _spans(self.item.sentences)
        self.reader = Reader(self.network)
        *most, last = self.prompt.tokens
        _, self.prefill = timed(len(most), lambda: self.reader.read(most))
        steps = list(self.reader.stream(last, self.limit, stop_tokens(self.network, self.tokenizer)))
        self.answer, self.log_prob = [step.token for step in steps], sum(step.log_prob for step in steps)
        self.reader.rewind(len(most))

    @property
    def full(self) -> float:
        """log p(answer | document), in nats."""
        return self.without([()])[0]

    def without(self, removed: Iterable[Iterable[int]]) -> list[float]:
        """log p(answer | document without these sentences), in nats, for each set of them, each of which is read once.

        Prompts that begin alike are read one after the other, so that what they share is read once.
        """
        everything = frozenset(range(len(self.spans)))
        wanted = [everything - frozenset(numbers) for numbers in removed]
        todo = {kept: self.lacking(everything - kept) for kept in set(wanted) if kept not in self.kept}
        reader, held = Reader(self.network), ()
        for kept in sorted(todo, key=lambda k: todo[k]):
            *most, last = todo[kept]
            shared = next((i for i, (x, y) in enumerate(zip(most, held, strict=False)) if x != y), None)
            shared = min(len(most), len(held)) if shared is None else shared
            reader.rewind(shared)
            reader.read(most[shared:])
            self.kept[kept] = reader.log_prob([last], self.answer)
            held = tuple(most)
        return [self.kept[kept] for kept in wanted]

    def drops(self, removed: Sequence[Iterable[int]]) -> list[float]:
        """By how many nats the answer's log-probability falls without each of these sets of sentences."""
        full, *others = self.without([(), *removed])
        return [full - other for other in others]

    def know(self, log_probs: dict[int, float]) -> None:
        """Note the log-probability of the answer without a sentence, for each by its number, where it was measured."""
        everything = frozenset(range(len(self.spans)))
        self.kept |= {everything - {i}: log_prob for i, log_prob in log_probs.items()}

    def held(self) -> Reader:
        """The reader, holding the prompt but for its last token."""
        most = self.prompt.tokens[:-1]
        if self.reader.length < len(most):
            self.reader.read(most[self.reader.length :])
        self.reader.rewind(len(most))
        return self.reader

    def lacking(self, removed: Iterable[int]) -> tuple[int, ...]:
        """The prompt without some sentences of its document, given by their numbers."""
        return Prompt(self.item.without(frozenset(removed)), self.item.question, self.tokenizer).tokens


def timed(steps: float, work: Callable[[], T]) -> tuple[T, Cost]:
    """What the work returns, and its cost."""
    start = time.process_time()
    result = work()
    return result, Cost(steps, time.process_time() - start)


def _spans(texts: Sequence[str]) -> list[Span]:
    """Where the sentences stand in the document that joins them with blanks."""
    found: list[Span] = []
    for text in texts:
        start = found[-1].end + 1 if found else 0
        found.append(Span(start, start + len(text)))
    return found
