"""Results that are worth keeping for the next caller in this process."""

from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


class Kept(Generic[K, V]):
    """The newest results of a costly function, by everything that they depend on.

    Unlike with `functools.lru_cache`, the key is not what the function reads: a dataset of a million rows is
    known by the hash of its content, equal for whoever loads it again, and is not kept alive.

    Args:
        size: results kept; the one that was asked for the longest ago goes first.
    """

    def __init__(self, size: int) -> None:
        self._size = size
        self._found: dict[K, V] = {}

    def get(self, key: K, make: Callable[[], V]) -> V:
        """What is kept under the key, or what `make` returns; an error that it raises is not kept."""
        found = self._found.pop(key) if key in self._found else make()
        self._found[key] = found
        while len(self._found) > self._size:
            del self._found[next(iter(self._found))]
        return found

    def forget(self) -> None:
        """Keeps nothing."""
        self._found.clear()
