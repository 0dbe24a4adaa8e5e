"""Stacks: a VMA that grows down to where a fault was."""

from __future__ import annotations

from spfemu.reference.kernel import Kernel
from spfemu.reference.mm import STACK_GUARD_PAGES, Mm
from spfemu.reference.model import VM_ACCESS, VM_GROWSDOWN, Vma
from spfemu.reference.vma_ops import anon_vma_prepare


def expand_stack(kernel: Kernel, mm: Mm, vma: Vma, address: int) -> bool:
    """Lets a VMA begin as low as the page of `address`, if it grows down and has room.

    What can be accessed below it has to keep a distance, unless it grows down itself. Even a VMA
    that then may not grow gets an anon_vma. Nothing asks for a stack pointer.

    **Source:** expand_downwards() and acct_stack_growth(), mm/mmap.c@5.1.
    """
    if not vma.flags & VM_GROWSDOWN:
        return False
    start = address & ~(mm.page_size - 1)
    if start < kernel.lowest_for_users:
        return False
    prev = mm.prev(vma)
    guarded = prev is not None and prev.flags & VM_ACCESS and not prev.flags & VM_GROWSDOWN
    if prev is not None and guarded and start - prev.end < STACK_GUARD_PAGES * mm.page_size:
        return False
    anon_vma_prepare(mm, vma)
    pages = (vma.start - start) >> mm.arch.page_shift
    if pages > vma.pgoff or vma.end - start > kernel.stack_limit:
        return False
    vma.start = start
    vma.pgoff -= pages
    return True
