"""A map from address ranges to values: what lies where in an address space."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterator
from typing import Generic, TypeVar

__all__ = ["RangeMap"]

V = TypeVar("V")


class RangeMap(Generic[V]):
    """Values on disjoint half-open ranges of addresses; setting a range replaces what was there.

    Source: ours.

    >>> map = RangeMap[str]()
    >>> map.set(0, 10, "a")
    >>> map.set(4, 6, "b")
    >>> map.clear(8, 20)
    >>> list(map.items(0, 100)), map.get(5), map.get(9)
    ([(0, 4, 'a'), (4, 6, 'b'), (6, 8, 'a')], 'b', None)
    """

    __slots__ = ("_ends", "_starts", "_values")

    def __init__(self) -> None:
        self._starts: list[int] = []
        self._ends: list[int] = []
        self._values: list[V] = []

    def copy(self) -> RangeMap[V]:
        """Returns a map with the same ranges that changes on its own. Source: ours."""
        other: RangeMap[V] = RangeMap()
        other._starts = self._starts.copy()
        other._ends = self._ends.copy()
        other._values = self._values.copy()
        return other

    def get(self, address: int) -> V | None:
        """Returns the value at an address, or None. Source: ours."""
        i = bisect_right(self._starts, address) - 1
        return self._values[i] if i >= 0 and address < self._ends[i] else None

    def items(self, start: int, end: int) -> Iterator[tuple[int, int, V]]:
        """Iterates over the ranges from ``start`` up to ``end``, cut to it, in order. Source:
        ours.
        """
        i = bisect_right(self._ends, start)
        while start < end and i < len(self._starts) and self._starts[i] < end:
            yield max(self._starts[i], start), min(self._ends[i], end), self._values[i]
            i += 1

    def clear(self, start: int, end: int) -> None:
        """Empties a range. Source: ours."""
        if start < end:
            self._replace(start, end, [])

    def set(self, start: int, end: int, value: V) -> None:
        """Gives a range a value. Source: ours."""
        if start < end:
            self._replace(start, end, [(start, end, value)])

    def _replace(self, start: int, end: int, new: list[tuple[int, int, V]]) -> None:
        first = bisect_right(self._ends, start)
        last = bisect_left(self._starts, end, first)
        if first < last:
            low, high = self._starts[first], self._ends[last - 1]
            if low < start:
                new.insert(0, (low, start, self._values[first]))
            if high > end:
                new.append((end, high, self._values[last - 1]))
        self._starts[first:last] = [piece[0] for piece in new]
        self._ends[first:last] = [piece[1] for piece in new]
        self._values[first:last] = [piece[2] for piece in new]
