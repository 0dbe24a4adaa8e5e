"""mlock and munlock: the flags of VMAs, and the pages that a lock brings in."""

from __future__ import annotations

import errno

from spfemu.reference.kernel import Kernel
from spfemu.reference.mm import Mm
from spfemu.reference.model import (
    ADDRESS_MASK,
    VM_HUGETLB,
    VM_LOCKED,
    VM_LOCKONFAULT,
    SyscallError,
    Vma,
)
from spfemu.reference.populate import mm_populate
from spfemu.reference.protect import for_each_part, merge_or_split


def mlock(kernel: Kernel, mm: Mm, start: int, length: int, *, onfault: bool) -> None:
    """Locks whole pages and brings them in, or with `onfault` only locks what is, or comes, there.

    A hole ends it with ENOMEM, as in munlock, with all before it locked but nothing brought in.
    What cannot be brought in is ENOMEM, too, and EAGAIN if memory is short; it is locked all the
    same. There is no limit.

    **Source:** do_mlock() and __mlock_posix_error_return(), mm/mlock.c@5.1.
    """
    start, length = _whole_pages(mm, start, length)
    _apply_vma_lock_flags(kernel, mm, start, length, VM_LOCKED | (VM_LOCKONFAULT if onfault else 0))
    try:
        mm_populate(kernel, mm, start, length, ignore_errors=False)
    except SyscallError as error:
        said = {errno.EFAULT: errno.ENOMEM, errno.ENOMEM: errno.EAGAIN}
        raise SyscallError(said.get(error.value, error.value)) from None


def munlock(kernel: Kernel, mm: Mm, start: int, length: int) -> None:
    """Takes the locks away. **Source:** sys_munlock, mm/mlock.c@5.1."""
    _apply_vma_lock_flags(kernel, mm, *_whole_pages(mm, start, length), 0)


def _whole_pages(mm: Mm, start: int, length: int) -> tuple[int, int]:
    """The pages that the bytes lie in; a length that is too long wraps to 0."""
    inside = start % mm.page_size
    return start - inside, mm.page_align((length + inside) & ADDRESS_MASK)


def _apply_vma_lock_flags(kernel: Kernel, mm: Mm, start: int, length: int, flags: int) -> None:
    """Gives the range these two flags, VMA by VMA. **Source:** mm/mlock.c@5.1."""
    end = start + length
    if end > ADDRESS_MASK:
        raise SyscallError(errno.EINVAL)
    if length == 0:
        return

    def fixup(vma: Vma, prev: Vma | None, at: int, stop: int) -> Vma:
        new_flags = vma.flags & ~(VM_LOCKED | VM_LOCKONFAULT) | flags
        if new_flags != vma.flags and not vma.flags & VM_HUGETLB:  # mlock_fixup()
            vma = merge_or_split(kernel, mm, vma, prev, at, stop, new_flags, vma.policy)
            vma.flags = new_flags
        return vma

    for_each_part(mm, start, end, fixup)
