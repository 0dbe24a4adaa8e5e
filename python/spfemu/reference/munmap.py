"""munmap: unlinking VMAs, zapping pages, freeing page tables."""

from __future__ import annotations

import errno

from spfemu.reference.huge_pages import zap_huge_pmds
from spfemu.reference.hugetlb import close_vma, is_hugetlb, unmap_hugepage_range
from spfemu.reference.kernel import Kernel
from spfemu.reference.mm import Mm
from spfemu.reference.model import SwapEntry, SyscallError, Vma
from spfemu.reference.vma_ops import split_vma


def munmap(kernel: Kernel, mm: Mm, start: int, length: int) -> None:
    """Unmaps a range; a hole is no error. **Source:** __do_munmap(), mm/mmap.c@5.1."""
    task_size = mm.arch.task_size
    if mm.is_unaligned(start) or start > task_size or length > task_size - start:
        raise SyscallError(errno.EINVAL)
    length = mm.page_align(length)
    if length == 0:
        raise SyscallError(errno.EINVAL)
    end = start + length
    vma, prev = mm.find_vma_prev(start)
    if vma is None or vma.start >= end:
        return
    if start > vma.start:
        # The count may go one above the limit here, as long as it does not stay there.
        if end < vma.end and mm.map_count >= kernel.sysctl["vm.max_map_count"]:
            raise SyscallError(errno.ENOMEM)
        split_vma(mm, vma, start, new_below=False)
        prev = vma
    last = mm.find_vma(end)
    if last is not None and end > last.start:
        split_vma(mm, last, end, new_below=True)
    detached = mm.overlapping(start, end)
    for vma in detached:
        mm.unlink(vma)
    _unmap_region(kernel, mm, detached, prev)
    for vma in detached:
        close_vma(kernel, mm, vma)


def _unmap_region(kernel: Kernel, mm: Mm, detached: list[Vma], prev: Vma | None) -> None:
    """Zaps the pages of unlinked VMAs and frees the page tables that nobody else needs."""
    for vma in detached:
        zap_page_range(kernel, mm, vma, vma.start, vma.end)
    above = mm.after(prev)
    floor = prev.end if prev is not None else 0
    _free_pgtables(mm, detached, floor, above.start if above is not None else 0)


def zap_page_range(kernel: Kernel, mm: Mm, vma: Vma, start: int, end: int) -> None:
    """Empties the PTEs of a range of a VMA; the tables stay. **Source:** unmap_page_range()@5.1."""
    if is_hugetlb(vma):
        unmap_hugepage_range(kernel, mm, vma, start, end)
        return
    zap_huge_pmds(kernel, mm, vma, start, end)
    for address, pte in list(mm.page_tables.entries(start, end)):
        mm.page_tables.clear(address)
        if isinstance(pte, SwapEntry):
            kernel.swap.free_and_reclaim(pte.slot)
        else:
            kernel.swap.unmap(pte)


def zap_present(kernel: Kernel, mm: Mm, start: int, end: int) -> None:
    """Empties the PTEs of a range of a file's mapping that are present. For truncation.

    **Source:** unmap_mapping_pages(), mm/memory.c@5.1: with `zap_details` it spares swap entries.
    """
    for address, pte in list(mm.page_tables.present(start, end)):
        mm.page_tables.clear(address)
        kernel.swap.unmap(pte)


def _free_pgtables(mm: Mm, vmas: list[Vma], floor: int, ceiling: int) -> None:
    """Frees page tables under unlinked VMAs, those with at most a PMD between them as one range.

    **Source:** free_pgtables(), mm/memory.c@5.1.
    """
    position = 0
    while position < len(vmas):
        start, last = vmas[position].start, vmas[position]
        position += 1
        while position < len(vmas) and _goes_with(mm, vmas[position], last):
            last = vmas[position]
            position += 1
        limit = vmas[position].start if position < len(vmas) else ceiling
        mm.page_tables.free_range(start, last.end, floor, limit)


def _goes_with(mm: Mm, vma: Vma, last: Vma) -> bool:
    near = vma.start <= last.end + mm.page_tables.pmd_size
    return near and not is_hugetlb(vma) and not is_hugetlb(last)
