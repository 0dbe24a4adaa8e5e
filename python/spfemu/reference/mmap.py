"""mmap: where a mapping goes, and what it becomes."""

from __future__ import annotations

import errno

from spfemu.program.ops import MMAP_FLAGS
from spfemu.reference.hugetlb import hugetlbfs_file_mmap
from spfemu.reference.kernel import Kernel
from spfemu.reference.mm import Mm
from spfemu.reference.model import (
    ADDRESS_MASK,
    MAX_LFS_FILESIZE,
    VM_ACCOUNT,
    VM_GROWSDOWN,
    VM_HUGETLB,
    VM_LOCKED,
    VM_NOHUGEPAGE,
    VM_NORESERVE,
    VM_SHARED,
    VM_SOFTDIRTY,
    VM_WRITE,
    File,
    SyscallError,
    Vma,
)
from spfemu.reference.munmap import munmap
from spfemu.reference.page_prot import set_page_prot
from spfemu.reference.populate import mm_populate
from spfemu.reference.vma_ops import vma_merge

_PRIVATE = MMAP_FLAGS["private"]
_SHARED = MMAP_FLAGS["shared"]
_FIXED = MMAP_FLAGS["fixed"]
_FIXED_NOREPLACE = MMAP_FLAGS["fixed_noreplace"]
_NORESERVE = MMAP_FLAGS["noreserve"]
_POPULATE = MMAP_FLAGS["populate"]
_LOCKED = MMAP_FLAGS["locked"]
_GROWSDOWN = MMAP_FLAGS["growsdown"]
_STACK = MMAP_FLAGS["stack"]
_HUGETLB = MMAP_FLAGS["hugetlb"]


def mmap(
    kernel: Kernel,
    mm: Mm,
    hint: int,
    length: int,
    prot: int,
    flags: int,
    file: File | None = None,
    offset: int = 0,
) -> int:
    """Maps memory and returns its address. `hint` 0 leaves the choice to the kernel.

    **Source:** sys_mmap and do_mmap(), mm/mmap.c@5.1.
    """
    if mm.is_unaligned(offset):
        raise SyscallError(errno.EINVAL)
    if flags & _HUGETLB and file is not None and file.kind != "hugetlb":
        raise SyscallError(errno.EINVAL)
    align = mm.page_size
    if flags & _HUGETLB or (file is not None and file.kind == "hugetlb"):
        align = mm.page_tables.pmd_size
        length = -(-length // align) * align & ADDRESS_MASK
        file = file or _hugetlb_file_setup(kernel, length)
    if length == 0:
        raise SyscallError(errno.EINVAL)
    fixed = bool(flags & (_FIXED | _FIXED_NOREPLACE))
    if not fixed:
        hint = _round_hint_to_min(kernel, mm, hint)
    length = mm.page_align(length)
    if length == 0:
        raise SyscallError(errno.ENOMEM)
    if mm.map_count > kernel.sysctl["vm.max_map_count"]:
        raise SyscallError(errno.ENOMEM)
    address = get_unmapped_area(kernel, mm, hint, length, fixed=fixed, align=align)
    if flags & _FIXED_NOREPLACE and mm.overlapping(address, address + length):
        raise SyscallError(errno.EEXIST)
    if file is not None and offset + length > _longest(file):
        raise SyscallError(errno.EOVERFLOW)
    _check_type(flags, of_file=file is not None)
    vm_flags = prot
    if flags & _SHARED:
        vm_flags |= VM_SHARED
    if flags & _NORESERVE:
        vm_flags |= VM_NORESERVE
    pgoff = offset >> mm.arch.page_shift
    if file is None:
        pgoff = 0 if flags & _SHARED else address >> mm.arch.page_shift
    if flags & _LOCKED:
        vm_flags |= VM_LOCKED
    if flags & _GROWSDOWN:
        vm_flags |= VM_GROWSDOWN
    if flags & _STACK and "stack" in kernel.newer:
        vm_flags |= VM_NOHUGEPAGE
    _mmap_region(kernel, mm, address, length, vm_flags, file, pgoff)
    if flags & (_POPULATE | _LOCKED):
        mm_populate(kernel, mm, address, length)
    return address


def _check_type(flags: int, *, of_file: bool) -> None:
    """Private, shared, or for a file both: MAP_SHARED_VALIDATE, which refuses younger flags.

    Only private memory without a file grows down.
    """
    kind = flags & (_PRIVATE | _SHARED)
    if kind == 0 or (kind == _PRIVATE | _SHARED and not of_file):
        raise SyscallError(errno.EINVAL)
    if kind == _PRIVATE | _SHARED and flags & _FIXED_NOREPLACE:
        raise SyscallError(errno.EOPNOTSUPP)
    if flags & _GROWSDOWN and (of_file or kind != _PRIVATE):
        raise SyscallError(errno.EINVAL)


def _longest(file: File) -> int:
    """Where a mapping of a file must end: file_mmap_ok(), mm/mmap.c@5.1."""
    return ADDRESS_MASK if file.kind == "devzero" else MAX_LFS_FILESIZE


def _round_hint_to_min(kernel: Kernel, mm: Mm, hint: int) -> int:
    """A hint is rounded down to its page; one below the lowest allowed address becomes that."""
    hint &= ~(mm.page_size - 1)
    lowest = kernel.lowest_for_users
    return mm.page_align(lowest) if hint and hint < lowest else hint


def _hugetlb_file_setup(kernel: Kernel, length: int) -> File:
    """The file of its own that each anonymous hugetlb mapping has."""
    file = File("anon_hugepage", length, "hugetlb", kernel.frames, sparse=True)
    file.pool = kernel.hugetlb
    return file


def get_unmapped_area(
    kernel: Kernel, mm: Mm, hint: int, length: int, *, fixed: bool, align: int = 0
) -> int:
    """Chooses the address of a new mapping, or checks a fixed one.

    A free hint is taken as it is. Else it is the top of the highest gap below `mmap_base` that is
    large enough, and if there is none, the bottom of the lowest above a third of user space. For
    hugetlb, `align` is the size of its pages: a hint is rounded down to that, even to 0, and a gap
    has room if it could be aligned wherever it began.

    **Source:** get_unmapped_area() and arch_get_unmapped_area_topdown(), mm/mmap.c@5.1 (the
    generic one; x86's begins at the first page instead of vm.mmap_min_addr, and then has EPERM);
    for hugetlb, arch/x86/mm/hugetlbpage.c@5.1.
    """
    task_size = mm.arch.task_size
    if length > task_size:
        raise SyscallError(errno.ENOMEM)
    huge = align > mm.page_size
    if huge and fixed and hint % align:  # prepare_hugepage_range(), which is asked first
        raise SyscallError(errno.EINVAL)
    if fixed and hint == ADDRESS_MASK:  # MAP_FAILED: -1, which is taken for an error, EPERM
        raise SyscallError(errno.EPERM)
    address = hint if fixed else _free_address(kernel, mm, hint, length, align if huge else 0)
    if address is None or address > task_size - length:
        raise SyscallError(errno.ENOMEM)
    if mm.is_unaligned(address):
        raise SyscallError(errno.EINVAL)
    if address < kernel.mmap_min_addr:
        raise SyscallError(errno.EPERM)
    return address


def _free_address(kernel: Kernel, mm: Mm, hint: int, length: int, align: int) -> int | None:
    task_size = mm.arch.task_size
    lowest = mm.page_align(max(mm.page_size, kernel.mmap_min_addr))
    wanted, lowest_hint = (hint & ~(align - 1), 0) if align else (hint, lowest)
    if hint and lowest_hint <= wanted <= task_size - length:
        above = mm.find_vma(wanted)
        if above is None or wanted + length <= mm.start_gap(above):
            return wanted
    slack = align - mm.page_size if align else 0
    keeps_guards = "guard" in kernel.newer
    base = mm.arch.mmap_base
    address = _highest_gap(mm, length + slack, lowest, base, keeps_guards=keeps_guards)
    if address is not None:
        return (address + slack) & ~(align - 1) if align else address
    address = _lowest_gap(mm, length + slack, mm.page_align(task_size // 3), task_size)
    return (address + slack) & ~(align - 1) if align and address is not None else address


def _highest_gap(mm: Mm, length: int, low: int, high: int, *, keeps_guards: bool) -> int | None:
    """vm_unmapped_area() from the top: where [address, address + length) fits highest.

    A guard gap counts for the gap right before its VMA alone, even if it reaches over the next
    one. (Then the kernel, too, may end its search too early, depending on how its tree lies.)
    `keeps_guards`: since 6.1 one that is in the way keeps all of its length free
    (unmapped_area_topdown(), mm/vma.c@6.18).
    """
    limit, above = high, None
    for vma in (*reversed(mm.vmas), None):
        bottom = low if vma is None else max(vma.end, low)
        top = limit if above is None else min(limit, mm.start_gap(above))
        if keeps_guards and above is not None and min(limit, above.start) - bottom >= length:
            limit = top
        if top - bottom >= length:
            return top - length
        above = vma
    return None


def _lowest_gap(mm: Mm, length: int, low: int, high: int) -> int | None:
    """vm_unmapped_area() from the bottom."""
    floor = low
    for vma in mm.overlapping(low, high):
        if mm.start_gap(vma) >= floor + length:
            break
        floor = vma.end
    return floor if floor + length <= high else None


def _mmap_region(
    kernel: Kernel, mm: Mm, address: int, length: int, flags: int, file: File | None, pgoff: int
) -> None:
    """Clears the range and maps it, growing a neighbour if one can be. mmap_region()@5.1."""
    try:
        _clear_old_maps(kernel, mm, address, length)
    except SyscallError:
        raise SyscallError(errno.ENOMEM) from None
    huge = file is not None and file.kind == "hugetlb"
    if flags & (VM_NORESERVE | VM_SHARED | VM_WRITE) == VM_WRITE and not huge:
        flags |= VM_ACCOUNT  # accountable_mapping()
    end = address + length
    _, prev = mm.find_vma_prev(address)
    merged = vma_merge(mm, prev, address, end, flags, None, file, pgoff)
    if merged is not None:
        merged.flags |= VM_SOFTDIRTY
        set_page_prot(mm, merged)
        return
    vma = Vma(address, end, flags | VM_SOFTDIRTY, pgoff, file)
    if huge:
        vma.flags = vma.flags & ~VM_LOCKED | VM_HUGETLB
        hugetlbfs_file_mmap(kernel, mm, vma)
    if flags & VM_SHARED and (file is None or file.kind == "devzero"):  # shmem_zero_setup()
        vma.file = file = File("dev/zero", length, "shmem", kernel.frames, sparse=True)
    if file is not None and file.kind != "devzero":
        vma.vm_ops = file.vm_ops
    mm.link(vma)


def _clear_old_maps(kernel: Kernel, mm: Mm, address: int, length: int) -> None:
    if mm.overlapping(address, address + length):
        munmap(kernel, mm, address, length)
