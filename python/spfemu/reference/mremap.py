"""mremap: growing, shrinking and moving mappings, and the page tables that move with them."""

from __future__ import annotations

import errno

from spfemu.program.ops import MREMAP_FLAGS
from spfemu.reference.huge_split import split_huge_pmd
from spfemu.reference.kernel import Kernel
from spfemu.reference.ksm import unmerge
from spfemu.reference.mm import Mm
from spfemu.reference.mmap import get_unmapped_area
from spfemu.reference.model import (
    ADDRESS_MASK,
    VM_ACCOUNT,
    VM_HUGETLB,
    VM_LOCKED,
    VM_SHARED,
    VM_UFFD_MISSING,
    OutOfFramesError,
    Pte,
    SyscallError,
    Vma,
)
from spfemu.reference.munmap import munmap
from spfemu.reference.populate import mm_populate
from spfemu.reference.vma_ops import vma_merge

_MAYMOVE = MREMAP_FLAGS["maymove"]
_FIXED = MREMAP_FLAGS["fixed"]


def mremap(
    kernel: Kernel,
    mm: Mm,
    addr: int,
    old_length: int,
    new_length: int,
    flags: int = 0,
    new_addr: int = 0,
) -> int:
    """Changes the length of a mapping, and its place if it may; returns the address.

    An equal length without `fixed` does nothing at all, whatever is there or is not.

    **Source:** sys_mremap, mm/mremap.c@5.1. `dontunmap` came with 5.7: here it is EINVAL, like any
    flag that 5.1 does not know.
    """
    if flags & ~(_MAYMOVE | _FIXED) or flags == _FIXED or mm.is_unaligned(addr):
        raise SyscallError(errno.EINVAL)
    old_length, new_length = mm.page_align(old_length), mm.page_align(new_length)
    if not new_length:
        raise SyscallError(errno.EINVAL)
    if "nothing" in kernel.newer and not _is_mapped(mm, addr):
        raise SyscallError(errno.EFAULT)
    if flags & _FIXED:
        if old_length == new_length and "several" in kernel.newer:
            return _mremap_several(kernel, mm, addr, old_length, new_addr)
        return _mremap_to(kernel, mm, addr, old_length, new_addr, new_length)
    if old_length >= new_length:
        if old_length > new_length:
            munmap(kernel, mm, (addr + new_length) & ADDRESS_MASK, old_length - new_length)
        return addr
    vma = _vma_to_resize(mm, addr, old_length, new_length)
    if old_length == vma.end - addr and _can_grow(kernel, mm, vma, new_length - old_length):
        _expand_in_place(kernel, mm, vma, new_length - old_length)
        _populate_growth(kernel, mm, addr, old_length, new_length)
        return addr
    if not flags & _MAYMOVE:
        raise SyscallError(errno.ENOMEM)
    new_addr = get_unmapped_area(kernel, mm, 0, new_length, fixed=False)
    _move_vma(kernel, mm, vma, addr, old_length, new_length, new_addr)
    _populate_growth(kernel, mm, new_addr, old_length, new_length)
    return new_addr


def _is_mapped(mm: Mm, addr: int) -> bool:
    vma = mm.find_vma(addr)
    return vma is not None and vma.start <= addr


def _populate_growth(kernel: Kernel, mm: Mm, addr: int, old_length: int, new_length: int) -> None:
    """Brings in what locked memory has grown by."""
    vma = mm.find_vma(addr)
    if vma is not None and vma.flags & VM_LOCKED and new_length > old_length:
        mm_populate(kernel, mm, addr + old_length, new_length - old_length)


def _mremap_to(
    kernel: Kernel, mm: Mm, addr: int, old_length: int, new_addr: int, new_length: int
) -> int:
    """Moves to a given address. What was there goes first, and stays gone if the rest fails.

    **Source:** mremap_to(), mm/mremap.c@5.1.
    """
    _check_places(mm, addr, old_length, new_addr, new_length)
    # Unmapping may cut VMAs in three at both places, and moving needs some more.
    if mm.map_count + 2 >= kernel.sysctl["vm.max_map_count"] - 3:
        raise SyscallError(errno.ENOMEM)
    munmap(kernel, mm, new_addr, new_length)
    if old_length > new_length:
        munmap(kernel, mm, (addr + new_length) & ADDRESS_MASK, old_length - new_length)
        old_length = new_length
    vma = _vma_to_resize(mm, addr, old_length, new_length)
    get_unmapped_area(kernel, mm, new_addr, new_length, fixed=True)
    _move_vma(kernel, mm, vma, addr, old_length, new_length, new_addr)
    _populate_growth(kernel, mm, new_addr, old_length, new_length)
    return new_addr


def _check_places(mm: Mm, addr: int, old_length: int, new_addr: int, new_length: int) -> None:
    """Lets the new place be one that user space has, and apart from the old one."""
    task_size = mm.arch.task_size
    if mm.is_unaligned(new_addr) or new_length > task_size or new_addr > task_size - new_length:
        raise SyscallError(errno.EINVAL)
    end, new_end = (addr + old_length) & ADDRESS_MASK, new_addr + new_length
    if end > new_addr and new_end > addr:
        raise SyscallError(errno.EINVAL)


def _mremap_several(kernel: Kernel, mm: Mm, addr: int, length: int, new_addr: int) -> int:
    """Moves what a range has of every VMA, and leaves the holes between them as wide as they are.

    What an error finds done stays done. A private mapping of /dev/zero chooses its own places, and
    one with userfaultfd tells of a move: these are moved alone or not at all.

    **Source:** remap_move(), since 6.17.
    """
    _check_places(mm, addr, length, new_addr, length)
    at, end = addr, addr + length
    while (vma := mm.find_vma(at)) is not None and vma.start < end:
        start, stop = max(at, vma.start), min(vma.end, end)
        is_alone = at == start == addr and stop == end
        chooses = vma.file is not None and vma.file.kind == "devzero"
        if (at == addr < start) or ((chooses or vma.flags & VM_UFFD_MISSING) and not is_alone):
            raise SyscallError(errno.EFAULT)
        _mremap_to(kernel, mm, start, stop - start, new_addr + start - addr, stop - start)
        at = stop
    if at == addr:
        raise SyscallError(errno.EFAULT)
    return new_addr


def _vma_to_resize(mm: Mm, addr: int, old_length: int, new_length: int) -> Vma:
    """The VMA that holds all of the old range. **Source:** vma_to_resize(), mm/mremap.c@5.1."""
    vma = mm.find_vma(addr)
    if vma is None or vma.start > addr:
        raise SyscallError(errno.EFAULT)
    if old_length == 0 and not vma.flags & VM_SHARED:  # a second mapping of private memory
        raise SyscallError(errno.EINVAL)
    if vma.flags & VM_HUGETLB:
        raise SyscallError(errno.EINVAL)
    if old_length > vma.end - addr:
        raise SyscallError(errno.EFAULT)
    return vma


def _expand_in_place(kernel: Kernel, mm: Mm, vma: Vma, delta: int) -> None:
    """Lets the VMA end later. It merges with nobody, even if it now could; since 5.19 it does."""
    if "grown" in kernel.newer:
        start, end = vma.end, vma.end + delta
        pgoff = vma.pgoff + ((start - vma.start) >> mm.arch.page_shift)
        what = vma.flags, vma.anon_vma, vma.file, pgoff, vma.policy
        if vma_merge(mm, vma, start, end, *what) is not None:
            return
    vma.end += delta


def _can_grow(kernel: Kernel, mm: Mm, vma: Vma, delta: int) -> bool:
    """Whether the VMA can end so much later where it is. **Source:** vma_expandable()@5.1."""
    end = vma.end + delta
    if end > ADDRESS_MASK or mm.overlapping(vma.end, end):
        return False
    try:
        get_unmapped_area(kernel, mm, vma.start, end - vma.start, fixed=True)
    except SyscallError:
        return False
    return True


def _move_vma(
    kernel: Kernel,
    mm: Mm,
    vma: Vma,
    old_addr: int,
    old_length: int,
    new_length: int,
    new_addr: int,
) -> None:
    """Moves [old_addr, old_addr + old_length) of a VMA to a free place and unmaps what it leaves.

    If memory for page tables ends half way, everything moves back and the new place is unmapped.
    What is left of the VMA is hidden from the accounting meanwhile, by taking VM_ACCOUNT away.

    **Source:** move_vma(), mm/mremap.c@5.1.
    """
    if mm.map_count >= kernel.sysctl["vm.max_map_count"] - 3:
        raise SyscallError(errno.ENOMEM)
    unmerge(kernel, mm, vma, old_addr, old_addr + old_length)
    pgoff = vma.pgoff + ((old_addr - vma.start) >> mm.arch.page_shift)
    vma, new_vma = _copy_vma(mm, vma, new_addr, new_length, pgoff)
    moved = move_page_tables(kernel, mm, vma, old_addr, new_addr, old_length)
    failed = moved < old_length
    if failed:
        move_page_tables(kernel, mm, new_vma, new_addr, old_addr, moved)
        vma, old_addr, old_length = new_vma, new_addr, new_length
    else:
        new_vma.flags &= ~VM_UFFD_MISSING  # mremap_userfaultfd_prep(), without the event
    charged = vma.flags & VM_ACCOUNT
    vma.flags &= ~VM_ACCOUNT
    below, above = old_addr - vma.start, vma.end - (old_addr + old_length)
    try:
        munmap(kernel, mm, old_addr, old_length)
    except SyscallError:  # also for a length of 0: a second mapping leaves the first one
        pass
    else:
        if below or above:
            vma.flags |= charged
        if below and above:
            rest = mm.next(vma)
            assert rest is not None, "it was cut in three, and the middle is gone"
            rest.flags |= charged
    if failed:
        raise SyscallError(errno.ENOMEM)


def _copy_vma(mm: Mm, vma: Vma, addr: int, length: int, pgoff: int) -> tuple[Vma, Vma]:
    """A VMA at a free place that is like `vma`; returns what now has the source, and it.

    Untouched anonymous memory gets the offset that fits its new place, as if it had been mapped
    there. So it can merge with its neighbours there, even with the very one it comes from.

    **Source:** copy_vma(), mm/mmap.c@5.1.
    """
    if vma.vm_ops is None and vma.anon_vma is None:
        pgoff = addr >> mm.arch.page_shift
    source = vma.start
    _, prev = mm.find_vma_prev(addr)
    merged = vma_merge(
        *(mm, prev, addr, addr + length, vma.flags, vma.anon_vma, vma.file, pgoff, vma.policy)
    )
    if merged is not None:
        if merged.anon_vma is None and vma.anon_vma is not None:  # not before 6.16
            merged.anon_vma, merged.anon_vma_chain = vma.anon_vma, list(vma.anon_vma_chain)
        return merged if merged.start <= source < merged.end else vma, merged
    copy = vma.duplicate()
    copy.anon_vma_chain = list(vma.anon_vma_chain)
    copy.start, copy.end, copy.pgoff = addr, addr + length, pgoff
    mm.link(copy)
    return vma, copy


def move_page_tables(
    kernel: Kernel, mm: Mm, vma: Vma, old_addr: int, new_addr: int, length: int
) -> int:
    """Moves all that a range of a VMA maps; returns how many bytes were done before memory ended.

    The new place gets a PTE table for each one that the old place has, even an empty one. A huge
    page moves as one if the new place can hold it, else it is split.

    **Source:** move_page_tables(), mm/mremap.c@5.1.
    """
    tables = mm.page_tables
    for start, stop in tables.table_ranges(old_addr, old_addr + length):
        while start < stop:
            target = start - old_addr + new_addr
            try:
                tables.allocate_upper(target)
                if tables.leaf(start) is not None:
                    if tables.move_leaf(start, stop, target):
                        break
                    split_huge_pmd(mm, vma, start)
                elif kernel.have_move_pmd and tables.move_table(start, stop, target):
                    break
                tables.allocate(target)
            except OutOfFramesError:
                return start - old_addr
            piece = min(stop - start, tables.pmd_size - target % tables.pmd_size)
            for address, pte in list(tables.entries(start, start + piece)):
                tables.clear(address)
                if isinstance(pte, Pte):  # move_soft_dirty_pte()
                    pte = pte._replace(soft_dirty=True)
                tables.store(address - start + target, pte)
            start += piece
    return length
