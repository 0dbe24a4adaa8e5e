"""khugepaged: the small pages of one PMD's range become a huge page."""

from __future__ import annotations

import errno
from collections.abc import Iterable, Iterator

from spfemu.reference.huge_pages import charge_huge_page, is_wanted, new_huge_page
from spfemu.reference.huge_split import fits
from spfemu.reference.kernel import Kernel
from spfemu.reference.mm import Mm
from spfemu.reference.model import (
    VM_UFFD_MISSING,
    VM_WRITE,
    ZERO_PAGE,
    Leaf,
    Pte,
    SwapEntry,
    SyscallError,
)
from spfemu.reference.page_prot import vm_page_prot
from spfemu.reference.page_tables import Entry, PageTables
from spfemu.reference.pages import free_huge_page


def collapse(kernel: Kernel, mm: Mm, address: int) -> None:
    """Collapses the range of the PMD that an address is in; nothing if it is huge already.

    EINVAL: the range cannot be, is not to be, or is not worth being a huge page. EAGAIN: others
    have one of the pages. ENOMEM: there is no memory for the huge page. Those are the answers of
    MADV_COLLAPSE in later kernels; nobody asks khugepaged itself.

    **Source:** khugepaged_scan_pmd() and collapse_huge_page(), mm/khugepaged.c@5.1; but it does
    not ask for half of the pages to be young, which 5.8 gave up.
    """
    address &= ~(mm.page_tables.pmd_size - 1)
    vma = mm.find_vma(address)
    if vma is None or not fits(mm, vma, address) or not is_wanted(kernel, vma.flags):
        raise SyscallError(errno.EINVAL)
    if vma.anon_vma is None or vma.vm_ops is not None:
        raise SyscallError(errno.EINVAL)
    tables = mm.page_tables
    if tables.leaf(address) is not None:
        return
    entries = tables.entries(address, address + tables.pmd_size)
    if vma.flags & VM_UFFD_MISSING:
        entries = _none_missing(tables, address, entries)
    ptes = _pages(entries)
    page = new_huge_page(kernel.frames, mm)
    if page is None or not charge_huge_page(kernel.frames, page):
        raise SyscallError(errno.ENOMEM)
    for _, pte in ptes:
        if pte.page.slot is None:
            continue
        if not kernel.swap.is_used_once(pte.page):
            free_huge_page(kernel.frames, page)
            raise SyscallError(errno.EINVAL)
        kernel.swap.try_to_free(pte.page)
    for at, pte in ptes:
        page.page((at - address) >> tables.page_shift).value = pte.page.value
        kernel.swap.unmap(pte)
    del tables.tables[address >> tables.pmd_shift]  # the table is the one set aside
    leaf = Leaf(page, vm_page_prot(mm, vma), dirty=True)
    tables.map_huge(address, leaf.made_writable() if vma.flags & VM_WRITE else leaf)


def _none_missing(
    tables: PageTables, address: int, entries: Iterable[tuple[int, Entry]]
) -> Iterator[tuple[int, Entry]]:
    """The entries, up to a page that is missing: that one is for user space to bring."""
    expected = address
    for at, entry in entries:
        if at != expected or (isinstance(entry, Pte) and entry.page is ZERO_PAGE):
            raise SyscallError(errno.EINVAL)
        yield at, entry
        expected += 1 << tables.page_shift
    if expected != address + tables.pmd_size:
        raise SyscallError(errno.EINVAL)


def _pages(entries: Iterable[tuple[int, Entry]]) -> list[tuple[int, Pte]]:
    """The pages, which may be collapsed: else the first that may not says why.

    At least one must be written to, by its PTE; that it is young goes with that. What was a huge
    page and has been split stays so, in 5.1. Nothing may be in swap.
    """
    ptes: list[tuple[int, Pte]] = []
    for at, pte in entries:
        if isinstance(pte, SwapEntry):
            raise SyscallError(errno.EINVAL)
        if pte.page.huge is not None:
            raise SyscallError(errno.EINVAL)
        if pte.page is not ZERO_PAGE and pte.page.mapcount > 1:
            raise SyscallError(errno.EAGAIN)
        ptes.append((at, pte))
    writable = any(pte.protection.write for _, pte in ptes)
    young = any(pte.young for _, pte in ptes if pte.page is not ZERO_PAGE)
    if not (writable and young):
        raise SyscallError(errno.EINVAL)
    return ptes
