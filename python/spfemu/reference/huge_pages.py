"""Transparent huge pages: their faults, and what becomes of them when they are cut.

A huge page is mapped by a PMD, its *leaf*. What cuts it puts small pages in its place that map the
same memory, from a page table that was set aside when it was mapped.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from spfemu.reference.huge_split import fits, nr_base_pages, split_huge_pmd, withdraw
from spfemu.reference.kernel import Kernel
from spfemu.reference.mm import Mm
from spfemu.reference.model import (
    VM_GROWSDOWN,
    VM_HUGEPAGE,
    VM_NOHUGEPAGE,
    VM_STACK_INCOMPLETE_SETUP,
    Frames,
    HugePage,
    Leaf,
    OutOfFramesError,
    Pte,
    Vma,
)
from spfemu.reference.page_prot import vm_page_prot
from spfemu.reference.pages import free_huge_page, free_page, new_anonymous_page, put_huge_page
from spfemu.reference.userfaultfd import handle_userfault, is_missing
from spfemu.reference.vm_fault import VM_FAULT_SIGBUS, VM_FAULT_WRITE, Fault
from spfemu.reference.vma_ops import anon_vma_prepare

if TYPE_CHECKING:
    from spfemu.profiles import Arch

_HASH_THP_SHIFT = 24


def has_transparent_hugepage(arch: Arch) -> bool:
    """Whether an arch has huge pages of the size that a PMD maps.

    **Source:** has_transparent_hugepage() of each arch, @5.1. The hash MMU wants 16 MiB.
    """
    return arch.family != "powerpc" or arch.levels[-2].shift == _HASH_THP_SHIFT


def huge_pmd_fault(fault: Fault) -> int | None:
    """Handles a fault whose PMD is none or maps a huge page; None leaves it to the PTEs.

    **Source:** __handle_mm_fault(), mm/memory.c@5.1.
    """
    tables = fault.mm.page_tables
    leaf = tables.leaf(fault.address)
    if leaf is None:
        wanted = is_wanted(fault.kernel, fault.flags) and fault.vma.vm_ops is None
        if tables.table(fault.address) is not None or not wanted:
            return None
        return do_huge_pmd_anonymous_page(fault)
    if fault.write and not leaf.protection.write:
        return do_huge_pmd_wp_page(fault, leaf)
    tables.mark_used(fault.address, dirty=fault.write)  # huge_pmd_set_accessed()
    return 0


def is_wanted(kernel: Kernel, flags: int) -> bool:
    """__transparent_hugepageis_wanted()."""
    if flags & VM_NOHUGEPAGE or kernel.thp == "never" or is_vma_temporary_stack(flags):
        return False
    return kernel.thp == "always" or bool(flags & VM_HUGEPAGE)


def is_vma_temporary_stack(flags: int) -> bool:
    """Whether exec is not done with it. **Source:** is_vma_temporary_stack(), mm/rmap.c@5.1."""
    setup = flags & VM_STACK_INCOMPLETE_SETUP
    return bool(flags & VM_GROWSDOWN) and setup == VM_STACK_INCOMPLETE_SETUP


def do_huge_pmd_anonymous_page(fault: Fault) -> int | None:
    """Maps a huge page if it fits into the VMA: of zeroes for a read, of its own for a write.

    The anon_vma comes first, for a read too. Without memory for the huge page there are small
    ones; without memory for the table that is set aside the fault fails.

    **Source:** mm/huge_memory.c@5.1.
    """
    mm, kernel = fault.mm, fault.kernel
    if not fits(mm, fault.vma, fault.address):
        return None
    anon_vma_prepare(mm, fault.vma)
    if not fault.write:
        kernel.frames.allocate()
        if not _has_huge_zero_page(kernel, mm):
            kernel.frames.free()
            return None
        if mm.unstable:
            kernel.frames.free()
            return VM_FAULT_SIGBUS
        if is_missing(fault):
            kernel.frames.free()
            return handle_userfault(fault)
        mm.page_tables.map_huge(fault.address, Leaf(None, fault.page_prot))
        return 0
    page = new_huge_page(kernel.frames, mm)
    if page is None or not charge_huge_page(kernel.frames, page):
        return None
    try:
        kernel.frames.allocate()
    except OutOfFramesError:
        put_huge_page(kernel.frames, page)
        raise
    if mm.unstable:
        put_huge_page(kernel.frames, page)
        kernel.frames.free()
        return VM_FAULT_SIGBUS
    if is_missing(fault):
        put_huge_page(kernel.frames, page)
        kernel.frames.free()
        return handle_userfault(fault)
    mm.page_tables.map_huge(fault.address, Leaf(page, fault.page_prot).made_writable())
    return 0


def _has_huge_zero_page(kernel: Kernel, mm: Mm) -> bool:
    """get_huge_zero_page(): makes it when first asked for; False if there is no memory."""
    if not kernel.huge_zero_page:
        try:
            kernel.frames.allocate(nr_base_pages(mm))
        except OutOfFramesError:
            return False
        kernel.huge_zero_page = True
    return True


def new_huge_page(frames: Frames, mm: Mm) -> HugePage | None:
    """A huge page that is about to be mapped once, None if there is no memory."""
    nr = nr_base_pages(mm)
    try:
        frames.allocate(nr)
    except OutOfFramesError:
        return None
    return HugePage(nr, mapcount=1, mappings=1)


def charge_huge_page(frames: Frames, page: HugePage) -> bool:
    """Counts it for the memory cgroup; what may not be counted is freed."""
    try:
        frames.charge(page.nr)
    except OutOfFramesError:
        free_huge_page(frames, page)
        return False
    page.charged = True
    return True


def do_huge_pmd_wp_page(fault: Fault, leaf: Leaf) -> int | None:
    """Handles a write to a huge page that is mapped read-only.

    One that nobody else maps, nor any part of it, is made writable where it is. Else it is copied:
    to a huge page if huge pages are still wanted here and there is memory, to small ones if not;
    the page of zeroes, or any if there is not even memory for those, is cut into small pages, and
    the write goes on with the one that it is for.

    **Source:** mm/huge_memory.c@5.1.
    """
    mm, kernel = fault.mm, fault.kernel
    tables, frames = mm.page_tables, kernel.frames
    if leaf.page is not None and not leaf.page.is_shared:
        tables.map_huge(fault.address, leaf.made_writable())
        return VM_FAULT_WRITE
    copy = new_huge_page(frames, mm) if is_wanted(kernel, fault.flags) else None
    if copy is not None and not charge_huge_page(frames, copy):
        split_huge_pmd(mm, fault.vma, fault.address)
        return None
    if copy is not None:
        if leaf.page is not None:
            for index, page in leaf.page.pages.items():
                copy.page(index).value = page.value
            _unmap_huge(frames, leaf.page)
        tables.map_huge(fault.address, Leaf(copy, fault.page_prot).made_writable())
        return VM_FAULT_WRITE
    if leaf.page is not None and _copy_to_small_pages(fault, leaf.page):
        return VM_FAULT_WRITE
    split_huge_pmd(mm, fault.vma, fault.address)
    return None


def _copy_to_small_pages(fault: Fault, page: HugePage) -> bool:
    """do_huge_pmd_wp_page_fallback(); False, with nothing changed, if there is no memory."""
    frames = fault.kernel.frames
    ptes: list[Pte] = []
    try:
        for index in range(page.nr):
            copy = new_anonymous_page(frames, page.page(index).value)
            ptes.append(Pte(copy, fault.page_prot).made_writable())
    except OutOfFramesError:
        for pte in ptes:
            free_page(frames, pte.page)
        return False
    _unmap_huge(frames, page)
    withdraw(fault.mm, fault.address, ptes)
    return True


def _unmap_huge(frames: Frames, page: HugePage) -> None:
    """Takes a PMD's mapping off a huge page."""
    page.mapcount -= 1
    put_huge_page(frames, page)


def zap_huge_pmds(kernel: Kernel, mm: Mm, vma: Vma, start: int, end: int) -> None:
    """Takes out the huge pages that lie in [start, end); those that do not wholly are split.

    **Source:** zap_pmd_range(), mm/memory.c@5.1, and zap_huge_pmd().
    """
    tables = mm.page_tables
    for address in tables.leaves(start, end):
        if address < start or address + tables.pmd_size > end:
            split_huge_pmd(mm, vma, address)
            continue
        leaf = tables.huge.pop(address >> tables.pmd_shift)
        kernel.frames.free()  # the table that was set aside
        if leaf.page is not None:
            _unmap_huge(kernel.frames, leaf.page)


def change_huge_pmds(mm: Mm, vma: Vma, start: int, end: int) -> None:
    """Gives the huge pages in [start, end) the protection of the VMA. change_huge_pmd()@5.1."""
    tables = mm.page_tables
    protection = vm_page_prot(mm, vma)
    for address in tables.leaves(start, end):
        if address < start or address + tables.pmd_size > end:
            split_huge_pmd(mm, vma, address)
        else:
            leaf = tables.huge_at(address)
            tables.map_huge(address, leaf._replace(protection=protection))


def copy_huge_pmd(parent: Mm, child: Mm, vma: Vma, address: int) -> None:
    """Lets a forked child map a huge page of its parent, which both may only read then.

    **Source:** mm/huge_memory.c@5.1. The child's zero page has the VMA's protection.
    """
    leaf = parent.page_tables.leaf(address)
    assert leaf is not None, "there is a huge page"
    child.page_tables.frames.allocate()
    if leaf.page is None:
        child.page_tables.map_huge(address, Leaf(None, vm_page_prot(parent, vma)))
        return
    leaf.page.mapcount += 1
    leaf.page.mappings += 1
    leaf = leaf._replace(protection=leaf.protection._replace(write=False))
    parent.page_tables.map_huge(address, leaf)
    child.page_tables.map_huge(address, leaf._replace(young=False))
