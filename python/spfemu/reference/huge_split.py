"""Cutting a transparent huge page into small ones."""

from __future__ import annotations

from spfemu.reference.mm import Mm
from spfemu.reference.model import VM_WRITE, ZERO_PAGE, Pte, Vma
from spfemu.reference.page_prot import vm_page_prot


def split_at(mm: Mm, vma: Vma, address: int) -> None:
    """vma_adjust_trans_huge(): a VMA is about to end or begin at an address within it."""
    if address % mm.page_tables.pmd_size and fits(mm, vma, address):
        split_huge_pmd(mm, vma, address)


def split_huge_pmd(mm: Mm, vma: Vma, address: int) -> None:
    """Puts small pages in the place of a huge page, mapping the same memory.

    **Source:** __split_huge_pmd(), mm/huge_memory.c@5.1. Their protection is the VMA's, but none
    may be written to that the huge page could not be written to.
    """
    leaf = mm.page_tables.leaf(address)
    if leaf is None:
        return
    writable = leaf.protection.write and bool(vma.flags & VM_WRITE)
    protection = vm_page_prot(mm, vma)._replace(write=writable)
    nr = nr_base_pages(mm)
    if leaf.page is None:
        withdraw(mm, address, [Pte(ZERO_PAGE, protection)] * nr)
        return
    ptes = []
    for index in range(nr):
        page = leaf.page.page(index)
        page.mapcount += 1
        ptes.append(Pte(page, protection, leaf.dirty, leaf.young))
    leaf.page.mappings += nr - 1
    leaf.page.mapcount -= 1
    withdraw(mm, address, ptes)


def withdraw(mm: Mm, address: int, ptes: list[Pte]) -> None:
    """Puts PTEs in the place of a leaf, in the table that was set aside for it.

    **Source:** pgtable_trans_huge_withdraw() and what comes after it, mm/huge_memory.c@5.1.
    """
    tables = mm.page_tables
    number = address >> tables.pmd_shift
    del tables.huge[number]
    first = number << (tables.pmd_shift - tables.page_shift)
    tables.tables[number] = {first + index: pte for index, pte in enumerate(ptes)}


def fits(mm: Mm, vma: Vma, address: int) -> bool:
    """transhuge_vma_suitable(): whether the huge page around an address lies in the VMA."""
    start = address & ~(mm.page_tables.pmd_size - 1)
    return vma.start <= start and start + mm.page_tables.pmd_size <= vma.end


def nr_base_pages(mm: Mm) -> int:
    """HPAGE_PMD_NR."""
    return mm.page_tables.pmd_size >> mm.arch.page_shift
