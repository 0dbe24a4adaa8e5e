"""A missing page that user space brings, for which stands the emulator."""

from __future__ import annotations

from contextlib import suppress

from spfemu.reference.model import VM_UFFD_MISSING, VM_WRITE, OutOfFramesError, Pte
from spfemu.reference.page_prot import vm_page_prot
from spfemu.reference.pages import new_anonymous_page
from spfemu.reference.vm_fault import VM_FAULT_MAJOR, VM_FAULT_RETRY, VM_FAULT_SIGBUS, Fault
from spfemu.reference.vma_ops import anon_vma_prepare


def is_missing(fault: Fault) -> bool:
    """userfaultfd_missing(), which a speculative fault does not ask (SPF_V12 5.2)."""
    return not fault.speculative and bool(fault.flags & VM_UFFD_MISSING)


def handle_userfault(fault: Fault) -> int:
    """Lets the page be brought without mmap_sem; the fault begins again, and is major.

    In the second round there is nobody to wait for: SIGBUS.

    **Source:** handle_userfault(), fs/userfaultfd.c@5.1.
    """
    if not fault.allow_retry:
        return VM_FAULT_SIGBUS
    with suppress(OutOfFramesError):  # then it stays missing
        _mcopy_atomic(fault)
    return VM_FAULT_RETRY | VM_FAULT_MAJOR


def _mcopy_atomic(fault: Fault) -> None:
    """Maps a zeroed page, dirty, writable at once if the VMA is. Source: mm/userfaultfd.c@5.1."""
    mm, vma = fault.mm, fault.vma
    anon_vma_prepare(mm, vma)
    mm.page_tables.allocate_upper(fault.address)
    mm.page_tables.allocate(fault.address)
    page = new_anonymous_page(fault.kernel.frames)
    pte = Pte(page, vm_page_prot(mm, vma), dirty=True, young=False)
    if vma.flags & VM_WRITE:
        pte = pte._replace(protection=pte.protection._replace(write=True))
    mm.page_tables.store(fault.address, pte)
