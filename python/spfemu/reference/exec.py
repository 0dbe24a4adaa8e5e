"""exec: what a fresh address space gets besides nothing, its stack."""

from __future__ import annotations

import errno
from typing import Final

from spfemu.reference.kernel import Kernel
from spfemu.reference.mm import Mm
from spfemu.reference.model import (
    VM_ACCOUNT,
    VM_GROWSDOWN,
    VM_READ,
    VM_SOFTDIRTY,
    VM_STACK_INCOMPLETE_SETUP,
    VM_WRITE,
    SyscallError,
    Vma,
)
from spfemu.reference.mremap import move_page_tables
from spfemu.reference.page_prot import set_page_prot
from spfemu.reference.populate import Foll, Retry, get_user_pages
from spfemu.reference.protect import change_protection
from spfemu.reference.stack import expand_stack

_MAX_ARGS: Final = (8 << 20) // 4 * 3
_ARG_MAX: Final = 128 << 10
_STACK_EXPAND: Final = 128 << 10
_POINTER: Final = 8
_STACK_FLAGS: Final = VM_GROWSDOWN | VM_READ | VM_WRITE | VM_ACCOUNT


def bprm_mm_init(kernel: Kernel, mm: Mm, length: int, shift: int) -> Vma:
    """A stack at the top of user space with so many bytes of arguments, before anybody runs in it.

    E2BIG if that is more than a quarter of what a stack may have, but at least 128 KiB, and at most
    6 MiB; also if there is no memory. ENOMEM if it will not fit where it is to be moved, which the
    kernel only notices when it has to kill.

    **Source:** bprm_mm_init(), prepare_arg_pages(), copy_strings(), fs/exec.c@5.1.
    """
    if length > max(_ARG_MAX, min(_MAX_ARGS, kernel.stack_limit // 4)):
        raise SyscallError(errno.E2BIG)
    top = mm.arch.task_size
    page = top - mm.page_size
    flags = _STACK_FLAGS | VM_STACK_INCOMPLETE_SETUP | VM_SOFTDIRTY
    vma = Vma(page, top, flags, page >> mm.arch.page_shift, None)
    mm.link(vma)
    lowest = (top - _POINTER - length) & ~(mm.page_size - 1)
    if top - lowest >= _stack_top(mm, shift) - kernel.mmap_min_addr:
        raise SyscallError(errno.ENOMEM)
    page = (top - _POINTER - 1) & ~(mm.page_size - 1)
    how = Foll.WRITE | Foll.FORCE | Foll.POPULATE
    while page >= lowest:
        if page < vma.start and not expand_stack(kernel, mm, vma, page):
            raise SyscallError(errno.E2BIG)
        try:
            get_user_pages(kernel, mm, vma, page, page + mm.page_size, how, Retry.NEVER)
        except SyscallError:
            raise SyscallError(errno.E2BIG) from None
        page -= mm.page_size
    return vma


def setup_arg_pages(kernel: Kernel, mm: Mm, vma: Vma, shift: int) -> None:
    """Moves the stack to where it is to end, and lets it have 128 KiB more, if it may.

    ENOMEM if there is no memory for page tables: then it stays. (The kernel kills the task.)

    **Source:** setup_arg_pages(), fs/exec.c@5.1.
    """
    vma.flags &= ~VM_SOFTDIRTY
    set_page_prot(mm, vma)
    change_protection(mm, vma, vma.start, vma.end)
    try:
        if _stack_top(mm, shift) != vma.end:
            _shift_arg_pages(kernel, mm, vma, vma.end - _stack_top(mm, shift))
    finally:
        vma.flags &= ~VM_STACK_INCOMPLETE_SETUP
    limit = kernel.stack_limit & ~(mm.page_size - 1)
    lowest = max(vma.start - _STACK_EXPAND, vma.end - limit)
    if lowest < vma.start and not expand_stack(kernel, mm, vma, lowest):
        raise SyscallError(errno.EFAULT)


def _stack_top(mm: Mm, shift: int) -> int:
    return mm.page_align(max(0, mm.arch.task_size - shift))


def _shift_arg_pages(kernel: Kernel, mm: Mm, vma: Vma, shift: int) -> None:
    """**Source:** shift_arg_pages(), fs/exec.c@5.1."""
    old_start, old_end = vma.start, vma.end
    new_start, new_end = old_start - shift, old_end - shift
    length = old_end - old_start
    vma.start = new_start  # both places, under the old page offset
    tables = mm.page_tables
    moved = move_page_tables(kernel, mm, vma, old_start, new_start, length)
    if moved < length:
        move_page_tables(kernel, mm, vma, new_start, old_start, moved)
        tables.free_range(new_start, min(new_end, old_start), 0, old_start)
        vma.start = old_start
        raise SyscallError(errno.ENOMEM)
    tables.free_range(max(old_start, new_end), old_end, new_end, 0)
    vma.end = new_end
