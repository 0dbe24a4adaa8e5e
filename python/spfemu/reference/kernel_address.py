"""Accesses beyond user space: what each arch makes of them before a fault is counted."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING

from spfemu.reference.model import ADDRESS_MASK

if TYPE_CHECKING:
    from spfemu.profiles import Arch

SEGV_MAPERR, SEGV_BNDERR, SI_KERNEL = 1, 3, 128
"""Signal codes. Source: include/uapi/asm-generic/siginfo.h@5.1."""


def is_users(arch: Arch, address: int) -> bool:
    """Whether the fault handler takes an address for a user's, mapped or not.

    On x86 that ends a page below the middle of the table, which can be above where mmap ends
    (5 levels). **Source:** TASK_SIZE_MAX x86, TASK_SIZE arm64, DEFAULT_MAP_WINDOW powerpc, @5.1.
    """
    end = arch.task_size
    if arch.family == "x86":
        end = max(end, _half(arch) - arch.page_size)
    return address < end


def exception(arch: Arch, address: int) -> tuple[int, int] | None:
    """The signal and code of a user's access to an address that is none of a user's.

    None: it is a page fault as any other outside the mappings, and counted.

    **Source:** do_kern_addr_fault() and do_general_protection() x86, do_translation_fault() arm64,
    do_slb_fault() and do_bad_slb_fault() powerpc (hash MMU), @5.1.
    """
    code = SEGV_MAPERR
    if arch.family == "x86" and _half(arch) <= address < ADDRESS_MASK + 1 - _half(arch):
        code = SI_KERNEL  # not canonical: no page fault but a general protection fault
    elif arch.family == "powerpc":
        if _has_kernel_segment(arch, address):
            return None
        code = SEGV_BNDERR
    return signal.SIGSEGV, code


def _half(arch: Arch) -> int:
    """The middle of what the page table covers."""
    return arch.levels[0].entries << arch.levels[0].shift >> 1


def _has_kernel_segment(arch: Arch, address: int) -> bool:
    """Linear mapping, vmalloc and vmemmap, each with MAX_EA_BITS_PER_CONTEXT bits."""
    region, offset = address >> 60, address & ((1 << 60) - 1)
    return region in (0xC, 0xD, 0xF) and offset < 1 << (49 if arch.page_shift == 16 else 46)
