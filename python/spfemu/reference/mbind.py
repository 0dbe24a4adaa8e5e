"""mbind: the policy of a range, VMA by VMA."""

from __future__ import annotations

import errno
from itertools import pairwise

from spfemu.reference.kernel import Kernel
from spfemu.reference.mm import Mm
from spfemu.reference.model import ADDRESS_MASK, SyscallError, Vma
from spfemu.reference.numa import new_policy
from spfemu.reference.protect import merge_or_split


def mbind(kernel: Kernel, mm: Mm, start: int, length: int, mode: int, nodes: int) -> None:
    """Sets the policy; what an error finds done stays done.

    A hole at the beginning is an error, one further on only for a policy that is not the default,
    and one at the end is overlooked: 5.5 put that in order.

    **Source:** do_mbind() and mbind_range(), mm/mempolicy.c@5.1.
    """
    if not kernel.numa:
        raise SyscallError(errno.ENOSYS)
    if mm.is_unaligned(start):
        raise SyscallError(errno.EINVAL)
    end = start + mm.page_align(length)
    if end > ADDRESS_MASK:
        raise SyscallError(errno.EINVAL)
    if end == start:
        return
    policy = new_policy(kernel, mode, nodes)
    vmas = mm.overlapping(start, end)
    if not vmas or vmas[0].start > start:
        raise SyscallError(errno.EFAULT)
    holes = any(one.end < other.start for one, other in pairwise(vmas))
    if holes and policy is not None:
        raise SyscallError(errno.EFAULT)
    prev = vmas[0] if start > vmas[0].start else mm.prev(vmas[0])
    vma: Vma | None = vmas[0]
    while vma is not None and vma.start < end:
        if vma.policy != policy:
            part = (max(start, vma.start), min(end, vma.end))
            vma = merge_or_split(kernel, mm, vma, prev, *part, vma.flags, policy)
            if vma.policy != policy:
                vma.policy = policy
        prev, vma = vma, mm.next(vma)
