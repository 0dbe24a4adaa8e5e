"""The objects of the reference model: frames, pages, PTEs, files, VMAs.

Everything here is the plainest data structure that gives the right answer: a sorted list for a
red-black tree, a dictionary for page tables. docs/semantics.md says what is left out.
"""

from __future__ import annotations

import errno
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from spfemu.reference.mm import Mm

ADDRESS_MASK = (1 << 64) - 1
"""Addresses and lengths are unsigned 64-bit numbers; sums wrap."""

MAX_LFS_FILESIZE = (1 << 63) - 1
"""The largest file offset. Source: include/linux/fs.h@5.1."""
# VMA flags. Source: include/linux/mm.h@5.1. Only those that an operation of this model can see.
VM_READ = 1 << 0
VM_WRITE = 1 << 1
VM_EXEC = 1 << 2
VM_SHARED = 1 << 3
VM_SEQ_READ = 1 << 4
VM_RAND_READ = 1 << 5
VM_DONTCOPY = 1 << 6
VM_ACCOUNT = 1 << 7
VM_NORESERVE = 1 << 8
VM_WIPEONFORK = 1 << 9
VM_DONTDUMP = 1 << 10
VM_HUGEPAGE = 1 << 11
VM_NOHUGEPAGE = 1 << 12
VM_LOCKED = 1 << 13
VM_LOCKONFAULT = 1 << 14
VM_GROWSDOWN = 1 << 15
VM_UFFD_MISSING = 1 << 16
VM_HUGETLB = 1 << 17
VM_SOFTDIRTY = 1 << 18
VM_MERGEABLE = 1 << 19
VM_STACK_INCOMPLETE_SETUP = VM_RAND_READ | VM_SEQ_READ
"""Of a stack that exec is not done with; no other VMA has both."""
VM_ACCESS = VM_READ | VM_WRITE | VM_EXEC
"""The three bits that mprotect replaces; the array form's `prot` has the same values."""

FAULT_AROUND_BYTES = 64 << 10
"""How much a read fault on a file maps around. Source: mm/memory.c@5.1, fault_around_bytes."""


class SyscallError(Exception):
    """A system call that fails; `value` is the error number. Internal, never leaves the model."""

    def __init__(self, value: int) -> None:
        super().__init__(value)
        self.value = value


class TaskKilledError(Exception):
    """The kernel kills the task in a call that cannot fail any more. Internal."""


class OutOfFramesError(Exception):
    """A page could not be allocated. Internal: a fault turns it into VM_FAULT_OOM."""


@dataclass
class Frames:
    """The machine's memory, as a count: pages, page-cache pages in use, page tables."""

    total: int
    used: int = 0
    memcg: int | None = None
    charged: int = 0
    """Pages of anonymous memory that count for the memory cgroup, and how many may."""

    def allocate(self, count: int = 1) -> None:
        """Takes frames or raises `OutOfFramesError`."""
        if self.used + count > self.total:
            raise OutOfFramesError
        self.used += count

    def free(self, count: int = 1) -> None:
        """Gives frames back."""
        self.used -= count

    def charge(self, count: int = 1) -> None:
        """mem_cgroup_try_charge(): counts pages, or raises `OutOfFramesError`."""
        if self.memcg is not None and self.charged + count > self.memcg:
            raise OutOfFramesError
        self.charged += count


@dataclass(eq=False)
class Page:
    """A page frame: one content word, whether it is anonymous, and how many PTEs map it.

    `huge`: the huge page that it is a part of. `slot`: its slot of the swap device while it is in
    the swap cache. `dirty`: the device does not have its content. `lazyfree`: MADV_FREE gave it up.
    `readahead`: read and not used yet. `charged`: for the memory cgroup. `merged`: KSM's.
    `exclusive`, since 5.19: no fork shared it since it was last one's own.
    """

    anonymous: bool
    value: int = 0
    mapcount: int = 0
    huge: HugePage | None = None
    slot: int | None = None
    dirty: bool = False
    lazyfree: bool = False
    readahead: bool = False
    charged: bool = False
    merged: bool = False
    exclusive: bool = False

    @property
    def is_small_anonymous(self) -> bool:
        """Whether it is anonymous and no part of a huge page."""
        return self.anonymous and self.huge is None


@dataclass(eq=False)
class HugePage:
    """A transparent huge page: base pages that are allocated and freed together.

    `nr` are its base pages; only those in `pages` have been written to or looked at singly.
    `mapcount` are the PMDs that map it, `mappings` these and the PTEs that map its parts.
    """

    nr: int
    pages: dict[int, Page] = field(default_factory=dict)
    mapcount: int = 0
    mappings: int = 0
    charged: bool = False

    def page(self, index: int) -> Page:
        """One of its base pages."""
        if index not in self.pages:
            self.pages[index] = Page(anonymous=True, huge=self)
        return self.pages[index]

    @property
    def is_shared(self) -> bool:
        """Whether some part of it is mapped more than once: page_trans_huge_mapcount()@5.1."""
        return self.mapcount + max((page.mapcount for page in self.pages.values()), default=0) > 1


@dataclass(eq=False)
class HugetlbPage(HugePage):
    """A page of the hugetlb pool. `cached`: it is in the page cache of its file.

    `mappers` are the address spaces that map it, all at the same address if it is anonymous.
    """

    anonymous: bool = False
    cached: bool = False
    mappers: list[Mm] = field(default_factory=list)


@dataclass
class HugetlbPool:
    """The pool of huge pages, as counts (`struct hstate`): free ones, and those promised of them.

    The frames are taken when a page is used, not from the beginning.
    """

    free: int
    frames: Frames
    reserved: int = 0

    def reserve(self, count: int) -> None:
        """hugetlb_acct_memory(): promises pages, or raises ENOMEM."""
        if count > self.free - self.reserved:
            raise SyscallError(errno.ENOMEM)
        self.reserved += count

    def put(self, page: HugetlbPage) -> None:
        """Takes a page back that nobody has any more."""
        if page.mappings == 0 and not page.cached:
            self.frames.free(page.nr)
            self.free += 1


ZERO_PAGE = Page(anonymous=False)
"""The shared page of zeroes. Its PTEs are special: vm_normal_page() finds no page in them."""


class Protection(NamedTuple):
    """What a PTE lets the hardware do (the useful part of a pgprot)."""

    read: bool
    write: bool
    execute: bool


class Pte(NamedTuple):
    """A present page-table entry. A PTE that is none is an absent dictionary key.

    `hinted`: it was made protnone to see who uses the page; `protection` is what it had before.
    """

    page: Page
    protection: Protection
    dirty: bool = False
    young: bool = True
    hinted: bool = False
    soft_dirty: bool = False
    """Set where the kernel makes it dirty, not where the hardware does."""

    @property
    def hardware_present(self) -> bool:
        """False for PROT_NONE and hints: pte_present() holds, the hardware sees nothing."""
        return any(self.protection) and not self.hinted

    def made_writable(self) -> Pte:
        """This entry, dirty and writable: maybe_mkwrite(pte_mkdirty(…)) in a writable VMA."""
        return self.made_dirty()._replace(protection=self.protection._replace(write=True))

    def made_dirty(self) -> Pte:
        """This entry, dirty: pte_mkdirty()."""
        return self._replace(dirty=True, young=True, soft_dirty=True)


class Leaf(NamedTuple):
    """A PMD that maps a huge page; no page is that of zeroes."""

    page: HugePage | None
    protection: Protection
    dirty: bool = False
    young: bool = True

    def made_writable(self) -> Leaf:
        """As `Pte.made_writable`."""
        return self._replace(
            protection=self.protection._replace(write=True), dirty=True, young=True
        )

    def part(self, index: int) -> Pte:
        """What it says of one base page."""
        page = ZERO_PAGE if self.page is None else self.page.page(index)
        return Pte(page, self.protection, self.dirty, self.young)


class SwapEntry(NamedTuple):
    """A PTE whose page was swapped out: it is in this slot of the device."""

    slot: int


@dataclass(eq=False)
class AnonVma:
    """An identity. What hangs on it is only who shares it, see `Vma.anon_vma_chain`.

    `forked`: it is a child's, whose VMAs have those of its parent in their chains as well.
    """

    forked: bool = False


class VmOps(NamedTuple):
    """The operations of a file's VMAs. All here have `fault` and `map_pages`, none has `close`."""

    name: str
    page_mkwrite: bool


GENERIC_FILE_VM_OPS = VmOps("generic_file", page_mkwrite=True)
"""A file on disk: wants to know of the first write to a page (write notification)."""

SHMEM_VM_OPS = VmOps("shmem", page_mkwrite=False)

HUGETLB_VM_OPS = VmOps("hugetlb", page_mkwrite=False)


@dataclass(eq=False)
class File:
    """An open file and its page cache. `kind` is "regular", "shmem", "devzero" or "hugetlb".

    A page that is in the page cache from the beginning (`cached`) gets its `Page` when it is first
    used. `nr_original` pages are there since the beginning; what truncation has cut off, and what
    the file has grown by, are holes. `sparse` is anonymous memory's: pages exist from their first
    fault on, and go with the last mapping. A hugetlb file has `huge_pages` from a `pool`, and
    `reserved` numbers of them, those that it has included.
    """

    name: str
    length: int
    kind: str
    frames: Frames
    cached: bool = True
    sparse: bool = False
    pages: dict[int, Page] = field(default_factory=dict)
    mappings: int = 0
    nr_original: int = 0
    pool: HugetlbPool | None = None
    huge_pages: dict[int, HugetlbPage] = field(default_factory=dict)
    reserved: set[int] = field(default_factory=set)

    @property
    def vm_ops(self) -> VmOps:
        """The operations of a mapping of this file."""
        if self.kind == "hugetlb":
            return HUGETLB_VM_OPS
        return GENERIC_FILE_VM_OPS if self.kind == "regular" else SHMEM_VM_OPS

    def nr_pages(self, page_shift: int) -> int:
        """The number of pages the file has, the last one perhaps partly used."""
        return (self.length + (1 << page_shift) - 1) >> page_shift

    def is_cached(self, index: int) -> bool:
        """Whether page `index`, which is below `nr_pages`, is in the page cache now."""
        return index in self.pages or (self.cached and index < self.nr_original)

    def must_read(self, index: int) -> bool:
        """Whether page `index`, which is not in the page cache, is read and not only made.

        Holes of files on disk are read, too; what is not cached of one in memory is in swap.
        """
        if self.kind == "regular":
            return True
        return self.kind == "shmem" and index < self.nr_original and not self.sparse

    def page(self, index: int) -> Page:
        """Page `index` of the page cache, brought in if it is not there."""
        if index not in self.pages:
            self.frames.allocate()
            self.pages[index] = Page(anonymous=False)
        return self.pages[index]

    def drop_from(self, index: int) -> None:
        """Takes pages out of the page cache, from `index` on. Nobody maps them any more."""
        gone = [number for number in self.pages if number >= index]
        for number in gone:
            del self.pages[number]
        self.frames.free(len(gone))

    def put(self) -> None:
        """Drops one mapping's reference (fput)."""
        self.mappings -= 1
        if self.sparse and self.mappings == 0:
            self.drop_from(0)
            self._evict_huge_pages()

    def _evict_huge_pages(self) -> None:
        """hugetlbfs_evict_inode(): gives back pages, and what is reserved and was never used."""
        if self.pool is not None:
            self.pool.reserved -= len(self.reserved) - len(self.huge_pages)
            for page in self.huge_pages.values():
                page.cached = False
                self.pool.put(page)
            self.huge_pages.clear()


@dataclass(frozen=True)
class Mempolicy:
    """A memory policy that is not the default: "bind", "interleave", or "preferred".

    `nodes` is a bit mask; of a preferred one the one node, or none: where the task runs.
    `mems_allowed` is what it has noted of the cpuset, by which nobody tells policies apart.
    """

    mode: str
    nodes: int
    mems_allowed: int = field(compare=False)


@dataclass(eq=False)
class Vma:
    """A `vm_area_struct`. Without `vm_ops` it is anonymous, even with a file (/dev/zero).

    `consumed` is of a private hugetlb mapping in the process that made it: the huge pages that no
    reservation is left for. The parts of a mapping that was cut share it. `pages_lost` says that a
    page was taken from a child's mapping.
    """

    start: int
    end: int
    flags: int
    pgoff: int
    file: File | None = None
    vm_ops: VmOps | None = None
    anon_vma: AnonVma | None = None
    anon_vma_chain: list[AnonVma] = field(default_factory=list)
    swap_readahead_info: int = 0
    policy: Mempolicy | None = None
    consumed: set[int] | None = None
    pages_lost: bool = False
    tracked: bool = False
    """vm_page_prot was made for who wants to know of writes: without VM_SOFTDIRTY."""

    def duplicate(self) -> Vma:
        """A copy that is linked nowhere and has no anon_vma chain yet (vm_area_dup)."""
        return replace(self, anon_vma_chain=[])

    @property
    def may_share(self) -> bool:
        """VM_MAYSHARE. Files are opened for reading and writing, so it goes with VM_SHARED."""
        return bool(self.flags & VM_SHARED)
