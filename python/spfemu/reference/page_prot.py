"""What the PTEs of a VMA allow."""

from __future__ import annotations

from spfemu.profiles import Arch
from spfemu.reference.mm import Mm
from spfemu.reference.model import (
    VM_ACCESS,
    VM_EXEC,
    VM_HUGETLB,
    VM_SHARED,
    VM_SOFTDIRTY,
    VM_WRITE,
    Protection,
    Vma,
)


def vm_page_prot(mm: Mm, vma: Vma) -> Protection:
    """What a fresh PTE in this VMA allows (vma->vm_page_prot).

    Write permission is in it only for shared mappings whose file does not ask to be notified of
    writes; everywhere else the first write has to fault. Permission to write or execute brings
    permission to read, except for execute alone on an arch that has execute-only mappings.

    **Source:** vma_set_page_prot() and vma_wants_writenotify(), mm/mmap.c@5.1; protection_map of
    arch/{x86,powerpc,arm64}@5.1.
    """
    access = vma.flags & VM_ACCESS
    readable = access & ~VM_EXEC if mm.arch.exec_only else access
    writable = _is_shared_writable(vma) and not (_has_page_mkwrite(vma) or vma.tracked)
    return Protection(bool(readable), writable, bool(access & VM_EXEC))


def set_page_prot(mm: Mm, vma: Vma) -> None:
    """vma_set_page_prot(): lets vm_page_prot follow whether writes are tracked from now on."""
    vma.tracked = _is_tracked(mm, vma)


def is_told_of_writes(vma: Vma) -> bool:
    """Whether a file has to be told of the first write to a page of this mapping.

    To mprotect no other mapping wants that, not even one whose soft-dirty pages are tracked: it
    asks with the protection from before, which its new flags never give.

    **Source:** mprotect_fixup() and vma_wants_writenotify()@5.1.
    """
    return _is_shared_writable(vma) and _has_page_mkwrite(vma)


def _has_page_mkwrite(vma: Vma) -> bool:
    return vma.vm_ops is not None and vma.vm_ops.page_mkwrite


def _is_tracked(mm: Mm, vma: Vma) -> bool:
    return has_soft_dirty(mm.arch) and not vma.flags & (VM_SOFTDIRTY | VM_HUGETLB)


def has_soft_dirty(arch: Arch) -> bool:
    """CONFIG_MEM_SOFT_DIRTY, which 5.1 has for x86 and Book3S, not for arm64."""
    return arch.family != "arm64"


def _is_shared_writable(vma: Vma) -> bool:
    return vma.flags & (VM_SHARED | VM_WRITE) == (VM_SHARED | VM_WRITE)
