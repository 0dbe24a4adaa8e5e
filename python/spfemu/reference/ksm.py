"""KSM: anonymous pages with the same content become one page, until somebody writes to it."""

from __future__ import annotations

import errno

from spfemu.reference.kernel import PGFAULT, Kernel
from spfemu.reference.mm import Mm
from spfemu.reference.model import (
    VM_HUGETLB,
    VM_MERGEABLE,
    VM_SHARED,
    OutOfFramesError,
    Page,
    Pte,
    SyscallError,
    Vma,
)
from spfemu.reference.page_prot import vm_page_prot
from spfemu.reference.pte_faults import do_numa_page, wp_page_copy
from spfemu.reference.vm_fault import WRITE, Fault


def mergeable_flags(flags: int) -> int:
    """What MADV_MERGEABLE makes of the flags: nothing where nothing can be merged."""
    return flags if flags & (VM_SHARED | VM_HUGETLB) else flags | VM_MERGEABLE


def ksm_scan(kernel: Kernel, mm: Mm, start: int, length: int) -> None:
    """Merges the pages of a range that may be, with each other and with what was merged before.

    Parts of huge pages and what is in the swap cache stay. A page that two addresses of the range
    have in common with other processes is replaced here alone.

    **Source:** cmp_and_merge_page(), mm/ksm.c@5.1, for pages chosen by address; it does not ask
    whether they have changed since the last scan.
    """
    if mm.is_unaligned(start):
        raise SyscallError(errno.EINVAL)
    unshared: dict[int, int] = {}  # the unstable tree: where a page with this content was
    end = min(start + length, mm.arch.task_size)
    for vma in mm.overlapping(start, end) if start < end else ():
        if not vma.flags & VM_MERGEABLE:
            continue
        part = max(start, vma.start), min(end, vma.end)
        for address, pte in list(mm.page_tables.present(*part)):
            page = pte.page
            if not page.is_small_anonymous or page.merged or page.slot is not None:
                continue
            merged = _stable_page(kernel, page.value)
            if merged is None:
                other = unshared.get(page.value)
                unshared[page.value] = address
                if other is None:
                    continue
                _make_merged(kernel, mm, address, pte)
                address, merged = other, page
            _replace(kernel, mm, address, merged)


def _stable_page(kernel: Kernel, value: int) -> Page | None:
    """The merged page of this content, if it has not gone, nor become somebody's own."""
    page = kernel.merged.get(value)
    return page if page is not None and page.merged and page.mapcount else None


def _make_merged(kernel: Kernel, mm: Mm, address: int, pte: Pte) -> None:
    """write_protect_page(), and the page is one of KSM's. Reclaim must not take it for clean."""
    protection = pte.protection._replace(write=False)
    mm.page_tables.store(address, pte._replace(protection=protection, dirty=False))
    pte.page.merged = pte.page.dirty = True
    kernel.merged[pte.page.value] = pte.page


def _replace(kernel: Kernel, mm: Mm, address: int, merged: Page) -> None:
    """replace_page(): maps the merged page where another one was."""
    old, vma = mm.page_tables.pte(address), mm.find_vma(address)
    assert isinstance(old, Pte)
    assert vma is not None
    merged.mapcount += 1
    mm.page_tables.store(address, Pte(merged, vm_page_prot(mm, vma)))
    kernel.swap.unmap(old)


def unmerge(kernel: Kernel, mm: Mm, vma: Vma, start: int, end: int) -> None:
    """Gives each address of [start, end) of a VMA a page of its own again; ENOMEM without memory.

    By faults that are counted. Somebody holds the merged page meanwhile, so it is always copied.

    **Source:** unmerge_ksm_pages() and break_ksm(), mm/ksm.c@5.1.
    """
    if not vma.flags & VM_MERGEABLE or vma.anon_vma is None:
        return
    for address, pte in list(mm.page_tables.present(start, end)):
        if not pte.page.merged:
            continue
        fault = Fault(kernel, mm, address, WRITE, user=False, present=True)
        fault.cache_vma(vma)
        if pte.hinted:
            kernel.count(PGFAULT)
            do_numa_page(fault, pte)
        kernel.count(PGFAULT)
        try:
            wp_page_copy(fault, pte)
        except OutOfFramesError:
            raise SyscallError(errno.ENOMEM) from None
