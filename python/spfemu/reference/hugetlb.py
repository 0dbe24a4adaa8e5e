"""hugetlb: huge pages from a pool, with reservations, mapped by files of their own kind.

A mapping reserves its pages when it is made, so that its faults find some: a shared one for the
file, a private one for the process that made it. A forked child has no reservations, and gets
SIGBUS when the pool has nothing to spare; its parent is served at the child's expense.

**Source:** mm/hugetlb.c and fs/hugetlbfs/inode.c@5.1.
"""

from __future__ import annotations

import errno
from collections.abc import Iterator

from spfemu.reference.kernel import Kernel
from spfemu.reference.mm import Mm
from spfemu.reference.model import (
    VM_HUGETLB,
    VM_NORESERVE,
    VM_SHARED,
    VM_WRITE,
    File,
    HugetlbPage,
    Leaf,
    OutOfFramesError,
    SyscallError,
    Vma,
)
from spfemu.reference.page_prot import vm_page_prot
from spfemu.reference.userfaultfd import handle_userfault, is_missing
from spfemu.reference.vm_fault import VM_FAULT_OOM, VM_FAULT_SIGBUS, Fault
from spfemu.reference.vma_ops import anon_vma_prepare


def is_hugetlb(vma: Vma) -> bool:
    """is_vm_hugetlb_page()."""
    return bool(vma.flags & VM_HUGETLB)


def _is_shared(vma: Vma) -> bool:
    return bool(vma.flags & VM_SHARED)


def _file(vma: Vma) -> File:
    assert vma.file is not None, "a hugetlb mapping has a file"
    return vma.file


def _index(mm: Mm, vma: Vma, address: int) -> int:
    """Which huge page of its file an address is in: vma_hugecache_offset()."""
    first = vma.pgoff << mm.arch.page_shift
    return (address - vma.start + first) >> mm.page_tables.pmd_shift


def _indices(mm: Mm, vma: Vma) -> range:
    return range(_index(mm, vma, vma.start), _index(mm, vma, vma.end))


# --- mapping and unmapping -----------------------------------------------------------------------


def hugetlbfs_file_mmap(kernel: Kernel, mm: Mm, vma: Vma) -> None:
    """Reserves pages for a new mapping; a writable one makes its file as long as need be."""
    file, pmd_size = _file(vma), mm.page_tables.pmd_size
    if (vma.pgoff << mm.arch.page_shift) % pmd_size:
        raise SyscallError(errno.EINVAL)
    if not vma.flags & VM_NORESERVE:
        _reserve_pages(kernel, mm, vma)
    end = (vma.pgoff << mm.arch.page_shift) + vma.end - vma.start
    if vma.flags & VM_WRITE:
        file.length = max(file.length, end)


def _reserve_pages(kernel: Kernel, mm: Mm, vma: Vma) -> None:
    """hugetlb_reserve_pages(); ENOMEM if the pool has not so many that nobody has reserved."""
    indices = _indices(mm, vma)
    if _is_shared(vma):
        missing = set(indices) - _file(vma).reserved
        kernel.hugetlb.reserve(len(missing))
        _file(vma).reserved |= missing
    else:
        kernel.hugetlb.reserve(len(indices))
        vma.consumed = set()


def close_vma(kernel: Kernel, mm: Mm, vma: Vma) -> None:
    """hugetlb_vm_op_close(): gives back what a private mapping has reserved and not used."""
    if is_hugetlb(vma) and vma.consumed is not None:
        kernel.hugetlb.reserved -= len(set(_indices(mm, vma)) - vma.consumed)


def reset_reservations(child: Vma) -> None:
    """reset_vma_resv_huge_pages(): a child's mapping has none."""
    child.consumed = None
    child.pages_lost = False


def _leaves(mm: Mm, vma: Vma, start: int, end: int) -> Iterator[tuple[int, Leaf, HugetlbPage]]:
    tables = mm.page_tables
    for address in tables.leaves(start, end) if is_hugetlb(vma) else ():
        leaf = tables.huge[address >> tables.pmd_shift]
        assert isinstance(leaf.page, HugetlbPage)
        yield address, leaf, leaf.page


def unmap_hugepage_range(kernel: Kernel, mm: Mm, vma: Vma, start: int, end: int) -> None:
    """Takes the huge pages of a range out of the page table."""
    for address, _, page in _leaves(mm, vma, start, end):
        _unmap(kernel, mm, address, page)


def _unmap(kernel: Kernel, mm: Mm, address: int, page: HugetlbPage) -> None:
    del mm.page_tables.huge[address >> mm.page_tables.pmd_shift]
    page.mappers.remove(mm)
    page.mapcount -= 1
    page.mappings -= 1
    kernel.hugetlb.put(page)


def _map(mm: Mm, address: int, leaf: Leaf, page: HugetlbPage) -> None:
    mm.page_tables.map_huge(address, leaf)
    page.mappers.append(mm)
    page.mapcount += 1
    page.mappings += 1


def change_hugetlb_protection(mm: Mm, vma: Vma, start: int, end: int) -> None:
    """hugetlb_change_protection()."""
    protection = vm_page_prot(mm, vma)
    for address, leaf, _ in list(_leaves(mm, vma, start, end)):
        mm.page_tables.map_huge(address, leaf._replace(protection=protection))


def copy_hugetlb_page_range(parent: Mm, child: Mm, vma: Vma) -> None:
    """Lets a forked child map the pages; those of private memory both may only read then.

    It gets a PMD table wherever the parent has one, and upper ones only for that.
    """
    for start, end in parent.page_tables.pmd_ranges(vma.start, vma.end):
        child.page_tables.allocate_upper(start)
        for address, found, page in list(_leaves(parent, vma, start, end)):
            leaf = found
            if not _is_shared(vma):
                leaf = leaf._replace(protection=leaf.protection._replace(write=False))
                parent.page_tables.map_huge(address, leaf)
            _map(child, address, leaf, page)


# --- faults --------------------------------------------------------------------------------------


def hugetlb_fault(fault: Fault) -> int:
    """Handles a fault in a hugetlb mapping, which is never speculative (H3)."""
    mm = fault.mm
    try:
        mm.page_tables.allocate_upper(fault.address)
    except OutOfFramesError:
        return VM_FAULT_OOM
    leaf = mm.page_tables.leaf(fault.address)
    if leaf is None:
        return hugetlb_no_page(fault)
    if fault.write and not leaf.protection.write:
        index = _index(mm, fault.vma, fault.address)
        cached = None if _is_shared(fault.vma) else _file(fault.vma).huge_pages.get(index)
        return hugetlb_cow(fault, leaf, cached)
    mm.page_tables.mark_used(fault.address, dirty=fault.write)
    return 0


def hugetlb_no_page(fault: Fault) -> int:
    """Maps the file's page, or for a private mapping a new one; a write copies at once."""
    mm, vma = fault.mm, fault.vma
    file, index = _file(vma), _index(mm, vma, fault.address)
    if vma.pages_lost:
        return VM_FAULT_SIGBUS
    if index >= file.length >> mm.page_tables.pmd_shift:
        return VM_FAULT_SIGBUS
    page = file.huge_pages.get(index)
    if page is None and is_missing(fault):
        return handle_userfault(fault, _mcopy_atomic_hugetlb)
    if page is None:
        page = _alloc_huge_page(fault, index, avoid_reserve=False)
        if page is None:
            return VM_FAULT_SIGBUS
        if _is_shared(vma):
            file.huge_pages[index] = page
            page.cached = True
        else:
            anon_vma_prepare(mm, vma)
            page.anonymous = True
    writable = _is_shared(vma) and bool(vma.flags & VM_WRITE)
    protection = fault.page_prot._replace(write=writable)
    leaf = Leaf(page, protection, dirty=writable)
    _map(mm, fault.address, leaf, page)
    if fault.write and not _is_shared(vma):
        return hugetlb_cow(fault, leaf, page)
    return 0


def _mcopy_atomic_hugetlb(fault: Fault) -> None:
    """Maps a new page, writable and dirty if the VMA is, as far as the pool has one."""
    mm, vma = fault.mm, fault.vma
    index = _index(mm, vma, fault.address)
    if not _is_shared(vma):
        anon_vma_prepare(mm, vma)
    page = _alloc_huge_page(fault, index, avoid_reserve=False)
    if page is None:
        return
    page.cached, page.anonymous = _is_shared(vma), not _is_shared(vma)
    if page.cached:
        _file(vma).huge_pages[index] = page
    writable = bool(vma.flags & VM_WRITE)
    protection = vm_page_prot(mm, vma)._replace(write=writable)
    _map(mm, fault.address, Leaf(page, protection, dirty=writable), page)


def hugetlb_cow(fault: Fault, leaf: Leaf, cached: HugetlbPage | None) -> int:
    """Makes a page writable that nobody else maps; else copies it.

    `cached` is the file's page. The process that has reserved the mapping must not use a
    reservation for a copy that only its children make necessary: if the pool has nothing else, they
    lose the page.
    """
    mm, vma, old = fault.mm, fault.vma, leaf.page
    assert isinstance(old, HugetlbPage)
    if old.mapcount == 1 and old.anonymous:
        mm.page_tables.map_huge(fault.address, leaf.made_writable())
        return 0
    index = _index(mm, vma, fault.address)
    outside_reserve = vma.consumed is not None and old is not cached
    new = _alloc_huge_page(fault, index, avoid_reserve=outside_reserve)
    if new is None:
        if not outside_reserve:
            return VM_FAULT_SIGBUS
        _unmap_ref_private(fault, old)
        return hugetlb_cow(fault, leaf, cached)
    anon_vma_prepare(mm, vma)
    new.anonymous = True
    for number, page in old.pages.items():
        new.page(number).value = page.value
    _unmap(fault.kernel, mm, fault.address, old)
    _map(mm, fault.address, Leaf(new, fault.page_prot).made_writable(), new)
    return 0


def _unmap_ref_private(fault: Fault, page: HugetlbPage) -> None:
    """Takes the page from the children; their next fault anywhere in the mapping is SIGBUS."""
    for mm in [mm for mm in page.mappers if mm is not fault.mm]:
        vma = mm.find_vma(fault.address)
        assert vma is not None, "the page is mapped there"
        vma.pages_lost = True
        _unmap(fault.kernel, mm, fault.address & ~(mm.page_tables.pmd_size - 1), page)


def _alloc_huge_page(fault: Fault, index: int, *, avoid_reserve: bool) -> HugetlbPage | None:
    """alloc_huge_page(): from the reservation if there is one, else what nobody has reserved."""
    pool, vma = fault.kernel.hugetlb, fault.vma
    has_reserve = _has_reserve(vma, index) and not avoid_reserve
    if pool.free == 0 or (not has_reserve and pool.free == pool.reserved):
        return None
    nr = fault.mm.page_tables.pmd_size >> fault.mm.arch.page_shift
    try:
        fault.kernel.frames.allocate(nr)
    except OutOfFramesError:
        return None
    pool.free -= 1
    pool.reserved -= has_reserve
    if _is_shared(vma):
        _file(vma).reserved.add(index)
    elif vma.consumed is not None:
        vma.consumed.add(index)
    return HugetlbPage(nr, anonymous=False)


def _has_reserve(vma: Vma, index: int) -> bool:
    """Whether the mapping has reserved this page and not used it: vma_has_reserves().

    A file's reservation is spent when the page is in the page cache, so a shared mapping that asks
    has it, unless it never reserved.
    """
    if _is_shared(vma):
        return index in _file(vma).reserved
    return vma.consumed is not None and index not in vma.consumed
