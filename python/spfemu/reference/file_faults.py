"""Faults on empty PTEs of file mappings. They are never speculative (SPF_V12 3.2 H3, 5.1-3)."""

from __future__ import annotations

import contextlib

from spfemu.reference.kernel import PGMAJFAULT
from spfemu.reference.model import (
    FAULT_AROUND_BYTES,
    VM_SHARED,
    File,
    OutOfFramesError,
    Page,
    Pte,
    Vma,
)
from spfemu.reference.pages import free_page, new_anonymous_page
from spfemu.reference.userfaultfd import handle_userfault, is_missing
from spfemu.reference.vm_fault import (
    VM_FAULT_MAJOR,
    VM_FAULT_NOPAGE,
    VM_FAULT_RETRY,
    VM_FAULT_SIGBUS,
    Fault,
)
from spfemu.reference.vma_ops import anon_vma_prepare


def do_fault(fault: Fault) -> int:
    """Handles a fault on an empty PTE of a file mapping. Source: mm/memory.c@5.1."""
    if not fault.write:
        return do_read_fault(fault)
    if not fault.flags & VM_SHARED:
        return do_cow_fault(fault)
    return do_shared_fault(fault)


def do_read_fault(fault: Fault) -> int:
    """Maps cached pages around the address, then this page if that did not do it."""
    if FAULT_AROUND_BYTES >> fault.kernel.arch.page_shift > 1:
        do_fault_around(fault)
        if fault.mm.page_tables.pte(fault.address) is not None:
            return VM_FAULT_NOPAGE
    page, result = _file_fault(fault)
    if page is not None and fault.mm.unstable and not fault.flags & VM_SHARED:
        return VM_FAULT_SIGBUS  # a copy may have been lost
    if page is not None:
        _map_file_page(fault, fault.address, page)
    return result


def do_cow_fault(fault: Fault) -> int:
    """Gives a private mapping its own copy of the file's page.

    The anon_vma comes first, and stays whatever follows; then the frame for the copy.
    """
    frames, tables = fault.kernel.frames, fault.mm.page_tables
    anon_vma_prepare(fault.mm, fault.vma)
    copy = new_anonymous_page(frames)
    try:
        page, result = _file_fault(fault)
        if page is not None and fault.mm.unstable:
            page, result = None, VM_FAULT_SIGBUS
        if page is not None:
            tables.allocate(fault.address)
    except OutOfFramesError:
        free_page(frames, copy)
        raise
    if page is None:
        free_page(frames, copy)
    else:
        copy.value = page.value
        tables.store(fault.address, Pte(copy, fault.page_prot).made_writable())
    return result


def do_shared_fault(fault: Fault) -> int:
    """Maps the file's page writable (after `page_mkwrite`, which always agrees)."""
    page, result = _file_fault(fault)
    if page is not None:
        fault.mm.page_tables.allocate(fault.address)
        fault.mm.page_tables.store(fault.address, Pte(page, fault.page_prot).made_writable())
    return result


def do_fault_around(fault: Fault) -> None:
    """Maps what the page cache has near the address: filemap_map_pages(), mm/filemap.c@5.1.

    The window is the aligned 64 KiB around the address; it begins at the VMA's start if that is
    later, and ends with the VMA, the PTE table, the file, or the number of pages in 64 KiB. It
    does what it can: without memory it maps less.
    """
    arch, vma = fault.kernel.arch, fault.vma
    shift = arch.page_shift
    start = max(fault.address & ~(FAULT_AROUND_BYTES - 1), vma.start)
    table_end = ((start >> arch.levels[-2].shift) + 1) << arch.levels[-2].shift
    end = min(start + FAULT_AROUND_BYTES, vma.end, table_end)
    file = _file(vma)
    if "alone" in fault.kernel.newer and _is_alone(fault, start):
        return
    for address in range(start, end, 1 << shift):
        index = _page_index(fault, address)
        if index >= file.nr_pages(shift) or not file.is_cached(index):
            continue
        if fault.mm.page_tables.pte(address) is None:
            with contextlib.suppress(OutOfFramesError):
                _map_file_page(fault, address, file.page(index))


def _is_alone(fault: Fault, start: int) -> bool:
    """Whether only the file's last page is before the address, in a page table yet to be made."""
    nr_pages = _file(fault.vma).nr_pages(fault.kernel.arch.page_shift)
    is_beyond = _page_index(fault, fault.address) >= nr_pages
    is_last = _page_index(fault, start) == nr_pages - 1
    return is_beyond and is_last and fault.mm.page_tables.table(fault.address) is None


def _map_file_page(fault: Fault, address: int, page: Page) -> None:
    """alloc_set_pte() for a read: as writable as vm_page_prot says, and clean."""
    fault.mm.page_tables.allocate(address)
    fault.mm.page_tables.store(address, Pte(page, fault.page_prot))


def _file_fault(fault: Fault) -> tuple[Page | None, int]:
    """vm_ops->fault: finds or brings in the page; SIGBUS beyond the file's end.

    A page of a file that is not in the page cache has to be read: a major fault. For a file on
    disk mmap_sem is dropped meanwhile, and the fault begins again (also if there was no memory to
    read into). A page of anonymous shared memory that does not exist yet is only made.

    **Source:** filemap_fault(), mm/filemap.c, shmem_fault(), mm/shmem.c, @5.1.
    """
    file = _file(fault.vma)
    index = _page_index(fault, fault.address)
    if index >= file.nr_pages(fault.kernel.arch.page_shift):
        return None, VM_FAULT_SIGBUS
    if file.is_cached(index):
        return file.page(index), 0
    if not file.must_read(index):
        if is_missing(fault):  # shmem_getpage_gfp()
            return None, handle_userfault(fault)
        return file.page(index), 0
    fault.kernel.count(PGMAJFAULT)
    if file.kind == "regular" and fault.allow_retry:
        with contextlib.suppress(OutOfFramesError):
            file.page(index)
        return None, VM_FAULT_MAJOR | VM_FAULT_RETRY
    return file.page(index), VM_FAULT_MAJOR


def _page_index(fault: Fault, address: int) -> int:
    vma = fault.vma
    return ((address - vma.start) >> fault.mm.page_tables.page_shift) + vma.pgoff


def _file(vma: Vma) -> File:
    assert vma.file is not None, "a VMA with operations has a file"
    return vma.file
