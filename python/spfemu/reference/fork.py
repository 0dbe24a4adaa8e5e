"""fork and exit: copying an address space, and giving it back."""

from __future__ import annotations

import errno

from spfemu.reference.huge_pages import copy_huge_pmd
from spfemu.reference.hugetlb import (
    close_vma,
    copy_hugetlb_page_range,
    is_hugetlb,
    reset_reservations,
)
from spfemu.reference.kernel import Kernel
from spfemu.reference.mm import Mm
from spfemu.reference.model import (
    VM_DONTCOPY,
    VM_LOCKED,
    VM_LOCKONFAULT,
    VM_UFFD_MISSING,
    VM_WIPEONFORK,
    OutOfFramesError,
    SwapEntry,
    SyscallError,
    Vma,
)
from spfemu.reference.munmap import zap_page_range
from spfemu.reference.vma_ops import anon_vma_fork, prepare_between


def dup_mmap(kernel: Kernel, parent: Mm) -> Mm:
    """Copies an address space for fork; ENOMEM, with nothing left of it, if memory ends.

    **Source:** dup_mmap(), kernel/fork.c@5.1.
    """
    child = new_mm(kernel)
    child.start_brk, child.brk = parent.start_brk, parent.brk
    try:
        for vma in parent.vmas:
            if not vma.flags & VM_DONTCOPY:
                _dup_vma(kernel, parent, child, vma)
    except OutOfFramesError:
        exit_mmap(kernel, child)
        raise SyscallError(errno.ENOMEM) from None
    return child


def new_mm(kernel: Kernel) -> Mm:
    """An empty address space; ENOMEM if there is no memory for its top page table."""
    try:
        mm = Mm(kernel.arch, kernel.frames, kernel.newer)
    except OutOfFramesError:
        raise SyscallError(errno.ENOMEM) from None
    kernel.mms.append(mm)
    return mm


def _dup_vma(kernel: Kernel, parent: Mm, child: Mm, vma: Vma) -> None:
    """Copies one VMA and, unless it is to be wiped, its page tables.

    A wiped one gets an anon_vma at once, found while its list pointers are still the parent's.
    """
    copy = vma.duplicate()
    copy.flags &= ~VM_UFFD_MISSING  # without events it is not inherited
    if vma.flags & VM_WIPEONFORK:
        copy.anon_vma, copy.anon_vma_chain = None, []
        if "wiped" not in kernel.newer:
            prepare_between(parent, copy, parent.prev(vma), parent.next(vma))
    else:
        anon_vma_fork(copy, vma)
    # Only now: locked still, it may have found the anon_vma of a neighbour that is locked, too.
    copy.flags &= ~(VM_LOCKED | VM_LOCKONFAULT)
    reset_reservations(copy)
    child.link(copy)
    if not vma.flags & VM_WIPEONFORK:
        _copy_page_range(kernel, parent, child, vma)


def _copy_page_range(kernel: Kernel, parent: Mm, child: Mm, vma: Vma) -> None:
    """Copies the PTEs of a VMA, write-protecting both sides of private memory.

    Without an anon_vma nothing is copied: the child's faults find everything in the file. Only
    hugetlb mappings are copied always. The
    child gets a table wherever the parent has one, even an empty one. When memory ends half way,
    what has been write-protected stays so.

    **Source:** copy_page_range() and copy_one_pte(), mm/memory.c@5.1.
    """
    if is_hugetlb(vma):
        copy_hugetlb_page_range(parent, child, vma)
        return
    if vma.anon_vma is None:
        return
    mine, theirs = child.page_tables, parent.page_tables
    for start, end in mine.copy_tables(theirs, vma.start, vma.end):
        if theirs.leaf(start) is not None:
            copy_huge_pmd(parent, child, vma, start)
            continue
        for address, pte in list(theirs.entries(start, end)):
            if isinstance(pte, SwapEntry):
                kernel.swap.counts[pte.slot] += 1
                mine.store(address, pte)
                continue
            pte = pte._replace(protection=pte.protection._replace(write=False))
            theirs.store(address, pte)
            mine.store(address, pte._replace(young=False))
            pte.page.mapcount += 1
            pte.page.exclusive = False
            if pte.page.huge is not None:
                pte.page.huge.mappings += 1


def exit_mmap(kernel: Kernel, mm: Mm) -> None:
    """Frees an address space that nobody uses any more. **Source:** exit_mmap()@5.1."""
    for vma in list(mm.vmas):
        zap_page_range(kernel, mm, vma, vma.start, vma.end)
        close_vma(kernel, mm, vma)
        mm.unlink(vma)
    mm.page_tables.free_all()
    kernel.mms.remove(mm)
