"""madvise where it is about pages, and not about the VMA: free, willneed, cold, pageout."""

from __future__ import annotations

import errno

from spfemu.reference.huge_split import split_huge_pmd
from spfemu.reference.kernel import Kernel
from spfemu.reference.mm import Mm
from spfemu.reference.model import (
    VM_HUGETLB,
    VM_LOCKED,
    File,
    OutOfFramesError,
    SwapEntry,
    SyscallError,
    Vma,
)
from spfemu.reference.munmap import zap_page_range
from spfemu.reference.reclaim import shrink_page

ABOUT_PAGES = frozenset({"dontneed", "free", "willneed", "cold", "pageout"})


def advise_pages(kernel: Kernel, mm: Mm, vma: Vma, start: int, end: int, advice: str) -> None:
    """Does what the advice is about with the pages of [start, end), which is in one VMA.

    **Source:** madvise_vma(), mm/madvise.c@5.1; cold and pageout are of 5.4.
    """
    if advice != "willneed" and vma.flags & (VM_LOCKED | VM_HUGETLB):
        raise SyscallError(errno.EINVAL)
    if advice == "dontneed":
        zap_page_range(kernel, mm, vma, start, end)
    elif advice == "free":
        madvise_free(kernel, mm, vma, start, end)
    elif advice == "willneed":
        madvise_willneed(kernel, mm, vma, start, end)
    else:
        madvise_cold_or_pageout(kernel, mm, vma, start, end, pageout=advice == "pageout")


def madvise_free(kernel: Kernel, mm: Mm, vma: Vma, start: int, end: int) -> None:
    """Gives pages up: they may be dropped, as long as nobody writes to them.

    They stay until reclaim comes (swap_out, or pageout), and who reads them finds what they held.
    What is in swap goes at once. A page that has to be kept for others is passed over.

    **Source:** madvise_free_single_vma(), mm/madvise.c@5.1. Huge pages, and their parts, stay.
    """
    if vma.vm_ops is not None:
        raise SyscallError(errno.EINVAL)
    _split_partly_covered(mm, vma, start, end)
    tables, swap = mm.page_tables, kernel.swap
    for address, pte in list(tables.entries(start, end)):
        if isinstance(pte, SwapEntry):
            tables.clear(address)
            swap.free_and_reclaim(pte.slot)
            continue
        page = pte.page
        if not page.is_small_anonymous:
            continue
        if page.slot is not None or page.dirty:
            if page.mapcount != 1:
                continue
            swap.try_to_free(page)
            if page.slot is not None:
                continue
            page.dirty = False
        tables.store(address, pte._replace(dirty=False, young=False))
        page.lazyfree = True


def madvise_cold_or_pageout(
    kernel: Kernel, mm: Mm, vma: Vma, start: int, end: int, *, pageout: bool
) -> None:
    """Makes pages old; `pageout`: and reclaims them, unless another process has just used them.

    **Source:** madvise_cold_or_pageout_pte_range(), mm/madvise.c@5.4. Huge pages stay.
    """
    _split_partly_covered(mm, vma, start, end)
    tables = mm.page_tables
    for address, pte in list(tables.present(start, end)):
        if pte.page.is_small_anonymous:
            tables.store(address, pte._replace(young=False))
            if pageout:
                shrink_page(kernel, pte.page, keep_cache=False, only_unused=True)


def _split_partly_covered(mm: Mm, vma: Vma, start: int, end: int) -> None:
    """Cuts up the huge pages that lie only partly in [start, end), if nobody else has them."""
    tables = mm.page_tables
    for address in tables.leaves(start, end):
        leaf = tables.leaf(address)
        partly = address < start or address + tables.pmd_size > end
        alone = leaf is not None and leaf.page is not None and not leaf.page.is_shared
        if partly and alone:
            split_huge_pmd(mm, vma, address)


def madvise_willneed(kernel: Kernel, mm: Mm, vma: Vma, start: int, end: int) -> None:
    """Reads pages that will be accessed, as far as there is memory; maps none of them.

    **Source:** madvise_willneed(), mm/madvise.c@5.1.
    """
    if vma.file is not None:
        shift = mm.arch.page_shift
        first = vma.pgoff + ((start - vma.start) >> shift)
        beyond = first + ((end - start) >> shift)
        _read_file_pages(vma.file, range(first, min(beyond, vma.file.nr_pages(shift))))
        return
    for _, pte in list(mm.page_tables.entries(start, end)):
        if isinstance(pte, SwapEntry) and pte.slot not in kernel.swap.cache:
            kernel.swap.read_one(pte.slot)


def _read_file_pages(file: File, indexes: range) -> None:
    """force_page_cache_readahead()@5.1: what of the pages is not in the page cache."""
    for index in indexes:
        if not file.is_cached(index) and file.must_read(index):
            try:
                file.page(index)
            except OutOfFramesError:
                return
