"""Memory policies: where pages shall come from. Of that, programs see one thing: H11.

Frames have no nodes in this model, for no outcome tells on which a page lies: as long as there is
memory anywhere, there is. A policy decides which VMAs merge, and whether a fault may be
speculative.
"""

from __future__ import annotations

import errno

from spfemu.program.ops import POLICIES
from spfemu.reference.kernel import Kernel
from spfemu.reference.mm import Mm
from spfemu.reference.model import (
    SHMEM_VM_OPS,
    VM_ACCESS,
    VM_READ,
    VM_SHARED,
    VM_WRITE,
    Mempolicy,
    SyscallError,
    Vma,
)


def new_policy(kernel: Kernel, mode: int, nodes: int) -> Mempolicy | None:
    """Makes the policy that a call asks for, None for the default; EINVAL without a node.

    Nodes that the task's cpuset has not do not count. "default" and "local" have none, whatever was
    said; local is a preferred one without a node.

    **Source:** mpol_new() and mpol_set_nodemask(), mm/mempolicy.c@5.1.
    """
    name = POLICIES[mode]
    if name == "default":
        return None
    if name == "local" or (name == "preferred" and not nodes):
        return Mempolicy("preferred", 0, kernel.mems_allowed)
    nodes &= kernel.mems_allowed
    if not nodes:
        raise SyscallError(errno.EINVAL)
    if name == "preferred":
        nodes &= -nodes  # the first of them
    return Mempolicy(name, nodes, kernel.mems_allowed)


def set_mempolicy(kernel: Kernel, mode: int, nodes: int) -> Mempolicy | None:
    """What becomes the policy of the task that calls. **Source:** set_mempolicy@5.1."""
    if not kernel.numa:
        raise SyscallError(errno.ENOSYS)
    return new_policy(kernel, mode, nodes)


def rebind(kernel: Kernel, mm: Mm, nodes: int, policy: Mempolicy | None) -> Mempolicy | None:
    """Gives the cpuset of the task that calls other nodes; its policies, and its memory's, follow.

    Returns what becomes of `policy`, the task's own.

    **Source:** ours: update_nodemask(), kernel/cgroup/cpuset.c@5.1, for a cpuset of one task.
    """
    if not kernel.numa:
        raise SyscallError(errno.ENOSYS)
    if nodes >> kernel.nodes:
        raise SyscallError(errno.EINVAL)
    if not nodes:
        raise SyscallError(errno.ENOSPC)
    if nodes == kernel.mems_allowed:
        return policy
    for vma in mm.vmas:
        vma.policy = _rebound(vma.policy, nodes)
    return _rebound(policy, nodes)


def _rebound(policy: Mempolicy | None, new: int) -> Mempolicy | None:
    """The first node of the old cpuset becomes the first of the new one, and so on, in turn.

    5.1 notes a mask of nodes where the cpuset should be, so that the next time places are counted
    in that.

    **Source:** mpol_rebind_policy(), mm/mempolicy.c@5.1.
    """
    if policy is None or not policy.nodes or policy.mems_allowed == new:
        return policy
    places = {node: place for place, node in enumerate(_bits(policy.mems_allowed))}
    targets = _bits(new)
    nodes = {targets[places[node] % len(targets)] for node in _bits(policy.nodes)}
    mask = sum(1 << node for node in nodes)
    return Mempolicy(policy.mode, mask, new if policy.mode == "preferred" else mask)


def _bits(mask: int) -> list[int]:
    return [bit for bit in range(mask.bit_length()) if mask >> bit & 1]


def is_interleaved(vma: Vma, task_policy: Mempolicy | None) -> bool:
    """H11: whether the VMA's policy, or else the task's, spreads pages over nodes."""
    policy = vma.policy if vma.policy is not None else task_policy
    return policy is not None and policy.mode == "interleave"


def numa_scan(
    kernel: Kernel, mm: Mm, start: int, length: int, task_policy: Mempolicy | None
) -> None:
    """Hides the pages of a range from the hardware, so that their next access is seen.

    Only private anonymous ones that nobody else maps, where no policy says that they are in their
    place, none of a process with one thread, and none of a file that is mapped to be read.

    **Source:** ours: task_numa_work() and change_prot_numa()@5.1, for ranges that programs name.
    """
    if not kernel.numa:
        raise SyscallError(errno.ENOSYS)
    if mm.is_unaligned(start):
        raise SyscallError(errno.EINVAL)
    if mm.users == 1 or task_policy is not None:
        return
    end = min(start + length, mm.arch.task_size)
    for vma in mm.overlapping(start, end):
        if vma.flags & VM_SHARED or not vma.flags & VM_ACCESS or vma.policy is not None:
            continue
        if vma.vm_ops is SHMEM_VM_OPS:
            continue  # shmem_get_policy() knows none, and so none that lets pages move
        if vma.file is not None and vma.flags & (VM_READ | VM_WRITE) == VM_READ:
            continue
        stop = min(end, vma.end)
        for address, pte in list(mm.page_tables.present(max(start, vma.start), stop)):
            page = pte.page
            if page.is_small_anonymous and not page.merged and page.mapcount == 1:
                mm.page_tables.store(address, pte._replace(hinted=True))
