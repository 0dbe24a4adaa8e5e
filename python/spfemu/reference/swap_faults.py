"""Faults on swap entries: do_swap_page(). SPF_V12 5.3."""

from __future__ import annotations

from spfemu.reference.kernel import PGMAJFAULT
from spfemu.reference.model import VM_LOCKED, OutOfFramesError, Page, Pte, SwapEntry
from spfemu.reference.vm_fault import (
    VM_FAULT_MAJOR,
    VM_FAULT_RETRY,
    VM_FAULT_WRITE,
    Fault,
)


def do_swap_page(fault: Fault, entry: SwapEntry) -> tuple[int, Pte | None]:
    """Maps the page of a swap entry again, from the swap cache or from the device.

    A write maps it writable if nobody else has it, and the page leaves the swap cache. Else the
    second part of the answer is the read-only PTE that the write still has to deal with.

    **Source:** mm/memory.c@5.1 with patches 13 and 23.
    """
    swap = fault.kernel.swap
    result = 0
    page = swap.lookup(entry.slot, fault.vma, fault.address)
    if page is None:
        if not _may_read_at_once(fault, entry) and fault.speculative:
            return VM_FAULT_RETRY, None  # 5.3-3: no readahead without mmap_sem; no event
        page, waits = _read(fault, entry)
        fault.kernel.count(PGMAJFAULT)  # 5.3-5
        result = VM_FAULT_MAJOR
        if waits and fault.allow_retry:  # 5.3-6: lock_page_or_retry()
            return result | VM_FAULT_RETRY, None
    _charge(fault, page)  # 5.3-7
    # 5.3-8: nothing can have changed.
    page.mapcount += 1
    pte = Pte(page, fault.page_prot)
    reused = fault.write and page.mapcount - 1 + _swapped(fault, page) <= 1
    if reused:
        if page.slot is not None:
            swap.delete_from_cache(page)
            page.dirty = True
        pte = pte.made_writable()
        result |= VM_FAULT_WRITE
    fault.mm.page_tables.store(fault.address, pte)
    swap.free(entry.slot)
    if swap.is_half_full or fault.vma.flags & VM_LOCKED:
        swap.try_to_free(page)
    return result, pte if fault.write and not reused else None


def _charge(fault: Fault, page: Page) -> None:
    """Counts a page that has been read and was not mapped since; it stays in the swap cache."""
    if page.charged:
        return
    try:
        fault.kernel.frames.charge()
    except OutOfFramesError:
        if page.slot is None:  # past the cache
            fault.kernel.frames.free()
        raise
    page.charged = True


def _swapped(fault: Fault, page: Page) -> int:
    """How many PTEs name the slot of a page in the swap cache, this fault's among them."""
    return 0 if page.slot is None else fault.kernel.swap.counts[page.slot]


def _may_read_at_once(fault: Fault, entry: SwapEntry) -> bool:
    """Whether the CPU itself reads the slot, past the swap cache: nobody else wants it."""
    swap = fault.kernel.swap
    return swap.is_synchronous and swap.counts[entry.slot] == 1


def _read(fault: Fault, entry: SwapEntry) -> tuple[Page, bool]:
    """The page, read from the device, and whether it cannot have come yet."""
    kernel = fault.kernel
    if _may_read_at_once(fault, entry):
        kernel.frames.allocate()
        value = kernel.swap.content[entry.slot]
        return Page(anonymous=True, value=value, dirty=kernel.is_fixed("L3")), False
    tables, shift = fault.mm.page_tables, kernel.arch.page_shift
    table_start = fault.address >> tables.pmd_shift << tables.pmd_shift
    start = max(fault.vma.start, table_start)
    end = min(fault.vma.end, table_start + tables.pmd_size)
    near = {
        address >> shift: pte.slot
        for address, pte in tables.entries(start, end)
        if isinstance(pte, SwapEntry)
    }
    page, waits = kernel.swap.read(
        entry.slot,
        fault.vma,
        fault.address,
        near,
        range(start >> shift, end >> shift),
        kernel.sysctl["vm.page-cluster"],
    )
    if page is None:
        raise OutOfFramesError
    return page, waits
