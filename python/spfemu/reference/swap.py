"""The swap device, the swap cache, and what swap readahead remembers.

A slot of the device is in use while PTEs name it or its page is in the swap cache. Nothing takes
any time here, so a page is never seen while it is read or written.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import chain
from typing import TYPE_CHECKING

from spfemu.reference.model import Frames, OutOfFramesError, Page, Pte, Vma
from spfemu.reference.pages import free_page, put_huge_page

if TYPE_CHECKING:
    from spfemu.program.model import Swap as Settings

SWAP_RA_ORDER_CEILING = 5
FIRST_HITS = 4
"""Hits that readahead begins with. Source: mm/swap_state.c@5.1."""


@dataclass(eq=False)
class Swap:
    """The device of one kernel. Slot 0 is the header; free slots are in no dictionary."""

    frames: Frames
    settings: Settings
    page_shift: int
    counts: dict[int, int] = field(default_factory=dict)
    """For each slot in use, how many PTEs name it; 0: its page is in the swap cache all the same.
    (swap_map)"""
    cache: dict[int, Page] = field(default_factory=dict)
    content: dict[int, int] = field(default_factory=dict)
    cluster_next: int = 1
    hits: int = FIRST_HITS
    last_pages: int = 0
    prev_slot: int = 0

    @property
    def nr_slots(self) -> int:
        """The slots that can be used: all but the header."""
        return max(0, (self.settings.size >> self.page_shift) - 1)

    @property
    def is_synchronous(self) -> bool:
        """SWP_SYNCHRONOUS_IO."""
        return self.settings.kind == "synchronous"

    @property
    def is_half_full(self) -> bool:
        """vm_swap_full(): then pages that are read do not keep their slots."""
        return (self.nr_slots - len(self.counts)) * 2 < self.nr_slots

    # --- slots -------------------------------------------------------------------------------

    def allocate(self) -> int | None:
        """get_swap_page(): the next free slot after the last one given; None if swap is full.

        When more than half is used, also one that nobody but the swap cache holds. There has to be
        a free one all the same.
        """
        if len(self.counts) >= self.nr_slots:
            return None
        first = self.cluster_next
        # The slot that is being given counts as used.
        reclaim = (self.nr_slots - 1 - len(self.counts)) * 2 < self.nr_slots
        for slot in chain(range(first, self.nr_slots + 1), range(1, first)):
            if reclaim and self.counts.get(slot) == 0:
                self.delete_from_cache(self.cache[slot])
            if slot not in self.counts:
                self.counts[slot] = 0
                self.cluster_next = slot + 1
                return slot
        return None

    def free(self, slot: int) -> None:
        """swap_free(): one PTE less names the slot."""
        self.counts[slot] -= 1
        if not self.counts[slot] and slot not in self.cache:
            del self.counts[slot]

    def free_and_reclaim(self, slot: int) -> None:
        """free_swap_and_cache(): as `free`, and an idle page in the cache goes with the last."""
        self.free(slot)
        page = self.cache.get(slot)
        if page is not None and (page.mapcount == 0 or self.is_half_full):
            self.try_to_free(page)

    # --- the swap cache ----------------------------------------------------------------------

    def add_to_cache(self, page: Page, slot: int) -> None:
        """Puts a page into the swap cache."""
        self.cache[slot] = page
        page.slot = slot

    def delete_from_cache(self, page: Page) -> None:
        """Takes a page out of the swap cache; it is freed unless it is mapped."""
        slot = page.slot
        assert slot is not None, "the page is in the swap cache"
        page.slot = None
        del self.cache[slot]
        if not self.counts[slot]:
            del self.counts[slot]
        if page.mapcount == 0:
            free_page(self.frames, page)

    def try_to_free(self, page: Page) -> None:
        """try_to_free_swap(): takes a page out of the swap cache if no PTE names its slot."""
        if page.slot is not None and not self.counts[page.slot]:
            self.delete_from_cache(page)
            page.dirty = True

    def lookup(self, slot: int, vma: Vma, address: int) -> Page | None:
        """lookup_swap_cache(): the slot's page; notes whether reading it ahead was of use."""
        page = self.cache.get(slot)
        if page is None:
            return None
        if self.settings.vma_ra_enabled:
            last = self._info(vma)
            hits = min(last.hits + page.readahead, self._mask)
            self._remember(vma, address, last.win, hits)
        else:
            self.hits += page.readahead
        page.readahead = False
        return page

    def unmap(self, pte: Pte) -> None:
        """Takes one mapping off the page of a PTE; an anonymous page goes with its last one.

        Unless it is in the swap cache and a PTE still names its slot. A part of a huge page goes
        with the last mapping of any of its parts.
        """
        page = pte.page
        if not page.anonymous:
            return
        page.mapcount -= 1
        if page.huge is not None:
            put_huge_page(self.frames, page.huge)
        elif page.mapcount == 0 and page.slot is None:
            free_page(self.frames, page)
        elif page.mapcount == 0:
            self.try_to_free(page)

    def is_used_once(self, page: Page) -> bool:
        """reuse_swap_page(): whether one PTE alone has the page, in memory or in swap.

        A part of a huge page is shared if any of its parts is.
        """
        if page.huge is not None:
            return not page.huge.is_shared
        swapped = 0 if page.slot is None else self.counts[page.slot]
        return page.mapcount + swapped == 1

    # --- readahead ---------------------------------------------------------------------------

    def read(
        self, slot: int, vma: Vma, address: int, near: dict[int, int], bounds: range, cluster: int
    ) -> tuple[Page | None, bool]:
        """swapin_readahead(): reads the slot's page and what comes with it.

        `near` has the slots that PTEs name, by page number; `bounds` are the page numbers of the
        VMA's part of the page table; `cluster` is vm.page-cluster. Says also whether the device was
        left to itself, so that the page cannot have come yet.

        Source: mm/swap_state.c@5.1.
        """
        if self.settings.vma_ra_enabled:
            win, others = self._around_address(vma, address, near, bounds, cluster)
        else:
            win, others = self._around_slot(slot, cluster)
        for other in others:
            if self.counts.get(other) and other not in self.cache:
                page = self.read_one(other)
                if page is not None:
                    page.readahead = other != slot
        page = self.cache.get(slot) or self.read_one(slot)
        return page, win > 1 and not self.is_synchronous

    def read_one(self, slot: int) -> Page | None:
        """A page with the slot's content, in the swap cache; None if memory ends."""
        try:
            self.frames.allocate()
        except OutOfFramesError:
            return None
        page = Page(anonymous=True, value=self.content[slot])
        self.add_to_cache(page, slot)
        return page

    def _around_address(
        self, vma: Vma, address: int, near: dict[int, int], bounds: range, cluster: int
    ) -> tuple[int, Iterator[int]]:
        """swap_vma_readahead(): forwards, backwards, or on both sides of the address."""
        most = self._largest(min(cluster, SWAP_RA_ORDER_CEILING))
        if most == 1:
            return 1, iter(())
        last = self._info(vma)
        this, prev = address >> self.page_shift, last.address >> self.page_shift
        win = _window(prev, this, last.hits, most, last.win)
        self._remember(vma, address, win, 0)
        if win == 1:
            return 1, iter(())
        if this == prev + 1:
            low = this
        elif prev == this + 1:
            low = this + 1 - win
        else:
            low = this - (win - 1) // 2
        pages = range(max(low, bounds.start), min(low + win, bounds.stop))
        return win, (near[number] for number in pages if number in near)

    def _around_slot(self, slot: int, cluster: int) -> tuple[int, Iterator[int]]:
        """swap_cluster_readahead(): the aligned window of slots."""
        most = self._largest(min(cluster, 31))
        if most == 1:
            return 1, iter(())
        win = _window(self.prev_slot, slot, self.hits, most, self.last_pages)
        if not self.hits:
            self.prev_slot = slot
        self.hits, self.last_pages = 0, win
        if win == 1:
            return 1, iter(())
        first = slot & ~(win - 1)
        last = min(first + win - 1, self.nr_slots)
        return win, (other for other in sorted(self.counts) if first <= other <= last)

    def _largest(self, order: int) -> int:
        """The largest window: what vm.page-cluster says, and no more than the device's setting."""
        most = self.settings.readahead
        return 1 << (order if most is None else min(order, most.bit_length() - 1))

    @property
    def _mask(self) -> int:
        return (1 << self.page_shift // 2) - 1

    def _info(self, vma: Vma) -> ReadaheadInfo:
        """GET_SWAP_RA_VAL(): one word, of which 0 stands for the beginning."""
        word = vma.swap_readahead_info or FIRST_HITS
        half = self.page_shift // 2
        return ReadaheadInfo(
            word >> self.page_shift << self.page_shift,
            word >> half & self._mask,
            word & self._mask,
        )

    def _remember(self, vma: Vma, address: int, win: int, hits: int) -> None:
        page = address >> self.page_shift << self.page_shift
        vma.swap_readahead_info = page | win << self.page_shift // 2 | hits


@dataclass(frozen=True)
class ReadaheadInfo:
    """Where a VMA's last swap-in was, how many pages it read, and how many of them were used."""

    address: int
    win: int
    hits: int


def _window(prev: int, this: int, hits: int, most: int, last: int) -> int:
    """__swapin_nr_pages(): more if much of the last readahead was used, else few or none."""
    if hits:
        pages = 4
        while pages < hits + 2:
            pages *= 2
    else:
        pages = 2 if abs(this - prev) == 1 else 1
    return max(min(pages, most), last // 2)
