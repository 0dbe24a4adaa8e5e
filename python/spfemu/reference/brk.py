"""brk: the heap."""

from __future__ import annotations

import errno

from spfemu.reference.kernel import Kernel
from spfemu.reference.mm import Mm
from spfemu.reference.mmap import get_unmapped_area
from spfemu.reference.model import (
    ADDRESS_MASK,
    VM_ACCOUNT,
    VM_READ,
    VM_SOFTDIRTY,
    VM_WRITE,
    SyscallError,
    Vma,
)
from spfemu.reference.munmap import munmap
from spfemu.reference.vma_ops import vma_merge

DEFAULT_START = 0x5555_5580_0000
HEAP_ALIGN = 2 << 20


def brk(kernel: Kernel, mm: Mm, delta: int, start: int | None) -> int:
    """Moves the break by `delta` bytes and returns it; ENOMEM if it does not go there (as sbrk).

    The first call puts the heap where `start` says, unless exec has settled that.

    **Source:** sys_brk and do_brk_flags(), mm/mmap.c@5.1; sbrk(3) for the form.
    """
    if mm.start_brk is None:
        mm.start_brk = mm.brk = _default_start(mm) if start is None else start
    wanted = mm.brk + delta
    if not mm.start_brk <= wanted <= ADDRESS_MASK:
        raise SyscallError(errno.ENOMEM)
    old_end, new_end = mm.page_align(mm.brk), mm.page_align(wanted)
    if new_end != old_end:
        try:
            if wanted <= mm.brk:
                munmap(kernel, mm, new_end, old_end - new_end)
            else:
                _grow_brk(kernel, mm, old_end, new_end)
        except SyscallError:
            raise SyscallError(errno.ENOMEM) from None
    mm.brk = wanted
    return wanted


def _default_start(mm: Mm) -> int:
    """A 2 MiB boundary: above x86's programs, or two thirds up where user space is too small."""
    if mm.arch.task_size > DEFAULT_START:
        return DEFAULT_START
    return -(-(mm.arch.task_size // 3 * 2) // HEAP_ALIGN) * HEAP_ALIGN


def _grow_brk(kernel: Kernel, mm: Mm, old_end: int, new_end: int) -> None:
    """Adds private anonymous memory to the heap, with a free page left above it."""
    if new_end < old_end:  # PAGE_ALIGN() wrapped
        raise SyscallError(errno.ENOMEM)
    following = mm.find_vma(old_end)
    if following is not None and new_end + mm.page_size > mm.start_gap(following):
        raise SyscallError(errno.ENOMEM)
    get_unmapped_area(kernel, mm, old_end, new_end - old_end, fixed=True)
    if mm.map_count > kernel.sysctl["vm.max_map_count"]:
        raise SyscallError(errno.ENOMEM)
    flags = VM_READ | VM_WRITE | VM_ACCOUNT
    _, prev = mm.find_vma_prev(old_end)
    pgoff = old_end >> mm.arch.page_shift
    assert mm.start_brk is not None, "brk has settled it"
    is_below = prev is not None and prev.end <= mm.start_brk
    merged = None
    if not (is_below and "heap" in kernel.newer):
        merged = vma_merge(mm, prev, old_end, new_end, flags, None, None, pgoff)
    if merged is None:
        mm.link(Vma(old_end, new_end, flags | VM_SOFTDIRTY, pgoff))
    else:
        merged.flags |= VM_SOFTDIRTY
