"""What /proc/PID says of an address space: smaps, and what status has of memory."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from spfemu.reference.model import (
    SHMEM_VM_OPS,
    VM_ACCOUNT,
    VM_DONTCOPY,
    VM_DONTDUMP,
    VM_EXEC,
    VM_GROWSDOWN,
    VM_HUGEPAGE,
    VM_HUGETLB,
    VM_LOCKED,
    VM_LOCKONFAULT,
    VM_MERGEABLE,
    VM_NOHUGEPAGE,
    VM_NORESERVE,
    VM_RAND_READ,
    VM_READ,
    VM_SEQ_READ,
    VM_SHARED,
    VM_UFFD_MISSING,
    VM_WIPEONFORK,
    VM_WRITE,
    ZERO_PAGE,
    HugetlbPage,
    SwapEntry,
    Vma,
)

if TYPE_CHECKING:
    from spfemu.reference.mm import Mm

_MNEMONICS: Final = (
    *((VM_READ, "rd"), (VM_WRITE, "wr"), (VM_EXEC, "ex"), (VM_SHARED, "sh")),
    *((0, "mr"), (0, "mw"), (0, "me")),  # every file is open for all of these
    *((VM_SHARED, "ms"), (VM_GROWSDOWN, "gd"), (VM_UFFD_MISSING, "um"), (VM_LOCKED, "lo")),
    *((VM_SEQ_READ, "sr"), (VM_RAND_READ, "rr"), (VM_DONTCOPY, "dc"), (VM_HUGETLB, "de")),
    *((VM_LOCKONFAULT, "??"), (VM_ACCOUNT, "ac"), (VM_NORESERVE, "nr"), (VM_HUGETLB, "ht")),
    *((VM_WIPEONFORK, "wf"), (VM_DONTDUMP, "dd"), (VM_HUGEPAGE, "hg"), (VM_NOHUGEPAGE, "nh")),
    (VM_MERGEABLE, "mg"),
)
"""Flags in the order in which smaps names them; `sd` is left out."""


@dataclass(slots=True)
class MemSize:
    """What is mapped in a range, bytes."""

    resident: int = 0
    anonymous: int = 0
    anonymous_huge: int = 0
    shmem: int = 0
    hugetlb: int = 0
    swap: int = 0


def proc_text(mm: Mm) -> dict[str, list[str]]:
    """What /proc/PID/smaps and status say of an address space, in lines.

    **Source:** show_smap() and task_mem(), fs/proc/task_mmu.c@5.1. Of smaps without what is about
    sharing, references and dirt; of status without the highest values.
    """
    sizes = [_gather(mm, vma) for vma in mm.vmas]
    smaps: list[str] = []
    for vma, line, size in zip(mm.vmas, mm.maps(), sizes, strict=True):
        smaps += [line, *_smap(mm, vma, size)]
    return {"smaps": smaps, "status": _status(mm, sizes)}


def _gather(mm: Mm, vma: Vma) -> MemSize:
    """smap_gather_stats()@5.1. The pages of zeroes are no pages."""
    size, tables = MemSize(), mm.page_tables
    for start in tables.leaves(vma.start, vma.end):
        leaf = tables.leaf(start)
        assert leaf is not None, "it was there"
        if isinstance(leaf.page, HugetlbPage):
            size.hugetlb += tables.pmd_size
        elif leaf.page is not None:
            size.resident += tables.pmd_size
            size.anonymous += tables.pmd_size
            size.anonymous_huge += tables.pmd_size
    for _, entry in tables.entries(vma.start, vma.end):
        if isinstance(entry, SwapEntry):
            size.swap += mm.page_size
        elif entry.page is not ZERO_PAGE:
            size.resident += mm.page_size
            if entry.page.anonymous:
                size.anonymous += mm.page_size
            elif vma.vm_ops is SHMEM_VM_OPS:
                size.shmem += mm.page_size
    return size


def _smap(mm: Mm, vma: Vma, size: MemSize) -> list[str]:
    page_size = mm.page_tables.pmd_size if vma.flags & VM_HUGETLB else mm.page_size
    values = {
        "Size": vma.end - vma.start,
        "KernelPageSize": page_size,
        "MMUPageSize": page_size,
        "Rss": size.resident,
        "Anonymous": size.anonymous,
        "AnonHugePages": size.anonymous_huge,
        "Swap": size.swap,
    }
    lines = [f"{name + ':':<16}{value >> 10:>8} kB" for name, value in values.items()]
    names = [name for flag, name in _MNEMONICS if vma.flags & flag == flag]
    return [*lines, " ".join(["VmFlags:", *names])]


def _status(mm: Mm, sizes: list[MemSize]) -> list[str]:
    anonymous = sum(size.anonymous for size in sizes)
    shmem = sum(size.shmem for size in sizes)
    resident = sum(size.resident for size in sizes)
    stack_or_write = VM_GROWSDOWN | VM_WRITE
    values = {
        "VmSize": _mapped(mm, 0, 0) - mm.unaccounted,
        "VmLck": _mapped(mm, VM_LOCKED, VM_LOCKED),
        "VmRSS": resident,
        "RssAnon": anonymous,
        "RssFile": resident - anonymous - shmem,
        "RssShmem": shmem,
        "VmData": _mapped(mm, stack_or_write | VM_SHARED, VM_WRITE),
        "VmStk": _mapped(mm, VM_GROWSDOWN, VM_GROWSDOWN),
        "VmExe": 0,  # no program has code of its own
        "VmLib": _mapped(mm, stack_or_write | VM_EXEC, VM_EXEC),
        "VmPTE": mm.page_tables.size_in_bytes(),
        "VmSwap": sum(size.swap for size in sizes),
        "HugetlbPages": sum(size.hugetlb for size in sizes),
    }
    return [f"{name}:\t{value >> 10:>8} kB" for name, value in values.items()]


def _mapped(mm: Mm, among: int, flags: int) -> int:
    """How much is in VMAs that have of the flags `among` just `flags`, bytes."""
    return sum(vma.end - vma.start for vma in mm.vmas if vma.flags & among == flags)
