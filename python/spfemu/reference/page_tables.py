"""Page tables of all levels, and the frames they take."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Final

from spfemu.reference.model import Frames, HugetlbPage, Leaf, Pte, SwapEntry

if TYPE_CHECKING:
    from spfemu.profiles import Arch


Entry = Pte | SwapEntry
Tables = dict[int, dict[int, Entry]]
"""The tables of one level by number, each with its PTEs; those of upper tables stay empty."""

_COUNTED: Final = 3
"""How many kinds of tables an address space counts: PUD, PMD and PTE tables."""


class PageTables:
    """The page tables of one address space.

    A table is known by its level and its `number`: the address it begins at, shifted by what an
    entry of the level above covers. Of upper tables only their existence is kept: an entry is
    none if the table below does not exist. In a PTE table, PTEs are found by virtual page number.
    Where a PMD maps a huge page, `huge` has its leaf, and the frame of a table is deposited for it.
    """

    def __init__(self, arch: Arch, frames: Frames) -> None:
        self.page_shift = arch.page_shift
        self.shifts = [level.shift for level in arch.levels[:-1]]
        """For each kind of table below the top one, what it covers, upper tables first."""
        self.table_entries = [level.entries for level in arch.levels[1:]]
        """How many entries a table has, upper tables first."""
        self.pmd_shift = self.shifts[-1]
        self.pmd_size = 1 << self.pmd_shift
        self.frames = frames
        frames.allocate()  # the top table, which exists as long as the address space
        self.levels: list[Tables] = [{} for _ in self.shifts]
        self.tables = self.levels[-1]
        self.huge: dict[int, Leaf] = {}

    def size_in_bytes(self) -> int:
        """mm_pgtables_bytes(): what PUD, PMD and PTE tables take, those deposited included."""
        numbers = [len(tables) for tables in self.levels]
        if len(numbers) > _COUNTED:
            numbers[0] = 0  # __p4d_alloc() counts nothing
        numbers[-1] += sum(not isinstance(leaf.page, HugetlbPage) for leaf in self.huge.values())
        return sum(number * 8 * n for number, n in zip(numbers, self.table_entries, strict=True))

    def table(self, address: int) -> dict[int, Entry] | None:
        """The PTE table that covers `address`, None while there is no table or a huge page."""
        return self.tables.get(address >> self.pmd_shift)

    def leaf(self, address: int) -> Leaf | None:
        """The PMD of `address` if it maps a huge page."""
        return self.huge.get(address >> self.pmd_shift)

    def pte(self, address: int) -> Entry | None:
        """The PTE of `address`, or what a PMD says of its page; None when there is none."""
        leaf = self.leaf(address)
        if leaf is not None:
            return leaf.part((address % self.pmd_size) >> self.page_shift)
        table = self.table(address)
        return None if table is None else table.get(address >> self.page_shift)

    def mark_used(self, address: int, *, dirty: bool) -> None:
        """Sets the accessed bit, and the dirty bit if so, of what maps `address`."""
        number = address >> self.pmd_shift
        if number in self.huge:
            leaf = self.huge[number]
            self.huge[number] = leaf._replace(young=True, dirty=leaf.dirty or dirty)
            return
        table, page_number = self.tables[number], address >> self.page_shift
        pte = table[page_number]
        assert isinstance(pte, Pte), "what is in swap is not used"
        table[page_number] = pte._replace(young=True, dirty=pte.dirty or dirty)

    def huge_at(self, address: int) -> Leaf:
        """The PMD of `address`, which maps a huge page."""
        return self.huge[address >> self.pmd_shift]

    def map_huge(self, address: int, leaf: Leaf) -> None:
        """Maps a huge page where nothing is. The frame of the deposited table is the caller's."""
        self.huge[address >> self.pmd_shift] = leaf

    def leaves(self, start: int, end: int) -> list[int]:
        """Where the huge pages begin that have a byte in [start, end), ascending."""
        first, last = start >> self.pmd_shift, (end - 1) >> self.pmd_shift
        found = [number for number in self.huge if first <= number <= last]
        return [number << self.pmd_shift for number in sorted(found)]

    def allocate_upper(self, address: int) -> None:
        """p4d_alloc(), pud_alloc(), pmd_alloc(): makes the way to the PMD entry of `address`."""
        for shift, tables in list(zip(self.shifts, self.levels, strict=True))[:-1]:
            self._allocate(tables, address >> shift)

    def allocate(self, address: int) -> None:
        """pte_alloc(): makes sure that the PTE table of `address`, no huge page, exists."""
        self._allocate(self.tables, address >> self.pmd_shift)

    def _allocate(self, tables: Tables, number: int) -> None:
        if number not in tables:
            self.frames.allocate()
            tables[number] = {}

    def store(self, address: int, pte: Entry) -> None:
        """Stores a PTE; the table must exist. Map counts are the caller's business."""
        self.tables[address >> self.pmd_shift][address >> self.page_shift] = pte

    def clear(self, address: int) -> None:
        """Makes a PTE none; its table stays."""
        del self.tables[address >> self.pmd_shift][address >> self.page_shift]

    def present(self, start: int, end: int) -> Iterator[tuple[int, Pte]]:
        """Address and PTE of everything mapped in [start, end), ascending."""
        for address, pte in self.entries(start, end):
            if isinstance(pte, Pte):
                yield address, pte

    def entries(self, start: int, end: int) -> Iterator[tuple[int, Entry]]:
        """As `present`, with what is in swap."""
        first, last = start >> self.page_shift, (end - 1) >> self.page_shift
        for number in _overlapping(self.tables, self.pmd_shift, start, end):
            table = self.tables[number]
            for page_number in sorted(table):
                if first <= page_number <= last:
                    yield page_number << self.page_shift, table[page_number]

    def table_ranges(self, start: int, end: int) -> list[tuple[int, int]]:
        """The parts of [start, end) that a PTE table or a huge page covers each, ascending."""
        if start >= end:
            return []
        numbers = _overlapping(self.tables, self.pmd_shift, start, end)
        bases = [number << self.pmd_shift for number in numbers] + self.leaves(start, end)
        return [(max(start, base), min(end, base + self.pmd_size)) for base in sorted(bases)]

    def pmd_ranges(self, start: int, end: int) -> list[tuple[int, int]]:
        """The parts of [start, end) that a PMD table covers each, ascending."""
        shift, tables = self.shifts[-2], self.levels[-2]
        numbers = _overlapping(tables, shift, start, end)
        return [(max(start, n << shift), min(end, (n + 1) << shift)) for n in numbers]

    def move_table(self, start: int, stop: int, target: int) -> bool:
        """Lets a whole PTE table cover another place, where there is none; whether it can.

        **Source:** move_normal_pmd(), mm/mremap.c@5.1.
        """
        if not self._fits(start, stop, target):
            return False
        delta = (target - start) >> self.page_shift
        moved = self.tables.pop(start >> self.pmd_shift)
        self.tables[target >> self.pmd_shift] = {
            page_number + delta: pte for page_number, pte in moved.items()
        }
        return True

    def move_leaf(self, start: int, stop: int, target: int) -> bool:
        """Lets a huge page cover another place, where there is nothing; whether it can.

        **Source:** move_huge_pmd(), mm/huge_memory.c@5.1.
        """
        if not self._fits(start, stop, target):
            return False
        self.map_huge(target, self.huge.pop(start >> self.pmd_shift))
        return True

    def _fits(self, start: int, stop: int, target: int) -> bool:
        """Whether [start, stop) is what a PMD covers, and one at `target` is none."""
        whole = start % self.pmd_size == 0 and stop - start == self.pmd_size
        free = self.table(target) is None and self.leaf(target) is None
        return whole and target % self.pmd_size == 0 and free

    def copy_tables(self, source: PageTables, start: int, end: int) -> Iterator[tuple[int, int]]:
        """Makes, empty, every table that `source` has for a part of [start, end). For fork.

        Goes down into each table before it goes on, and yields the part of the range that lies in
        a PTE table as soon as that is there, or in a huge page when its turn has come.
        """
        found = []
        for level, shift in enumerate(self.shifts):
            for number in _overlapping(source.levels[level], shift, start, end):
                found.append((number << shift, level, number))
        found += [(base, len(self.levels), 0) for base in source.leaves(start, end)]
        for base, level, number in sorted(found):
            if level < len(self.levels):
                self._allocate(self.levels[level], number)
            if level >= len(self.levels) - 1:
                yield max(start, base), min(end, base + self.pmd_size)

    def free_range(self, start: int, end: int, floor: int, ceiling: int) -> None:
        """Frees the tables under [start, end) that no neighbour can be using.

        `floor` is the end of the mapping below, `ceiling` the start of the one above, 0 for none. A
        table goes if it begins at `floor` or above, and the part of the range that lies in it ends
        at or below `ceiling` rounded down to the size of the table.

        **Source:** free_pgd_range(), mm/memory.c@5.1, and what it calls; one rule for all levels.
        """
        for shift, tables in zip(self.shifts, self.levels, strict=True):
            limit = ceiling >> shift << shift
            for number in _overlapping(tables, shift, start, end):
                bottom, top = number << shift, min(end, (number + 1) << shift)
                if bottom >= floor and (ceiling == 0 or top <= limit):
                    self._free(tables, number)

    def free_all(self) -> None:
        """Frees every table, the top one too. For exit."""
        for tables in self.levels:
            for number in list(tables):
                self._free(tables, number)
        self.frames.free()

    def _free(self, tables: Tables, number: int) -> None:
        assert not tables[number], "a page table is freed with pages in it"
        del tables[number]
        self.frames.free()


def _overlapping(tables: Tables, shift: int, start: int, end: int) -> list[int]:
    """The numbers of those tables that cover a part of [start, end), ascending."""
    first, last = start >> shift, (end - 1) >> shift
    if last - first < len(tables):
        return [number for number in range(first, last + 1) if number in tables]
    return sorted(number for number in tables if first <= number <= last)
