"""The part of a fault that both handlers share: anonymous memory, and writes to read-only pages."""

from __future__ import annotations

from spfemu.reference.file_faults import do_fault
from spfemu.reference.model import VM_SHARED, VM_WRITE, ZERO_PAGE, OutOfFramesError, Pte, SwapEntry
from spfemu.reference.pages import free_page, new_anonymous_page
from spfemu.reference.swap_faults import do_swap_page
from spfemu.reference.userfaultfd import handle_userfault, is_missing
from spfemu.reference.vm_fault import (
    VM_FAULT_OOM,
    VM_FAULT_RETRY,
    VM_FAULT_SIGBUS,
    VM_FAULT_WRITE,
    Fault,
)
from spfemu.reference.vma_ops import anon_vma_prepare


def handle_pte_fault(fault: Fault) -> int:
    """Handles a fault in a VMA that permits it, by what the PTE says; VM_FAULT_OOM if memory ends.

    **Source:** mm/memory.c@5.1 with patches 5, 6 and 22; SPF_V12 5.1.
    """
    try:
        return _handle_pte_fault(fault)
    except OutOfFramesError:
        return VM_FAULT_OOM


def _handle_pte_fault(fault: Fault) -> int:
    tables = fault.mm.page_tables
    pte = tables.pte(fault.address)
    # 5.1-1: the PMD was there a moment ago (H16), or this is the classic path.
    if pte is None:  # 5.1-3; a speculative fault is always in anonymous memory (H3)
        return do_anonymous_page(fault) if fault.vma.vm_ops is None else do_fault(fault)
    if isinstance(pte, SwapEntry):  # 5.1-4
        result, mapped = do_swap_page(fault, pte)
        # 5.3-10: mapped read-only, for others have the page, too
        return result | do_wp_page(fault, mapped) if mapped is not None else result
    if pte.hinted:  # 5.1-5
        return do_numa_page(fault, pte)
    # 5.1-6, 7: locked, and the PTE is the same.
    if fault.write and not pte.protection.write:  # 5.1-8
        return do_wp_page(fault, pte)
    entry = pte._replace(
        dirty=pte.dirty or fault.write,
        young=True,
        soft_dirty=pte.soft_dirty or fault.write,
    )
    if entry != pte:  # 5.1-9: ptep_set_access_flags()
        tables.store(fault.address, entry)
    elif fault.speculative and fault.kernel.is_fixed("C2"):
        return VM_FAULT_RETRY
    return 0


def do_numa_page(fault: Fault, pte: Pte) -> int:
    """Lets the hardware see the page again. It may move to another node, unseen. SPF_V12 5.4."""
    protection = fault.page_prot._replace(write=pte.protection.write)
    fault.mm.page_tables.store(
        fault.address, pte._replace(protection=protection, young=True, hinted=False)
    )
    return 0


def do_anonymous_page(fault: Fault) -> int:
    """Maps the zero page for a read, a page of its own for a write. SPF_V12 5.2."""
    tables = fault.mm.page_tables
    tables.allocate(fault.address)  # pte_alloc(): nothing to do when speculative
    if not fault.write:
        if fault.mm.unstable:
            return VM_FAULT_SIGBUS
        if is_missing(fault):
            return handle_userfault(fault)
        tables.store(fault.address, Pte(ZERO_PAGE, fault.page_prot))
        return 0
    anon_vma_prepare(fault.mm, fault.vma)  # there already when speculative (H4)
    page = new_anonymous_page(fault.kernel.frames)
    if fault.mm.unstable:
        free_page(fault.kernel.frames, page)
        return VM_FAULT_SIGBUS
    if is_missing(fault):
        free_page(fault.kernel.frames, page)
        return handle_userfault(fault)
    tables.store(fault.address, Pte(page, fault.page_prot).made_writable())
    return 0


def do_wp_page(fault: Fault, pte: Pte) -> int:
    """Handles a write to a present page that is mapped read-only. SPF_V12 5.5.

    An anonymous page that nobody else maps (of a huge page: nor any other part), also one that KSM
    has merged, is made writable where it is; so is a page of a shared
    mapping, after `page_mkwrite`. The zero page, a file's page in a private mapping and an
    anonymous page that another process maps are copied.
    """
    tables, swap = fault.mm.page_tables, fault.kernel.swap
    if pte.page.merged:
        if pte.page.mapcount > 1:
            return wp_page_copy(fault, pte)
        pte.page.merged = False  # reuse_ksm_page()
        tables.store(fault.address, pte.made_writable())
        return VM_FAULT_WRITE
    if pte.page.anonymous and swap.is_used_once(pte.page):  # reuse_swap_page()
        if pte.page.slot is not None:
            swap.try_to_free(pte.page)
        pte.page.exclusive = True
        tables.store(fault.address, pte.made_writable())
        return VM_FAULT_WRITE
    if not pte.page.anonymous and fault.flags & VM_SHARED:  # wp_page_shared()
        tables.store(fault.address, pte.made_writable())
        return VM_FAULT_WRITE
    return wp_page_copy(fault, pte)


def wp_page_copy(fault: Fault, pte: Pte) -> int:
    """Copies the page for this address space alone. SPF_V12 5.5.

    KSM's unmerging asks for a write where the VMA may not allow any: maybe_mkwrite().
    """
    anon_vma_prepare(fault.mm, fault.vma)
    page = new_anonymous_page(fault.kernel.frames, pte.page.value)
    entry = Pte(page, fault.page_prot)
    writes = bool(fault.flags & VM_WRITE)
    entry = entry.made_writable() if writes else entry.made_dirty()
    fault.mm.page_tables.store(fault.address, entry)
    fault.kernel.swap.unmap(pte)
    return VM_FAULT_WRITE
