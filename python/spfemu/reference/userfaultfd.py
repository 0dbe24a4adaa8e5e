"""A missing page that user space brings, for which stands the emulator."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress

from spfemu.reference.model import (
    VM_SHARED,
    VM_UFFD_MISSING,
    VM_WRITE,
    OutOfFramesError,
    Pte,
)
from spfemu.reference.page_prot import vm_page_prot
from spfemu.reference.pages import new_anonymous_page
from spfemu.reference.vm_fault import VM_FAULT_MAJOR, VM_FAULT_RETRY, VM_FAULT_SIGBUS, Fault
from spfemu.reference.vma_ops import anon_vma_prepare


def is_missing(fault: Fault) -> bool:
    """userfaultfd_missing(), which a speculative fault does not ask (SPF_V12 5.2)."""
    return not fault.speculative and bool(fault.flags & VM_UFFD_MISSING)


def mcopy_atomic(fault: Fault) -> None:
    """Maps a zeroed page; if the VMA is writable, so is the page, and dirty.

    One of a shared mapping the page cache gets, too. A private mapping of a file has a copy from
    the beginning; the file keeps its hole.

    **Source:** __mcopy_atomic(), mm/userfaultfd.c, shmem_mcopy_atomic_pte(), mm/shmem.c, @5.1.
    """
    mm, vma = fault.mm, fault.vma
    shared = bool(vma.flags & VM_SHARED)
    if not shared:
        anon_vma_prepare(mm, vma)
    mm.page_tables.allocate_upper(fault.address)
    mm.page_tables.allocate(fault.address)
    if shared:
        assert vma.file is not None, "shared memory has a file"
        index = ((fault.address - vma.start) >> mm.arch.page_shift) + vma.pgoff
        page = vma.file.page(index)
    else:
        page = new_anonymous_page(fault.kernel.frames)
    pte = Pte(page, vm_page_prot(mm, vma))
    if vma.flags & VM_WRITE:
        pte = pte.made_writable()
    mm.page_tables.store(fault.address, pte)


def handle_userfault(fault: Fault, bring: Callable[[Fault], None] = mcopy_atomic) -> int:
    """Lets the page be brought without mmap_sem; the fault begins again, and is major.

    In the second round there is nobody to wait for: SIGBUS.

    **Source:** handle_userfault(), fs/userfaultfd.c@5.1.
    """
    if not fault.allow_retry:
        return VM_FAULT_SIGBUS
    with suppress(OutOfFramesError):  # then it stays missing
        bring(fault)
    return VM_FAULT_RETRY | VM_FAULT_MAJOR
