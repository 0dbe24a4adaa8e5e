"""VMAs merge, split, and share an anon_vma: the rules of mm/mmap.c and mm/rmap.c in Linux 5.1.

Whether two mappings merge, and whether the merged one has an `anon_vma`, decides whether the
faults in it can be speculative at all (SPF_V12 3.2, H4), so these rules are kept to the letter.
"""

from __future__ import annotations

import errno

from spfemu.reference.huge_split import split_at
from spfemu.reference.mm import Mm
from spfemu.reference.model import (
    VM_ACCESS,
    VM_HUGETLB,
    VM_SOFTDIRTY,
    AnonVma,
    File,
    Mempolicy,
    SyscallError,
    Vma,
)
from spfemu.reference.protection_keys import has_pkey


def vma_merge(
    mm: Mm,
    prev: Vma | None,
    start: int,
    end: int,
    flags: int,
    anon_vma: AnonVma | None,
    file: File | None,
    pgoff: int,
    policy: Mempolicy | None = None,
) -> Vma | None:
    """Lets the neighbours take over [start, end), which is free or is to have these attributes.

    `prev` is the VMA before `start`, or the one that contains it. The answer is the VMA that now
    covers the range, None if nobody wants it; then nothing has changed.

    **Source:** vma_merge(), mm/mmap.c@5.1. Its eight cases are named below by their numbers there.
    """
    if flags & VM_HUGETLB:  # VM_DONTEXPAND, one of VM_SPECIAL
        return None
    area = mm.after(prev)
    next_ = area
    if area is not None and area.end == end:  # cases 6, 7, 8: `area` would vanish altogether
        next_ = mm.next(area)
    end_pgoff = pgoff + ((end - start) >> mm.arch.page_shift)
    with_next = (
        next_ is not None
        and next_.start == end
        and next_.pgoff == end_pgoff
        and _mergeable(mm, next_, flags, anon_vma, file, policy)
    )
    if (
        prev is not None
        and prev.end == start
        and prev.pgoff + ((prev.end - prev.start) >> mm.arch.page_shift) == pgoff
        and _mergeable(mm, prev, flags, anon_vma, file, policy)
    ):
        if with_next and next_ is not None and _anon_vmas_agree(prev.anon_vma, next_.anon_vma):
            return _expand(mm, prev, prev.start, next_.end)  # cases 1 and 6
        return _expand(mm, prev, prev.start, end)  # cases 2, 5 and 7
    if with_next and next_ is not None:
        return _expand(mm, next_, start, next_.end)  # cases 3, 4 and 8
    return None


def _mergeable(
    mm: Mm,
    neighbour: Vma,
    flags: int,
    anon_vma: AnonVma | None,
    file: File | None,
    policy: Mempolicy | None,
) -> bool:
    """can_vma_merge_before/after() without the offsets: all the same, and agreeing anon_vmas.

    If one side has no anon_vma they agree only when the *neighbour* has exactly one link: a VMA
    that came through a fork has more, and one that was never touched has none. So a touched range
    does not merge into an untouched neighbour, while an untouched range merges into a touched one.
    Since 6.16 it is all the same which of the two was touched: is_mergeable_anon_vma(), mm/vma.c.
    """
    if (neighbour.flags ^ flags) & ~VM_SOFTDIRTY or neighbour.policy != policy:
        return False
    if neighbour.file is not file:
        return False
    if neighbour.anon_vma is anon_vma:
        return True
    one_has_none = neighbour.anon_vma is None or anon_vma is None
    if "touched" in mm.newer:
        only = neighbour.anon_vma or anon_vma
        return one_has_none and only is not None and not only.forked
    return one_has_none and len(neighbour.anon_vma_chain) == 1


def _anon_vmas_agree(one: AnonVma | None, other: AnonVma | None) -> bool:
    """is_mergeable_anon_vma() without a VMA: whether both ends of a filled gap can be one VMA."""
    return one is other or one is None or other is None


def _expand(mm: Mm, survivor: Vma, start: int, end: int) -> Vma:
    """Lets `survivor` grow to [start, end): who is inside goes, who is partly inside shrinks.

    A survivor without an anon_vma takes over that of the first VMA it grows into that has one, for
    it may be getting that one's pages.

    **Source:** __vma_adjust(), mm/mmap.c@5.1, without `insert`.
    """
    shift = mm.arch.page_shift
    eaten = [vma for vma in mm.overlapping(start, end) if vma is not survivor]
    exporter = next((vma for vma in eaten if vma.anon_vma is not None), None)
    if survivor.anon_vma is None and exporter is not None:
        survivor.anon_vma = exporter.anon_vma
        survivor.anon_vma_chain = list(exporter.anon_vma_chain)
    for vma in eaten:
        if start <= vma.start and vma.end <= end:
            mm.unlink(vma)
        elif vma.start < start:  # case 4: the one below loses its tail
            split_at(mm, vma, start)
            vma.end = start
        else:  # case 5: the one above loses its head
            split_at(mm, vma, end)
            vma.pgoff += (end - vma.start) >> shift
            vma.start = end
    survivor.pgoff -= (survivor.start - start) >> shift
    survivor.start, survivor.end = start, end
    return survivor


def split_vma(mm: Mm, vma: Vma, address: int, *, new_below: bool) -> None:
    """Cuts a VMA in two at `address`; `vma` stays the upper half if the new one is below.

    Both halves have the anon_vma. A huge page across the cut is split; a hugetlb mapping is only
    cut between its pages. The limit on the number of VMAs is the caller's to check.

    **Source:** __split_vma(), mm/mmap.c@5.1.
    """
    if vma.flags & VM_HUGETLB and address % mm.page_tables.pmd_size:  # hugetlb_vm_op_split()
        raise SyscallError(errno.EINVAL)
    split_at(mm, vma, address)
    new = vma.duplicate()
    new.anon_vma_chain = list(vma.anon_vma_chain)
    pages_below = (address - vma.start) >> mm.arch.page_shift
    if new_below:
        new.end = vma.start = address
        vma.pgoff += pages_below
    else:
        new.start = vma.end = address
        new.pgoff += pages_below
    mm.link(new)


def anon_vma_prepare(mm: Mm, vma: Vma) -> None:
    """Gives the VMA an anon_vma: a neighbour's if they could ever merge, else a new one.

    **Source:** __anon_vma_prepare(), mm/rmap.c@5.1.
    """
    prepare_between(mm, vma, mm.prev(vma), mm.next(vma))


def prepare_between(mm: Mm, vma: Vma, prev: Vma | None, following: Vma | None) -> None:
    """`anon_vma_prepare` with the neighbours told. At a wiping fork they are the parent's."""
    if vma.anon_vma is not None:
        return
    found = None
    if following is not None and _could_merge(mm, vma, following):
        found = _reusable(following)
    if found is None and prev is not None and _could_merge(mm, prev, vma):
        found = _reusable(prev)
    vma.anon_vma = found if found is not None else AnonVma()
    vma.anon_vma_chain = [vma.anon_vma]


def _could_merge(mm: Mm, lower: Vma, upper: Vma) -> bool:
    """anon_vma_compatible(): adjacent, and alike but for what mprotect can change."""
    pages = (upper.start - lower.start) >> mm.arch.page_shift
    return (
        lower.end == upper.start
        and lower.file is upper.file
        and lower.policy == upper.policy
        and not (lower.flags ^ upper.flags) & ~(VM_ACCESS | VM_SOFTDIRTY)
        and has_pkey(mm.arch, lower) == has_pkey(mm.arch, upper)
        and upper.pgoff == lower.pgoff + pages
    )


def _reusable(vma: Vma) -> AnonVma | None:
    """reusable_anon_vma(): its anon_vma, unless it came through a fork."""
    return vma.anon_vma if len(vma.anon_vma_chain) == 1 else None


def anon_vma_fork(child: Vma, parent: Vma) -> None:
    """Links the child's copy of a VMA to all anon_vmas of the parent's and gives it one of its own.

    The kernel may re-use an emptied one of an ancestor; as no chain of several links is ever
    shared or merged across, nobody can tell.

    **Source:** anon_vma_fork(), mm/rmap.c@5.1.
    """
    child.anon_vma = None
    if parent.anon_vma is not None:
        child.anon_vma = AnonVma(forked=True)
        child.anon_vma_chain = [*parent.anon_vma_chain, child.anon_vma]
