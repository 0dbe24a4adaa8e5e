"""Faulting pages in without an access: MAP_POPULATE, mlock, MADV_POPULATE_READ and WRITE.

No hardware fault happens, so nothing is speculative and of the counters only those move that
handle_mm_fault and the readers of files count.
"""

from __future__ import annotations

import contextlib
import errno
from enum import Enum, Flag, auto

from spfemu.reference.faults import handle_mm_fault
from spfemu.reference.hugetlb import hugetlb_fault, is_hugetlb
from spfemu.reference.kernel import Kernel
from spfemu.reference.mm import Mm
from spfemu.reference.model import (
    VM_EXEC,
    VM_LOCKONFAULT,
    VM_READ,
    VM_SHARED,
    VM_WRITE,
    Pte,
    SyscallError,
    Vma,
)
from spfemu.reference.protection_keys import vma_access_permitted
from spfemu.reference.vm_fault import (
    READ,
    VM_FAULT_ERROR,
    VM_FAULT_OOM,
    VM_FAULT_RETRY,
    WRITE,
    Fault,
)


class Foll(Flag):
    """How pages are got. **Source:** FOLL_*, include/linux/mm.h@5.1."""

    NONE = 0
    WRITE = auto()
    FORCE = auto()
    """Whatever the protection, as long as there is any."""
    POPULATE = auto()
    """Bring in what is not there."""


class Retry(Enum):
    """Which faults may drop mmap_sem; one that has done so for nothing may not do it again."""

    NEVER = auto()
    NOT_FIRST = auto()
    ALWAYS = auto()


def mm_populate(
    kernel: Kernel, mm: Mm, start: int, length: int, *, ignore_errors: bool = True
) -> None:
    """Faults in all pages of a range, VMA by VMA; holes are passed over.

    An error ends it, or, ignored, only what is left of the VMA.

    **Source:** __mm_populate(), mm/gup.c@5.1.
    """
    end = start + length
    nr_pages = 1
    while start < end:
        vma = mm.find_vma(start)
        if vma is None or vma.start >= end:
            return
        start, stop = max(start, vma.start), min(end, vma.end)
        retry = Retry.ALWAYS if nr_pages else Retry.NOT_FIRST
        try:
            nr_pages = populate_vma_page_range(kernel, mm, vma, start, stop, retry)
            start += nr_pages * mm.page_size
        except SyscallError:
            if not ignore_errors:
                raise
            start = stop


def populate_vma_page_range(
    kernel: Kernel, mm: Mm, vma: Vma, start: int, end: int, retry: Retry
) -> int:
    """Faults in a part of one VMA; returns how many pages until an error, or a dropped mmap_sem.

    Private memory that may be written is written to, or its first write would have to copy. Memory
    that may not be accessed at all is EFAULT. With VM_LOCKONFAULT nothing is brought in.

    **Source:** populate_vma_page_range(), mm/gup.c@5.1.
    """
    if vma.flags & VM_LOCKONFAULT and "onfault" in kernel.newer:
        return (end - start) // mm.page_size
    how = Foll.NONE if vma.flags & VM_LOCKONFAULT else Foll.POPULATE
    if vma.flags & (VM_WRITE | VM_SHARED) == VM_WRITE:
        how |= Foll.WRITE
    if vma.flags & (VM_READ | VM_WRITE | VM_EXEC):
        how |= Foll.FORCE
    return get_user_pages(kernel, mm, vma, start, end, how, retry)


def check_vma_flags(kernel: Kernel, vma: Vma, how: Foll) -> bool:
    """Whether pages of the VMA may be got this way; a protection key counts, force or not.

    **Source:** mm/gup.c@5.1.
    """
    kind, wanted = (WRITE, VM_WRITE) if Foll.WRITE in how else (READ, VM_READ)
    allowed = bool(vma.flags & wanted) or Foll.FORCE in how
    return allowed and vma_access_permitted(kernel.arch, vma, kind)


def get_user_pages(
    kernel: Kernel, mm: Mm, vma: Vma, start: int, end: int, how: Foll, retry: Retry
) -> int:
    """Gets pages of one VMA; how many before the first that cannot be had, which alone is an error.

    **Source:** __get_user_pages(), mm/gup.c@5.1.
    """
    if not check_vma_flags(kernel, vma, how):
        raise SyscallError(errno.EFAULT)
    for number, address in enumerate(range(start, end, mm.page_size)):
        allow_retry = retry is Retry.ALWAYS or (retry is Retry.NOT_FIRST and number > 0)
        try:
            while not _follow_page(mm, address, how) and Foll.POPULATE in how:
                if not _faultin_page(kernel, mm, vma, address, how, allow_retry=allow_retry):
                    return number
        except SyscallError:
            if number == 0:
                raise
            return number
    return (end - start) // mm.page_size


def _follow_page(mm: Mm, address: int, how: Foll) -> bool:
    """Whether the page is there, and writable if it is to be written; then it is dirty.

    That (FOLL_TOUCH) makes a page count again that MADV_FREE has given up.
    """
    pte = mm.page_tables.pte(address)
    if not isinstance(pte, Pte) or (pte.hinted and Foll.FORCE not in how):
        return False
    if Foll.WRITE not in how:
        return True
    pte.page.dirty |= pte.protection.write and not pte.dirty
    return pte.protection.write


def _faultin_page(
    kernel: Kernel, mm: Mm, vma: Vma, address: int, how: Foll, *, allow_retry: bool
) -> bool:
    """One fault; False if mmap_sem was dropped for it, so that the VMA may be another now.

    One of hugetlb is not counted (follow_hugetlb_page()).
    """
    kind = WRITE if Foll.WRITE in how else READ
    fault = Fault(kernel, mm, address, kind, user=False, present=False, allow_retry=allow_retry)
    fault.cache_vma(vma)
    result = hugetlb_fault(fault) if is_hugetlb(vma) else handle_mm_fault(fault)
    if result & VM_FAULT_ERROR:
        raise SyscallError(errno.ENOMEM if result & VM_FAULT_OOM else errno.EFAULT)
    return not result & VM_FAULT_RETRY


def madvise_populate(kernel: Kernel, mm: Mm, start: int, end: int, *, write: bool) -> None:
    """MADV_POPULATE_READ and WRITE, which 5.1 does not know: as 6.9 has them.

    The first error ends it: ENOMEM for a hole, EINVAL for a protection that does not allow it,
    EFAULT, or ENOMEM, for a page that cannot be had.

    **Source:** madvise_populate(), mm/madvise.c, faultin_page_range(), mm/gup.c, @6.9.
    """
    how = Foll.POPULATE | (Foll.WRITE if write else Foll.NONE)
    nr_pages = 1
    while start < end:
        vma = mm.find_vma(start)
        if vma is None or start < vma.start:
            raise SyscallError(errno.ENOMEM)
        if not check_vma_flags(kernel, vma, how):
            raise SyscallError(errno.EINVAL)
        stop = min(vma.end, end)
        retry = Retry.ALWAYS if nr_pages else Retry.NOT_FIRST
        nr_pages = get_user_pages(kernel, mm, vma, start, stop, how, retry)
        start += nr_pages * mm.page_size


def populate_quietly(kernel: Kernel, mm: Mm, vma: Vma, start: int, end: int) -> None:
    """What mprotect does for locked memory that becomes writable: mmap_sem is kept, errors too."""
    with contextlib.suppress(SyscallError):
        populate_vma_page_range(kernel, mm, vma, start, end, Retry.NEVER)
