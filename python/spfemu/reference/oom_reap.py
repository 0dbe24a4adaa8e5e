"""The OOM reaper: takes the private memory of a process that is to be killed."""

from __future__ import annotations

from spfemu.reference.kernel import Kernel
from spfemu.reference.mm import Mm
from spfemu.reference.model import VM_HUGETLB, VM_LOCKED, VM_SHARED
from spfemu.reference.munmap import zap_page_range


def oom_reap(kernel: Kernel, mm: Mm) -> None:
    """Drops private pages, and lets no fault bring zeroes in their place. Once in a life.

    **Source:** oom_reap_task(), mm/oom_kill.c@5.1. There nobody is left to fault but the kernel on
    the task's behalf; here the process goes on.
    """
    if mm.unstable:  # MMF_OOM_SKIP
        return
    mm.unstable = True
    for vma in mm.vmas:
        if not vma.flags & (VM_LOCKED | VM_HUGETLB | VM_SHARED):
            zap_page_range(kernel, mm, vma, vma.start, vma.end)
