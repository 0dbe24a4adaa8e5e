"""What reclaim does with pages: unmap them everywhere, write them to swap, free them."""

from __future__ import annotations

import errno

from spfemu.reference.kernel import Kernel
from spfemu.reference.mm import Mm
from spfemu.reference.model import VM_LOCKED, VM_SEQ_READ, Page, Pte, SwapEntry, SyscallError
from spfemu.reference.pages import free_page


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
            if cached is not None and not cached.mapcount:
                shrink_page(kernel, cached, keep_cache=keep_cache)
        elif pte.page.is_small_anonymous:
            shrink_page(kernel, pte.page, keep_cache=keep_cache)


def shrink_page(kernel: Kernel, page: Page, *, keep_cache: bool, only_unused: bool = False) -> None:
    """Swaps one page out if there is room; drops it if it was given up (MADV_FREE).

    `only_unused`: not if it was used since it was made old; it is old again then.

    **Source:** shrink_page_list(), mm/vmscan.c@5.1.
    """
    if page.merged:
        return
    swap = kernel.swap
    if is_locked(kernel, page):
        swap.try_to_free(page)
        return
    if only_unused and page_referenced(kernel, page):
        if swap.is_half_full:  # activate_locked
            swap.try_to_free(page)
        return
    if page.lazyfree:
        discard(kernel, page)
        return
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


def page_referenced(kernel: Kernel, page: Page) -> bool:
    """Whether a PTE of the page was used since it was made old; all are old again.

    Use through a mapping that is read in sequence does not count.

    **Source:** page_referenced(), mm/rmap.c@5.1.
    """
    used = False
    for mm, address, pte in mappings(kernel, page):
        vma = mm.find_vma(address)
        assert vma is not None, "a page is mapped in a VMA"
        used |= pte.young and not vma.flags & VM_SEQ_READ
        mm.page_tables.store(address, pte._replace(young=False))
    return used


def discard(kernel: Kernel, page: Page) -> None:
    """Drops a page that MADV_FREE gave up; if it was written to since, it counts again.

    The first PTE that is dirty ends it; those before it are gone.

    **Source:** try_to_unmap_one(), mm/rmap.c@5.1.
    """
    for mm, address, pte in mappings(kernel, page):
        page.dirty |= pte.dirty
        if page.dirty:
            page.lazyfree = False
            return
        mm.page_tables.clear(address)
        page.mapcount -= 1
    free_page(kernel.frames, page)


def mappings(kernel: Kernel, page: Page) -> list[tuple[Mm, int, Pte]]:
    """What maps a page, in all address spaces, the oldest first."""
    return [
        (mm, address, pte)
        for mm in kernel.mms
        for address, pte in mm.page_tables.present(0, mm.arch.task_size)
        if pte.page is page
    ]


def is_locked(kernel: Kernel, page: Page) -> bool:
    """Whether a VMA that is locked in memory maps the page."""
    return any(
        pte.page is page
        for mm in kernel.mms
        for vma in mm.vmas
        if vma.flags & VM_LOCKED
        for _, pte in mm.page_tables.present(vma.start, vma.end)
    )


def try_to_unmap(kernel: Kernel, page: Page, slot: int) -> None:
    """Replaces every PTE that maps the page, in all address spaces, by a swap entry.

    **Source:** try_to_unmap(), mm/rmap.c@5.1.
    """
    for mm, address, pte in mappings(kernel, page):
        page.dirty |= pte.dirty
        page.mapcount -= 1
        mm.page_tables.store(address, SwapEntry(slot))
        kernel.swap.counts[slot] += 1
