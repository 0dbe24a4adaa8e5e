"""Address spaces: the sorted VMAs, the page tables, the heap."""

from __future__ import annotations

import bisect
from collections.abc import Collection
from typing import TYPE_CHECKING

from spfemu.reference.model import (
    ADDRESS_MASK,
    VM_EXEC,
    VM_GROWSDOWN,
    VM_READ,
    VM_WRITE,
    Frames,
    Vma,
)
from spfemu.reference.page_tables import PageTables

if TYPE_CHECKING:
    from spfemu.profiles import Arch


STACK_GUARD_PAGES = 256
"""How much is kept free below a VMA that grows down. Source: mm/mmap.c@5.1, stack_guard_gap."""


class Mm:
    """An address space. `users` is mm_users: its tasks that have not ended."""

    def __init__(self, arch: Arch, frames: Frames, newer: Collection[str] = ()) -> None:
        self.arch = arch
        self.newer = newer
        self.vmas: list[Vma] = []
        self.page_tables = PageTables(arch, frames)
        self.users = 0
        self.has_notifier = False
        self.unstable = False
        """MMF_UNSTABLE: the OOM reaper has been here."""
        self.page_size = 1 << arch.page_shift
        self.start_brk: int | None = None
        """Where the heap begins, None until exec or the first brk has settled it."""
        self.unaccounted = 0
        """Bytes of VMAs that do not count: a stack covers two places while it moves."""
        self.brk = 0

    def page_align(self, length: int) -> int:
        """PAGE_ALIGN(): rounded up to whole pages; wraps to 0 at the end of the numbers."""
        return -(-length >> self.arch.page_shift << self.arch.page_shift) & ADDRESS_MASK

    def is_unaligned(self, address: int) -> bool:
        """Whether an address is not that of a page."""
        return address % self.page_size != 0

    @property
    def map_count(self) -> int:
        """The number of VMAs, which vm.max_map_count limits."""
        return len(self.vmas)

    def find_index(self, address: int) -> int:
        """Position of the first VMA that ends above `address`; `map_count` if there is none."""
        return bisect.bisect_right(self.vmas, address, key=lambda vma: vma.end)

    def find_vma(self, address: int) -> Vma | None:
        """find_vma(): the first VMA that ends above `address`; it may also start above it."""
        index = self.find_index(address)
        return self.vmas[index] if index < len(self.vmas) else None

    def find_vma_prev(self, address: int) -> tuple[Vma | None, Vma | None]:
        """find_vma_prev(): what `find_vma` finds and the VMA before (the last if it finds none)."""
        index = self.find_index(address)
        vma = self.vmas[index] if index < len(self.vmas) else None
        return vma, self.vmas[index - 1] if index else None

    def next(self, vma: Vma) -> Vma | None:
        """vm_next."""
        index = self.find_index(vma.start) + 1
        return self.vmas[index] if index < len(self.vmas) else None

    def prev(self, vma: Vma) -> Vma | None:
        """vm_prev."""
        index = self.find_index(vma.start)
        return self.vmas[index - 1] if index else None

    def after(self, vma: Vma | None) -> Vma | None:
        """The VMA after `vma`; the first one after None."""
        if vma is not None:
            return self.next(vma)
        return self.vmas[0] if self.vmas else None

    def start_gap(self, vma: Vma) -> int:
        """vm_start_gap(): where a new mapping before `vma` has to end."""
        if vma.flags & VM_GROWSDOWN:
            return max(0, vma.start - STACK_GUARD_PAGES * self.page_size)
        return vma.start

    def overlapping(self, start: int, end: int) -> list[Vma]:
        """The VMAs that have a byte in [start, end), ascending."""
        index = self.find_index(start)
        found = []
        while index < len(self.vmas) and self.vmas[index].start < end:
            found.append(self.vmas[index])
            index += 1
        return found

    def link(self, vma: Vma) -> None:
        """Inserts a VMA that overlaps no other."""
        bisect.insort(self.vmas, vma, key=lambda other: other.start)
        if vma.file is not None:
            vma.file.mappings += 1

    def unlink(self, vma: Vma) -> None:
        """Takes a VMA out; its pages are the caller's business."""
        del self.vmas[self.find_index(vma.start)]
        if vma.file is not None:
            vma.file.put()

    def maps(self) -> list[str]:
        """The VMAs as lines "start-end perms offset", as /proc/PID/maps prints them."""
        return [_maps_line(vma, self.arch.page_shift) for vma in self.vmas]


def _maps_line(vma: Vma, page_shift: int) -> str:
    letters = ((VM_READ, "r"), (VM_WRITE, "w"), (VM_EXEC, "x"))
    permissions = "".join(letter if vma.flags & bit else "-" for bit, letter in letters)
    permissions += "s" if vma.may_share else "p"
    offset = vma.pgoff << page_shift if vma.file is not None else 0
    return f"{vma.start:08x}-{vma.end:08x} {permissions} {offset:08x}"
