"""truncate: a file becomes shorter or longer."""

from __future__ import annotations

import contextlib
import errno

from spfemu.reference.kernel import Kernel
from spfemu.reference.model import MAX_LFS_FILESIZE, File, OutOfFramesError, SyscallError
from spfemu.reference.munmap import zap_present


def ftruncate(kernel: Kernel, file: File, length: int) -> None:
    """Gives a file another length. What is beyond it goes from the page cache and all mappings.

    Private copies go as well, but not those that are in swap (that is since 5.18). What the file
    grows by is a hole.

    **Source:** do_truncate(), fs/open.c, truncate_setsize(), mm/truncate.c, shmem_setattr(),
    mm/shmem.c, @5.1.
    """
    if length > MAX_LFS_FILESIZE or file.kind == "devzero":
        raise SyscallError(errno.EINVAL)
    before, file.length = file.length, length
    shift = kernel.arch.page_shift
    first = file.nr_pages(shift)
    file.nr_original = min(file.nr_original, first)
    if file.kind == "regular" or before > first << shift:
        _drop_from(kernel, file, first)
    if file.kind == "regular":
        # What was stored beyond the old end the kernel clears when it writes the page back.
        _clear_rest_of_page(file, min(before, length), 1 << shift)
    elif length <= before:
        _clear_rest_of_page(file, length, 1 << shift)


def _clear_rest_of_page(file: File, length: int, page_size: int) -> None:
    """Clears what is in the page of the file's byte `length` from that byte on.

    Of a page only the first 8 bytes are known, the lowest first. If it is in swap it comes back.
    """
    index, kept = divmod(length, page_size)
    is_known = 0 < kept < 8 and file.is_cached(index)
    is_in_swap = kept > 0 and file.kind == "shmem" and not file.is_cached(index)
    if is_known or (is_in_swap and file.must_read(index)):
        with contextlib.suppress(OutOfFramesError):
            file.page(index).value &= (1 << 8 * kept) - 1


def _drop_from(kernel: Kernel, file: File, first: int) -> None:
    """Takes the pages from number `first` on out of all mappings and the page cache."""
    shift = kernel.arch.page_shift
    for mm in kernel.mms:
        for vma in mm.vmas:
            start = max(vma.start, vma.start + ((first - vma.pgoff) << shift))
            if vma.file is file and start < vma.end:
                zap_present(kernel, mm, start, vma.end)
    file.drop_from(first)
