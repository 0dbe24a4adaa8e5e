"""Keeps the recorded order where it matters, with no more post/await pairs than that takes.

Two operations of different tasks keep their order when they touch the same pages of one address
space, map ranges that lie side by side (their mappings may merge), or start and end tasks. Most
orders follow from others, by what each task is known to have awaited. Everything else may run in
any order. An operation is named by its *mark*: (task number, index in that task).
"""

from __future__ import annotations

from array import array
from bisect import bisect_right
from collections.abc import Iterator
from typing import Final

from spfemu.importers.ranges import RangeMap

__all__ = ["Clocks", "Mark", "Trail"]

Mark = tuple[int, int]
"""An operation: task number, index in that task."""

_KEPT: Final = 64
_MANY: Final = 1024
_PAGE_SHIFT: Final = 12
_PAGE_BYTES: Final = 1 << _PAGE_SHIFT
_REGION_SHIFT: Final = 9  # pages to a region of the table: 512, as many as a page table has entries
_REGION_PAGES: Final = 1 << _REGION_SHIFT
_INDEX_BITS: Final = 40


class Clocks:
    """What each task knows to have happened: for each other task, the last of its operations that
    came before.

    An await makes its task know all that the awaited task knew then; so most orders follow from
    others and need no await of their own. Source: vector clocks (Fidge, Mattern, 1988), kept
    sparse; ours otherwise.

    >>> clocks = Clocks()
    >>> clocks.waits(1, 0, {(0, 5)})
    [(0, 5)]
    >>> clocks.waits(2, 0, {(1, 3)})
    [(1, 3)]
    >>> clocks.waits(2, 4, {(0, 5), (0, 2)})    # known through task 1
    []
    """

    def __init__(self) -> None:
        self._known: dict[int, dict[int, int]] = {}
        # For each task, when it learned something: operation indices and what it knew from then on.
        self._learned: dict[int, tuple[list[int], list[dict[int, int]]]] = {}
        self._ended: set[int] = set()

    def starts(self, child: int, mark: Mark) -> None:
        """Task ``child`` was started by the operation ``mark``, and knows what came before it.

        Source: ours. A task with memory of its own meets none of that and need not be told of.
        """
        self._known[child] = {**self._at(mark), mark[0]: mark[1]}
        self._remember(child, 0)

    def ends(self, task: int) -> None:
        """A task has done its last operation. Source: ours."""
        self._ended.add(task)

    def waits(self, task: int, index: int, before: set[Mark]) -> list[Mark]:
        """Returns which of the marks the operation ``index`` of ``task`` has to await, so that it
        comes after all of ``before``.

        The caller awaits them all; from then on the task knows them. Source: ours. In task order.
        """
        known = self._known.setdefault(task, {})
        latest: dict[int, int] = {}
        for other, at in before:
            if other != task and known.get(other, -1) < at and latest.get(other, -1) < at:
                latest[other] = at
        if not latest:
            return []
        needed = []
        for other, at in sorted(latest.items()):
            implied = any(
                third != other and self._at((third, when)).get(other, -1) >= at
                for third, when in latest.items()
            )
            if not implied:
                needed.append((other, at))
        for mark in needed:
            for third, when in self._at(mark).items():
                if third != task and known.get(third, -1) < when:
                    known[third] = when
            known[mark[0]] = max(known.get(mark[0], -1), mark[1])
        self._remember(task, index)
        return needed

    def _at(self, mark: Mark) -> dict[int, int]:
        """What the task of ``mark`` knew at that operation; less than that when it is long ago.
        Source: ours.
        """
        learned = self._learned.get(mark[0])
        if learned is None:
            return {}
        i = bisect_right(learned[0], mark[1]) - 1
        return learned[1][i] if i >= 0 else {}

    def _remember(self, task: int, index: int) -> None:
        # What is forgotten here could only have saved awaits; bounded memory is worth more.
        known = self._known[task]
        if len(known) > _MANY:
            for other in self._ended.intersection(known):
                del known[other]
        indices, states = self._learned.setdefault(task, ([], []))
        indices.append(index)
        states.append(known.copy())
        if len(indices) > 2 * _KEPT:
            del indices[:-_KEPT], states[:-_KEPT]


class Trail:
    """The latest operations of one address space: on each page, on each range, and of each task.

    ``at_page`` and ``at_range`` return the marks that an operation there must come after,
    ``*_done`` record it. An operation on a range is remembered for the range and replaces what was
    known of its pages, since it came after them. Memory is 8 bytes for each page touched, in
    regions of 512 pages. Source: ours.
    """

    def __init__(self) -> None:
        self._ranges: RangeMap[Mark] = RangeMap()
        self._pages: dict[int, array[int]] = {}  # region number -> for each page, a packed mark + 1
        self._last: dict[int, int] = {}  # task -> its latest operation here
        self._base: Mark | None = None

    def at_page(self, page: int) -> set[Mark]:
        """Returns what an access to a page comes after. Source: ours."""
        mark = self._ranges.get(page << _PAGE_SHIFT) or self._base
        marks = {mark} if mark is not None else set()
        region = self._pages.get(page >> _REGION_SHIFT)
        if region is not None:
            packed = region[page & (_REGION_PAGES - 1)]
            if packed:
                marks.add(_unpack(packed))
        return marks

    def page_done(self, page: int, mark: Mark) -> None:
        """Records an access to a page. Source: ours."""
        region = self._pages.get(page >> _REGION_SHIFT)
        if region is None:
            region = self._pages[page >> _REGION_SHIFT] = array("Q", bytes(8 * _REGION_PAGES))
        region[page & (_REGION_PAGES - 1)] = _pack(mark)
        self._last[mark[0]] = mark[1]

    def at_range(self, start: int, end: int) -> set[Mark]:
        """Returns what an operation on the bytes from ``start`` to ``end`` comes after.

        Operations on ranges that only touch are among it: whether their mappings merge, and with
        which anon_vma, depends on which came first. Source: ours.
        """
        near = self._ranges.items(start - _PAGE_BYTES, end + _PAGE_BYTES)
        marks = {mark for _, _, mark in near}
        if self._base is not None:
            marks.add(self._base)
        for region, first, last in self._regions(start, end):
            latest: dict[int, int] = {}
            for packed in set(region[first:last]):
                if packed:
                    task, index = _unpack(packed)
                    if latest.get(task, -1) < index:
                        latest[task] = index
            marks.update(latest.items())
        return marks

    def range_done(self, start: int, end: int, mark: Mark) -> None:
        """Records an operation on a range. Source: ours."""
        self._ranges.set(start, end, mark)
        for region, first, last in self._regions(start, end):
            region[first:last] = array("Q", bytes(8 * (last - first)))
        self._last[mark[0]] = mark[1]

    def at_all(self) -> set[Mark]:
        """Returns what an operation on the whole address space comes after. Source: ours."""
        marks = set(self._last.items())
        if self._base is not None:
            marks.add(self._base)
        return marks

    def all_done(self, mark: Mark) -> None:
        """Records an operation on the whole address space. Source: ours."""
        self._ranges = RangeMap()
        self._pages = {}
        self._last = {mark[0]: mark[1]}
        self._base = mark

    def _regions(self, start: int, end: int) -> Iterator[tuple[array[int], int, int]]:
        """The regions touched so far in a range, with the first page in it and the one after the
        last. Source: ours.
        """
        low, high = start >> _PAGE_SHIFT, (end + (1 << _PAGE_SHIFT) - 1) >> _PAGE_SHIFT
        numbers = range(low >> _REGION_SHIFT, ((high - 1) >> _REGION_SHIFT) + 1)
        if len(numbers) > len(self._pages):
            touched = sorted(number for number in self._pages if number in numbers)
        else:
            touched = [number for number in numbers if number in self._pages]
        for number in touched:
            base = number << _REGION_SHIFT
            yield self._pages[number], max(low - base, 0), min(high - base, _REGION_PAGES)


def _pack(mark: Mark) -> int:
    return (mark[0] << _INDEX_BITS | mark[1]) + 1


def _unpack(packed: int) -> Mark:
    packed -= 1
    return packed >> _INDEX_BITS, packed & ((1 << _INDEX_BITS) - 1)
