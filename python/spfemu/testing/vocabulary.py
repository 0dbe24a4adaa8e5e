"""What operations may speak of, in tables.

Whatever can be chosen stands in a table, the plainest first and each as often as it should come up;
an operation is a few draws of a place in such tables. That is fast, and a failing example shrinks
towards the beginning of each table.

Inside the package an address is an `At` until the whole program is known: the assembling decides
whether the id that it names has been defined by then.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache, cached_property
from typing import Any, Final, NamedTuple, TypeVar

from hypothesis import strategies as st

from spfemu.profiles import Arch
from spfemu.program.values import format_address
from spfemu.testing.places import Place, Places

__all__ = ["At", "Length", "Operation", "Vocabulary", "below", "finished", "pick"]

Operation = dict[str, Any]
"""An operation as the program format has it, but that addresses may be `At`."""

_T = TypeVar("_T")

_PAGES: Final = (1, 1, 1, 2, 2, 3, 4, 4, 6, 8, 16)
_ID_PAGES: Final = (0, 0, 1, 1, 2, 3, -1, 7, 8)


@cache
def below(count: int) -> st.SearchStrategy[int]:
    """A strategy for the numbers from 0 to below ``count``. Source: ours."""
    return st.integers(0, count - 1)


def pick(draw: st.DrawFn, table: Sequence[_T]) -> _T:
    """Draws one of a table, the first one in the simplest example. Source: ours."""
    return table[draw(below(len(table)))]


class At(NamedTuple):
    """An address: bytes from an id, or, with no id, from 0. Source: ours."""

    id: str | None
    offset: int


class Length(NamedTuple):
    """A length in bytes, ``clipped`` to end with the window, or the ``rest`` of user space.

    Source: ours.
    """

    length: int
    clipped: bool = False
    rest: bool = False


@dataclass(frozen=True)
class Vocabulary:
    """What operations may speak of, and the tables that they are drawn from.

    Source: ours. ``window`` is where most addresses are, ``second`` where most others are. ``ids``
    may be named and defined. ``files`` maps names of files to kinds. ``confined``: every valid
    range lies in the window, whole pages; nothing else in the process changes. ``prots`` are the
    protections, ``sharing`` the share of shared mappings in eighths, ``advices`` what madvise is
    given. ``heap`` says whether there is a brk, ``limits`` whether vm.max_map_count changes,
    ``executing`` whether anything is executed. ``huge``: ranges may be of the size that an entry
    above the PTE table maps, and begin where one does. ``host``: only what the host's kernel can
    be asked to do.
    """

    places: Places
    window: Place
    second: Place
    ids: tuple[str, ...] = ()
    files: Mapping[str, str] = field(default_factory=dict)
    confined: bool = False
    prots: tuple[str, ...] = (*("rw",) * 4, "r", "r", "none", "rwx", "rx", "x", "w")
    sharing: int = 2
    heap: bool = True
    limits: bool = True
    executing: bool = True
    huge: bool = False
    host: bool = False
    advices: tuple[str, ...] = (
        *("dontneed",) * 6,
        *("random", "sequential", "normal", "dontfork", "dofork"),
        *("populate_read", "populate_write"),
        *("wipeonfork", "keeponfork"),
        *("dontdump", "dodump", "nohugepage", "hugepage"),
        *("free", "free", "pageout", "pageout", "cold", "willneed"),
        *("mergeable",) * 4,
        "unmergeable",
    )

    @classmethod
    def of(
        cls,
        arch: Arch,
        *,
        ids: Sequence[str] = (),
        files: Mapping[str, str] | None = None,
        min_addr: int = 65536,
        second: int = 0,
        **restrictions: Any,
    ) -> Vocabulary:
        """Everything that an arch allows, or what the restrictions leave.

        Source: ours. ``second`` is a number in ``Places.others``.
        """
        places = Places(arch, min_addr)
        other = places.others[second]
        return cls(places, places.main, other, tuple(ids), dict(files or {}), **restrictions)

    @property
    def page(self) -> int:
        """The bytes of a page. Source: the arch."""
        return self.places.page

    @property
    def window_start(self) -> int:
        """The first address of the window. Source: ours."""
        return self.window.base - self.window.below * self.page

    @property
    def window_end(self) -> int:
        """The first address beyond the window. Source: ours."""
        return self.window.base + self.window.above * self.page

    @property
    def few_pages(self) -> int:
        """The bytes of as many pages as may be brought in at once. Source: ours."""
        return 16 * self.page

    def pages_left(self, addr: At) -> int:
        """The pages from an address to the end of the window, at least 1. Source: ours."""
        return max(1, (self.window_end - addr.offset) // self.page)

    # The tables

    @cached_property
    def addresses(self) -> tuple[At, ...]:
        """Where a range begins: mostly in the window, then at ids, then elsewhere. Source: ours."""
        if self.confined:
            return self._pages_of(self.window)
        elsewhere = [at for place in self.places.others for at in self._pages_of(place)[-2:]]
        second = self._pages_of(self.second)
        window = self._pages_of(self.window) * 8
        return (*window, *self.huge_starts * 40, *self._at_ids, *second * 2, *elsewhere)

    @cached_property
    def accessed(self) -> tuple[At, ...]:
        """What is accessed; that strays less. Source: ours."""
        if self.confined:
            return self.addresses
        bases = [At(None, self.places.address(place, 0)) for place in self.places.others]
        window = (*self._pages_of(self.window) * 10, *self.huge_starts * 10)
        return (*window, *self._at_ids, *self._pages_of(self.second), *bases)

    @cached_property
    def lengths(self) -> tuple[Length, ...]:
        """How long a range is. Source: ours."""
        pages = [count * self.page for count in _PAGES]
        if self.confined:
            return (*[Length(length, True) for length in pages] * 2, Length(0))
        special = (*self.places.odd_lengths, *self.places.long_lengths)
        return (
            *[Length(length, True) for length in pages] * 6,
            *[Length(length) for length in pages] * 2,
            *[Length(length) for length in special],
            Length(self.page, rest=True),
            *[Length(self.places.table_span)] * (20 * self.huge),
        )

    @cached_property
    def backings(self) -> tuple[tuple[str, str | None], ...]:
        """Whether a mapping is shared, and its file. Source: ours."""
        named = sorted(set(self.files) - set(self.hugetlb_files))
        files = (*(None,) * 4 * max(1, len(named)), *named)
        shared = [("shared", file) for file in files] * self.sharing
        return (*[("private", file) for file in files] * (8 - self.sharing), *shared)

    @cached_property
    def hugetlb_files(self) -> tuple[str, ...]:
        """The files whose pages are huge. Source: ours."""
        return tuple(name for name, kind in self.files.items() if kind == "hugetlb")

    @cached_property
    def truncated(self) -> tuple[str, ...]:
        """The files that may become shorter or longer. Source: ours."""
        return tuple(sorted(name for name, kind in self.files.items() if kind != "hugetlb"))

    @cached_property
    def defined(self) -> tuple[str | None, ...]:
        """What a call that returns an address may name it. Source: ours."""
        return (*(None,) * len(self.ids), *self.ids) or (None,)

    @cached_property
    def strides(self) -> tuple[int, ...]:
        """Strides of a touch other than a page. Source: ours."""
        page = self.page
        return (page // 2, 2 * page, 3 * page, self.places.long_lengths[0], 1 << 62)

    @cached_property
    def heaps(self) -> tuple[int | None, ...]:
        """Where the heap may begin. Source: ours."""
        places = self.places
        return (
            *(None,) * 8,
            self.window_start,
            places.address(self.window, -2, 100),
            places.address(places.top, -2),
            *((places.min_addr + self.page,) if self.host else (places.min_addr, 0)),
        )

    @cached_property
    def huge_starts(self) -> tuple[At, ...]:
        """With ``huge``: where the two huge pages are that meet in the window. Source: ours."""
        base, span = self.window.base, self.places.table_span
        return (At(None, base - span), At(None, base)) if self.huge else ()

    @cached_property
    def _at_ids(self) -> tuple[At, ...]:
        return tuple(At(name, pages * self.page) for name in self.ids for pages in _ID_PAGES)

    def _pages_of(self, place: Place) -> tuple[At, ...]:
        pages = range(-place.below, max(place.above, 1 - place.below))
        return tuple(At(None, self.places.address(place, number)) for number in pages)


def finished(value: Any) -> Any:
    """Returns an operation with its addresses as the program format writes them.

    Source: the program format.
    """
    if isinstance(value, At):
        return format_address(*value)
    if isinstance(value, dict):
        return {key: finished(part) for key, part in value.items()}
    if isinstance(value, list):
        return [finished(part) for part in value]
    return value
