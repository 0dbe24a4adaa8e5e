"""What reclaim does with pages: unmap them everywhere, write them to swap, free them."""

from __future__ import annotations

import errno

from spfemu.reference.kernel import Kernel
from spfemu.reference.mm import Mm
from spfemu.reference.model import Page, SwapEntry, SyscallError


def swap_out(kernel: Kernel, mm: Mm, start: int, length: int, *, keep_cache: bool) -> None:
    """Swaps out the anonymous pages of a range; what cannot be swapped stays, and is no error.

    Pages of the range that are in the swap cache alone are freed as well. `keep_cache`: all stay
    in memory, in the swap cache.

    **Source:** ours: shrink_page_list(), mm/vmscan.c@5.1, for pages chosen by address.
    """
    if mm.is_unaligned(start):
        raise SyscallError(errno.EINVAL)
    end = min(start + length, mm.arch.task_size)
    if end <= start:
        return
    for _, pte in list(mm.page_tables.entries(start, end)):
        if isinstance(pte, SwapEntry):
            cached = kernel.swap.cache.get(pte.slot)
            if cached is not None:
                shrink_page(kernel, cached, keep_cache=keep_cache)
        elif pte.page.anonymous and pte.page.huge is None:
            shrink_page(kernel, pte.page, keep_cache=keep_cache)


def shrink_page(kernel: Kernel, page: Page, *, keep_cache: bool) -> None:
    """Swaps one page out if there is room. **Source:** shrink_page_list(), mm/vmscan.c@5.1."""
    swap = kernel.swap
    if page.slot is None:
        slot = swap.allocate()
        if slot is None:
            return
        swap.add_to_cache(page, slot)
        page.dirty = True
    slot = page.slot
    assert slot is not None, "it has one by now"
    try_to_unmap(kernel, page, slot)
    if page.dirty:
        swap.content[slot] = page.value
        page.dirty = False
    if not keep_cache:
        swap.delete_from_cache(page)


def try_to_unmap(kernel: Kernel, page: Page, slot: int) -> None:
    """Replaces every PTE that maps the page, in all address spaces, by a swap entry.

    **Source:** try_to_unmap(), mm/rmap.c@5.1.
    """
    for mm in kernel.mms:
        for address, pte in list(mm.page_tables.present(0, mm.arch.task_size)):
            if pte.page is page:
                page.dirty |= pte.dirty
                page.mapcount -= 1
                mm.page_tables.store(address, SwapEntry(slot))
                kernel.swap.counts[slot] += 1
