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
    TaskKilledError,
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


def bprm_mm_init(kernel: Kernel, mm: Mm, length: int) -> Vma:
    """A stack at the top of user space with so many bytes of arguments, before anybody runs in it.

    E2BIG if that is more than a quarter of what a stack may have, but at least 128 KiB, and at most
    6 MiB; also if there is no memory.

    **Source:** bprm_mm_init(), prepare_arg_pages(), copy_strings(), fs/exec.c@5.1.
    """
    end = mm.arch.task_size
    if length > min(max(_ARG_MAX, min(_MAX_ARGS, kernel.stack_limit // 4)), end - _POINTER):
        raise SyscallError(errno.E2BIG)
    page = end - mm.page_size
    flags = _STACK_FLAGS | VM_STACK_INCOMPLETE_SETUP | VM_SOFTDIRTY
    vma = Vma(page, end, flags, page >> mm.arch.page_shift, None)
    mm.link(vma)
    lowest = (end - _POINTER - length) & ~(mm.page_size - 1)
    page = (end - _POINTER - 1) & ~(mm.page_size - 1)
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
    """Moves the stack down by so many bytes, and lets it have 128 KiB more, if it may.

    Without room or memory for that the task is killed. What wraps around 0 is no growth.

    **Source:** setup_arg_pages(), fs/exec.c@5.1.
    """
    stack_top = mm.page_align(max(0, mm.arch.task_size - shift))
    if vma.end - vma.start >= stack_top - kernel.mmap_min_addr:
        raise TaskKilledError
    vma.flags &= ~VM_SOFTDIRTY
    set_page_prot(mm, vma)
    change_protection(mm, vma, vma.start, vma.end)
    if stack_top != vma.end:
        _shift_arg_pages(kernel, mm, vma, vma.end - stack_top)
    vma.flags &= ~VM_STACK_INCOMPLETE_SETUP
    limit = kernel.stack_limit & ~(mm.page_size - 1)
    is_limited = vma.end - vma.start + _STACK_EXPAND > limit
    lowest = vma.end - limit if is_limited else vma.start - _STACK_EXPAND
    if 0 <= lowest < vma.start and not expand_stack(kernel, mm, vma, lowest):
        raise TaskKilledError


def _shift_arg_pages(kernel: Kernel, mm: Mm, vma: Vma, shift: int) -> None:
    """**Source:** shift_arg_pages(), fs/exec.c@5.1."""
    old_start, old_end = vma.start, vma.end
    new_end = old_end - shift
    vma.start = old_start - shift  # both places, under the old page offset
    mm.unaccounted = shift
    length = old_end - old_start
    if move_page_tables(kernel, mm, vma, old_start, vma.start, length) < length:
        raise TaskKilledError
    mm.page_tables.free_range(max(old_start, new_end), old_end, new_end, 0)
    vma.end = new_end
    mm.unaccounted = 0
