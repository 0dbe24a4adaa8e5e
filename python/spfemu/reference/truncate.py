"""truncate: a file becomes shorter or longer."""

from __future__ import annotations

import errno

from spfemu.reference.kernel import Kernel
from spfemu.reference.model import MAX_LFS_FILESIZE, File, SyscallError
from spfemu.reference.munmap import zap_present


def ftruncate(kernel: Kernel, file: File, length: int) -> None:
    """Gives a file another length. What is beyond it goes from the page cache and all mappings.

    Private copies go as well, but not those that are in swap (that is since 5.18). A page that the
    file ends in keeps its word, which stands for all of it. What the file grows by is a hole.

    **Source:** do_truncate(), fs/open.c, truncate_setsize(), mm/truncate.c, shmem_setattr(),
    mm/shmem.c, @5.1.
    """
    if length > MAX_LFS_FILESIZE or file.kind == "devzero":
        raise SyscallError(errno.EINVAL)
    before, file.length = file.length, length
    shift = kernel.arch.page_shift
    first = file.nr_pages(shift)
    file.nr_original = min(file.nr_original, first)
    if file.kind == "shmem" and before <= first << shift:
        return
    for mm in kernel.mms:
        for vma in mm.vmas:
            start = max(vma.start, vma.start + ((first - vma.pgoff) << shift))
            if vma.file is file and start < vma.end:
                zap_present(kernel, mm, start, vma.end)
    file.drop_from(first)
