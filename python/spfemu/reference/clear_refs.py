"""clear_refs: what /proc/PID/clear_refs does, so that one can see what is used from now on."""

from __future__ import annotations

import errno

from spfemu.reference.mm import Mm
from spfemu.reference.model import VM_HUGETLB, VM_SOFTDIRTY, ZERO_PAGE, SyscallError, Vma
from spfemu.reference.page_prot import has_soft_dirty, set_page_prot

_ALL, _ANON, _MAPPED, _SOFT_DIRTY, _HIGHEST_RSS = range(1, 6)


def clear_refs(mm: Mm, what: int) -> None:
    """Makes all pages old, or makes the next write to each fault, so that it is known.

    **Source:** clear_refs_write(), fs/proc/task_mmu.c@5.1.
    """
    if what in (_ALL, _ANON, _MAPPED):
        vmas = _without_hugetlb(mm)
        if what != _ALL:
            vmas = [vma for vma in vmas if (vma.file is not None) == (what == _MAPPED)]
        _make_old(mm, vmas)
    elif what not in (_SOFT_DIRTY, _HIGHEST_RSS):
        raise SyscallError(errno.EINVAL)
    elif what == _SOFT_DIRTY and has_soft_dirty(mm.arch):
        if any(vma.flags & VM_SOFTDIRTY for vma in mm.vmas):
            for vma in mm.vmas:
                vma.flags &= ~VM_SOFTDIRTY
                set_page_prot(mm, vma)
        _track_writes(mm)


def _without_hugetlb(mm: Mm) -> list[Vma]:
    return [vma for vma in mm.vmas if not vma.flags & VM_HUGETLB]


def _make_old(mm: Mm, vmas: list[Vma]) -> None:
    tables = mm.page_tables
    for vma in vmas:
        for address, pte in list(tables.present(vma.start, vma.end)):
            if pte.page is not ZERO_PAGE:
                tables.store(address, pte._replace(young=False))
        for address in tables.leaves(vma.start, vma.end):
            tables.map_huge(address, tables.huge_at(address)._replace(young=False))


def _track_writes(mm: Mm) -> None:
    tables = mm.page_tables
    for vma in _without_hugetlb(mm):
        for address, pte in list(tables.present(vma.start, vma.end)):
            protection = pte.protection._replace(write=False)
            tables.store(address, pte._replace(protection=protection, soft_dirty=False))
        for address in tables.leaves(vma.start, vma.end):
            leaf = tables.huge_at(address)
            protection = leaf.protection._replace(write=False)
            tables.map_huge(address, leaf._replace(protection=protection))
