"""Values that are kept while there is room: the one that was longest unused goes first."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

__all__ = ["Shelf"]

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


class Shelf(Generic[K, V]):
    """Up to `room` bytes of values, whose sizes `size` tells; the newest is kept even where it is larger than that."""

    def __init__(self, room: int, size: Callable[[V], int]) -> None:
        self._room, self._size, self._held = room, size, 0
        self._values: OrderedDict[K, V] = OrderedDict()

    def get(self, key: K, make: Callable[[], V]) -> V:
        """The value of this key, made where it is not there."""
        if key in self._values:
            self._values.move_to_end(key)
            return self._values[key]
        value = make()
        self._values[key] = value
        self._held += self._size(value)
        while self._held > self._room and len(self._values) > 1:
            self._held -= self._size(self._values.popitem(last=False)[1])
        return value

    def drop(self, key: K) -> None:
        """Forget a value."""
        if key in self._values:
            self._held -= self._size(self._values.pop(key))
