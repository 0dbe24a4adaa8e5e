"""userfaultfd: which ranges are registered for missing pages."""

from __future__ import annotations

import errno

from spfemu.reference.hugetlb import is_hugetlb
from spfemu.reference.kernel import Kernel
from spfemu.reference.mm import Mm
from spfemu.reference.model import GENERIC_FILE_VM_OPS, VM_UFFD_MISSING, SyscallError
from spfemu.reference.protect import merge_or_split


def uffd_change(kernel: Kernel, mm: Mm, start: int, length: int, *, missing: bool) -> None:
    """Registers the VMAs of a range for missing pages, or takes that back; holes are skipped.

    All of it has to be memory: private, shared, or hugetlb in whole pages. Each address space has
    one context, so the flag says it.

    **Source:** userfaultfd_register() and _unregister(), fs/userfaultfd.c@5.1.
    """
    end = start + length
    inside = kernel.mmap_min_addr <= start and end <= kernel.arch.task_size
    if mm.is_unaligned(start) or mm.is_unaligned(length) or not length or not inside:
        raise SyscallError(errno.EINVAL)
    vma, prev = mm.find_vma_prev(start)
    if vma is None:
        raise SyscallError(errno.ENOMEM)
    vmas = mm.overlapping(start, end)
    if not vmas or any(vma.vm_ops is GENERIC_FILE_VM_OPS for vma in vmas):
        raise SyscallError(errno.EINVAL)
    pmd_size = mm.page_tables.pmd_size
    starts_within_page = is_hugetlb(vma) and start % pmd_size
    # Unregistering finds out when it comes to cut there.
    cuts = missing and is_hugetlb(vmas[-1]) and end <= vmas[-1].end
    ends_within_page = cuts and end % pmd_size
    if starts_within_page or ends_within_page:
        raise SyscallError(errno.EINVAL)
    if vma.start < start:
        prev = vma
    at, cursor = start, mm.find_vma(start)
    while cursor is not None and cursor.start < end:
        vma = cursor
        if bool(vma.flags & VM_UFFD_MISSING) != missing:
            at, to = max(at, vma.start), min(vma.end, end)
            flags = vma.flags ^ VM_UFFD_MISSING
            vma = merge_or_split(kernel, mm, vma, prev, at, to, flags, vma.policy)
            vma.flags = flags
        at, prev, cursor = vma.end, vma, mm.next(vma)
