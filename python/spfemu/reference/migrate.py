"""Page migration: pages go to other frames."""

from __future__ import annotations

import errno

from spfemu.reference.kernel import Kernel
from spfemu.reference.mm import Mm
from spfemu.reference.model import OutOfFramesError, SyscallError
from spfemu.reference.reclaim import mappings


def migrate(kernel: Kernel, mm: Mm, start: int, length: int, node: int) -> None:
    """Moves the anonymous pages of a range, in all processes that map them, as far as memory lasts.

    Each needs a frame before the old one is free. Who looks finds all as it was, but that the PTEs
    are old, and clean: that a page is dirty, it knows itself now.

    **Source:** ours: migrate_pages(), mm/migrate.c@5.1, for pages chosen by address.
    """
    if mm.is_unaligned(start):
        raise SyscallError(errno.EINVAL)
    if node >= kernel.nodes:
        raise SyscallError(errno.ENODEV)
    if not kernel.mems_allowed >> node & 1:
        raise SyscallError(errno.EACCES)
    end = min(start + length, mm.arch.task_size)
    if end <= start:
        return
    for _, pte in list(mm.page_tables.present(start, end)):
        page = pte.page
        if not page.is_small_anonymous or page.merged:
            continue
        try:
            kernel.frames.allocate()
        except OutOfFramesError:
            return
        for space, address, mapped in mappings(kernel, page):
            page.dirty |= mapped.dirty
            space.page_tables.store(
                address, mapped._replace(dirty=False, young=False, hinted=False)
            )
        kernel.frames.free()
