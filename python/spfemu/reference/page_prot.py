"""What the PTEs of a VMA allow."""

from __future__ import annotations

from spfemu.reference.mm import Mm
from spfemu.reference.model import VM_ACCESS, VM_EXEC, VM_SHARED, VM_WRITE, Protection, Vma


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
    writable = _is_shared_writable(vma) and not wants_writenotify(vma)
    return Protection(bool(readable), writable, bool(access & VM_EXEC))


def wants_writenotify(vma: Vma) -> bool:
    """Whether the file has to be told of the first write to a page of this mapping."""
    return _is_shared_writable(vma) and vma.vm_ops is not None and vma.vm_ops.page_mkwrite


def _is_shared_writable(vma: Vma) -> bool:
    return vma.flags & (VM_SHARED | VM_WRITE) == (VM_SHARED | VM_WRITE)
