"""mprotect and madvise: calls that change the flags of VMAs, and split and merge them for it."""

from __future__ import annotations

import errno
from collections.abc import Callable

from spfemu.program.ops import ADVICES
from spfemu.reference.huge_pages import change_huge_pmds
from spfemu.reference.hugetlb import change_hugetlb_protection, is_hugetlb
from spfemu.reference.kernel import Kernel
from spfemu.reference.ksm import mergeable_flags, unmerge
from spfemu.reference.mm import Mm
from spfemu.reference.model import (
    ADDRESS_MASK,
    VM_ACCESS,
    VM_ACCOUNT,
    VM_DONTCOPY,
    VM_DONTDUMP,
    VM_HUGEPAGE,
    VM_HUGETLB,
    VM_LOCKED,
    VM_MERGEABLE,
    VM_NOHUGEPAGE,
    VM_NORESERVE,
    VM_RAND_READ,
    VM_SEQ_READ,
    VM_SHARED,
    VM_SOFTDIRTY,
    VM_WIPEONFORK,
    VM_WRITE,
    Mempolicy,
    Protection,
    Pte,
    SyscallError,
    Vma,
)
from spfemu.reference.page_advice import ABOUT_PAGES, advise_pages
from spfemu.reference.page_prot import (
    has_soft_dirty,
    is_told_of_writes,
    set_page_prot,
    vm_page_prot,
)
from spfemu.reference.populate import madvise_populate, populate_quietly
from spfemu.reference.vma_ops import split_vma, vma_merge

_ADVICE_FLAGS: dict[str, tuple[int, int]] = {
    "normal": (VM_RAND_READ | VM_SEQ_READ, 0),
    "sequential": (VM_RAND_READ, VM_SEQ_READ),
    "random": (VM_SEQ_READ, VM_RAND_READ),
    "dontfork": (0, VM_DONTCOPY),
    "dofork": (VM_DONTCOPY, 0),
    "wipeonfork": (0, VM_WIPEONFORK),
    "keeponfork": (VM_WIPEONFORK, 0),
    "dontdump": (0, VM_DONTDUMP),
    "dodump": (VM_DONTDUMP, 0),
    "hugepage": (VM_NOHUGEPAGE, VM_HUGEPAGE),
    "nohugepage": (VM_HUGEPAGE, VM_NOHUGEPAGE),
    "unmergeable": (VM_MERGEABLE, 0),
}
"""Advice to the flags it clears and sets. Source: madvise_behavior(), mm/madvise.c@5.1."""


def mprotect(kernel: Kernel, mm: Mm, start: int, length: int, prot: int) -> None:
    """Sets the protection, VMA by VMA; what an error finds done stays done.

    **Source:** do_mprotect_pkey(), mm/mprotect.c@5.1.
    """
    if mm.is_unaligned(start):
        raise SyscallError(errno.EINVAL)
    if length == 0:
        return
    end = start + mm.page_align(length)
    if end > ADDRESS_MASK or end == start:
        raise SyscallError(errno.ENOMEM)
    for_each_part(
        mm,
        start,
        end,
        lambda vma, prev, at, stop: _mprotect_fixup(kernel, mm, vma, prev, at, stop, prot),
    )


def for_each_part(
    mm: Mm, start: int, end: int, fixup: Callable[[Vma, Vma | None, int, int], Vma]
) -> None:
    """Goes through [start, end) VMA by VMA, as mprotect and mlock do; ENOMEM at a hole.

    `fixup` gets a VMA, the one before it and the part that is in it; it returns the VMA that holds
    the part afterwards, which a merge may have taken further than asked.
    """
    vma, prev = mm.find_vma_prev(start)
    if vma is None or vma.start > start:
        raise SyscallError(errno.ENOMEM)
    if start > vma.start:
        prev = vma
    while True:
        stop = min(vma.end, end)
        prev = fixup(vma, prev, start, stop)
        start = max(stop, prev.end)
        if start >= end:
            return
        following = mm.next(prev)
        if following is None or following.start != start:
            raise SyscallError(errno.ENOMEM)
        vma = following


def _mprotect_fixup(
    kernel: Kernel, mm: Mm, vma: Vma, prev: Vma | None, start: int, end: int, prot: int
) -> Vma:
    """Gives [start, end) of a VMA its new protection; returns the VMA that now has it.

    Making private memory writable charges it (VM_ACCOUNT), and nothing takes that back: so a
    mapping that was writable once does not merge with one that never was. (Since 6.7 it is taken
    back from memory that nobody has touched.)

    **Source:** mprotect_fixup(), mm/mprotect.c@5.1.
    """
    old_flags = vma.flags
    flags = old_flags & ~VM_ACCESS | prot
    if flags == old_flags:
        return vma
    uncharged = not vma.flags & (VM_ACCOUNT | VM_WRITE | VM_SHARED | VM_NORESERVE | VM_HUGETLB)
    is_untouched = vma.vm_ops is None and vma.anon_vma is None
    if flags & VM_WRITE and uncharged:
        flags |= VM_ACCOUNT
    elif "uncharged" in kernel.newer and is_untouched and not flags & VM_WRITE:
        flags &= ~VM_ACCOUNT
    vma = merge_or_split(kernel, mm, vma, prev, start, end, flags, vma.policy)
    vma.flags = flags
    set_page_prot(mm, vma)
    change_protection(mm, vma, start, end)
    if "writable" in kernel.newer and flags & (VM_WRITE | VM_SHARED) == VM_WRITE:
        _make_exclusive_writable(mm, start, end)
    if old_flags & (VM_WRITE | VM_SHARED | VM_LOCKED) == VM_LOCKED and flags & VM_WRITE:
        populate_quietly(kernel, mm, vma, start, end)  # the copies that writes would make
    return vma


def merge_or_split(
    kernel: Kernel,
    mm: Mm,
    vma: Vma,
    prev: Vma | None,
    start: int,
    end: int,
    flags: int,
    policy: Mempolicy | None,
) -> Vma:
    """Makes [start, end) of a VMA one that can have `flags` and `policy`.

    It is a neighbour that has them already, or what is cut out of the VMA.
    """
    pgoff = vma.pgoff + ((start - vma.start) >> mm.arch.page_shift)
    merged = vma_merge(mm, prev, start, end, flags, vma.anon_vma, vma.file, pgoff, policy)
    if merged is not None:
        return merged
    if start != vma.start:
        _check_map_count(kernel, mm)
        split_vma(mm, vma, start, new_below=True)
    if end != vma.end:
        _check_map_count(kernel, mm)
        split_vma(mm, vma, end, new_below=False)
    return vma


def _check_map_count(kernel: Kernel, mm: Mm) -> None:
    if mm.map_count >= kernel.sysctl["vm.max_map_count"]:
        raise SyscallError(errno.ENOMEM)


def change_protection(mm: Mm, vma: Vma, start: int, end: int) -> None:
    """Gives present PTEs the VMA's protection. **Source:** change_pte_range()@5.1.

    The new protection lets private pages be read at most, so a write faults again even if the page
    was writable before. A dirty page of a file that is notified of writes stays writable: its
    notification has been sent; but not if soft-dirty tracking began since, and has ended. (Where it
    is at work, 5.1 looks at the wrong flag, and lets the page be writable.)
    """
    if is_hugetlb(vma):
        change_hugetlb_protection(mm, vma, start, end)
        return
    change_huge_pmds(mm, vma, start, end)
    protection = vm_page_prot(mm, vma)
    notified = is_told_of_writes(vma)
    tracked = has_soft_dirty(mm.arch) and bool(vma.flags & VM_SOFTDIRTY)
    for address, pte in list(mm.page_tables.present(start, end)):
        known = pte.dirty and (pte.soft_dirty or not tracked)
        mm.page_tables.store(address, _modified(pte, protection, known=notified and known))


def _make_exclusive_writable(mm: Mm, start: int, end: int) -> None:
    """Spares private pages that are nobody else's the next write's fault.

    **Source:** can_change_private_pte_writable(), since 6.1.
    """
    for address, pte in list(mm.page_tables.present(start, end)):
        if pte.page.anonymous and pte.page.exclusive:
            mm.page_tables.store(
                address, pte._replace(protection=pte.protection._replace(write=True))
            )


def _modified(pte: Pte, protection: Protection, *, known: bool) -> Pte:
    if known:
        protection = protection._replace(write=True)
    return pte._replace(protection=protection, hinted=False)


def madvise(kernel: Kernel, mm: Mm, start: int, length: int, advice: int) -> None:
    """Advises, VMA by VMA; holes are skipped and give ENOMEM at the end.

    **Source:** sys_madvise, mm/madvise.c@5.1.
    """
    if ADVICES[advice] in ("hugepage", "nohugepage") and not kernel.thp_config:
        raise SyscallError(errno.EINVAL)
    if mm.is_unaligned(start):
        raise SyscallError(errno.EINVAL)
    aligned = mm.page_align(length)
    if length and not aligned:
        raise SyscallError(errno.EINVAL)
    end = start + aligned
    if end > ADDRESS_MASK:
        raise SyscallError(errno.EINVAL)
    if end == start:
        return
    if ADVICES[advice].startswith("populate"):
        madvise_populate(kernel, mm, start, end, write=ADVICES[advice] == "populate_write")
        return
    unmapped = False
    vma, prev = mm.find_vma_prev(start)
    if vma is not None and start > vma.start:
        prev = vma
    while True:
        if vma is None:
            raise SyscallError(errno.ENOMEM)
        if start < vma.start:
            unmapped = True
            start = vma.start
            if start >= end:
                raise SyscallError(errno.ENOMEM)
        stop = min(vma.end, end)
        prev = _madvise_vma(kernel, mm, vma, prev, start, stop, ADVICES[advice])
        start = max(stop, prev.end)
        if start >= end:
            break
        vma = mm.next(prev)
    if unmapped:
        raise SyscallError(errno.ENOMEM)


def _madvise_vma(
    kernel: Kernel, mm: Mm, vma: Vma, prev: Vma | None, start: int, end: int, advice: str
) -> Vma:
    """Advises about [start, end) of one VMA; returns the VMA that the range is in afterwards."""
    if advice in ABOUT_PAGES:
        advise_pages(kernel, mm, vma, start, end, advice)
        return vma
    if advice == "wipeonfork" and (vma.file is not None or vma.flags & VM_SHARED):
        raise SyscallError(errno.EINVAL)
    if advice == "unmergeable":
        try:
            unmerge(kernel, mm, vma, start, end)
        except SyscallError:
            raise SyscallError(errno.EAGAIN) from None
    if advice == "mergeable":
        flags = mergeable_flags(vma.flags)
    else:
        cleared, added = _ADVICE_FLAGS[advice]
        flags = vma.flags & ~cleared | added
    if flags == vma.flags:
        return vma
    vma = merge_or_split(kernel, mm, vma, prev, start, end, flags, vma.policy)
    vma.flags = flags
    return vma
