"""Addresses and lengths at which something changes: edges of tables, of user space, of pages."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Final

from spfemu.profiles import Arch

__all__ = ["Place", "Places"]

_DEFAULT_HEAP: Final = 0x5555_5580_0000
"""Where the heap begins unless a program says, in a user space that has the address."""

_HEAP_ALIGN: Final = 2 << 20

_TOP: Final = 1 << 64


@dataclass(frozen=True, slots=True)
class Place:
    """An address, and how many pages below and above it are worth trying.

    Source: ours.
    """

    base: int
    below: int
    above: int


@dataclass(frozen=True)
class Places:
    """The places of an arch.

    Source: ours, from the arch's profile. ``min_addr`` is the program's ``mmap_min_addr``, bytes.

    >>> from spfemu.profiles import Arch, Level
    >>> from spfemu.testing.places import Places
    >>> small = Arch("small", "arm64", 14, (Level("pgd", 25, 2048), Level("pte", 14, 2048)),
    ...              task_size=1 << 36, mmap_base=1 << 35)
    >>> places = Places(small)
    >>> places.main.base % (1 << 25), places.rest(places.top.base - 16384)
    (0, 16384)
    """

    arch: Arch
    min_addr: int = 65536

    @property
    def page(self) -> int:
        """The bytes of a page. Source: the arch."""
        return self.arch.page_size

    @cached_property
    def main(self) -> Place:
        """The window in which most operations meet, across the edge between two PTE tables.

        Source: ours.
        """
        middle = self.arch.task_size // 4 // self._widest * self._widest
        return Place(middle + self._span(-2), 8, 8)

    @cached_property
    def top(self) -> Place:
        """The end of user space. Source: the arch."""
        return Place(self.arch.task_size, 6, 2)

    @cached_property
    def others(self) -> tuple[Place, ...]:
        """Places that are visited now and then, the plainest first. Source: ours."""
        edges = [
            Place(self.main.base - self._span(-2) + span, 4, 4)
            for span in (self._span(-3), self._widest)
        ]
        return (
            Place(self.arch.mmap_base, 12, 0),
            Place(self._heap, 1, 10),
            *edges,
            Place(self._aligned(self.min_addr), 2, 4),
            self.top,
            Place(0, 0, 2),
            Place(1 << 63, 1, 1),
            Place(0xC << 60, 1, 1),
            Place(_TOP, 2, 0),
        )

    @property
    def table_span(self) -> int:
        """What a PTE table maps, or a huge page in its place. Source: the arch."""
        return self._span(-2)

    @cached_property
    def long_lengths(self) -> tuple[int, ...]:
        """Lengths that cover whole tables, all of user space, or more. Source: ours."""
        return (
            self._span(-2),
            self._span(-2) + self.page,
            self._span(-3),
            self.arch.task_size,
            1 << 63,
            _TOP - self.page,
            _TOP - 1,
        )

    @cached_property
    def odd_lengths(self) -> tuple[int, ...]:
        """Lengths that are not whole pages. Source: ours."""
        return (0, 1, self.page - 1, self.page + 1)

    def address(self, place: Place, pages: int, offset: int = 0) -> int:
        """The address so many pages and bytes from a place; wraps as addresses do.

        Source: ours.
        """
        return (place.base + pages * self.page + offset) % _TOP

    def rest(self, address: int) -> int:
        """The bytes from an address to the end of user space, 0 beyond it. Source: ours."""
        return max(0, self.arch.task_size - address)

    @property
    def _heap(self) -> int:
        size = self.arch.task_size
        if size > _DEFAULT_HEAP:
            return _DEFAULT_HEAP
        return -(-(size // 3 * 2) // _HEAP_ALIGN) * _HEAP_ALIGN

    @property
    def _widest(self) -> int:
        """What an entry covers of the highest level that has several in user space."""
        spans = [1 << level.shift for level in self.arch.levels]
        return next((span for span in spans if span <= self.arch.task_size // 4), self.page)

    def _span(self, level: int) -> int:
        """What an entry of a level covers; of the top level if there are not so many."""
        levels = self.arch.levels
        return 1 << levels[max(level, -len(levels))].shift

    def _aligned(self, address: int) -> int:
        return -(-address // self.page) * self.page
