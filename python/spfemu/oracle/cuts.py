"""When each of the named exceptions applies that cut memory into other VMAs than 5.1 does.

So do outcomes that hang on it: mremap of what is several VMAs, and what fork copies.
"""

from __future__ import annotations

from typing import Final

from spfemu.oracle.cases import Case, Edge
from spfemu.oracle.history import Call
from spfemu.oracle.touched import is_touched
from spfemu.program.ops import MMAP_FLAGS

__all__ = [
    "is_between_touched_and_not",
    "is_copied_at_fork",
    "is_grown_to",
    "is_mremap_across_stack",
    "is_mremap_across_uncharged",
    "is_stack",
    "is_uncharged",
]

_WRITE: Final = 2
_RECUTTING: Final = ("mprotect", "madvise", "mlock", "munlock", "mbind")


def is_uncharged(edge: Edge) -> bool:
    """In private memory that may not be written to, at what mprotect took that right from.

    If it has that right back, only at a stack: what grows gets an anon_vma, which it does not share
    with a neighbour that is charged.
    """
    if not edge.perms.endswith("p") or ("w" in edge.perms and not _is_where_stack_was(edge)):
        return False
    calls = (call for call in edge.before if call.op == "mprotect")
    return any(edge.meets(call) for call in calls if not int(call.record["prot"]) & _WRITE)


def is_mremap_across_uncharged(case: Case) -> bool:
    """mremap of a range that is one VMA for one of the two only, for part of it was uncharged."""
    errnos = {case.emulated["errno"], case.host["errno"]}
    if case.op != "mremap" or errnos != {None, "EFAULT"}:
        return False
    start, end = case.page, case.page + int(case.record["length"])
    calls = (call for call in case.before if call.op == "mprotect")
    return _is_read_only(case.before, start) and any(
        call.address < end and start < call.address + call.length
        for call in calls
        if not int(call.record["prot"]) & _WRITE
    )


def _is_read_only(before: list[Call], page: int) -> bool:
    """Whether a page may not be written to, as far as calls say."""
    for call in before:
        start = call.ret if call.op in ("mmap", "mremap") else call.address
        if call.op == "mremap" and not call.errno and start <= page < start + call.new_length:
            page += call.address - start  # it came from there
        is_whole = call.op == "mmap" and not call.errno
        if (is_whole or call.op == "mprotect") and start <= page < start + call.length:
            return not int(call.record["prot"]) & _WRITE
    return False


def _is_where_stack_was(edge: Edge) -> bool:
    """Only on the host, in or at what was mapped to grow down."""
    flag = MMAP_FLAGS["growsdown"]
    calls = (call for call in edge.before if call.op == "mmap" and int(call.record["flags"]) & flag)
    return not edge.is_emulated and any(
        call.ret <= edge.address <= call.ret + call.length for call in calls if not call.errno
    )


def _stacks(before: list[Call]) -> set[tuple[int, int]]:
    """Where there were mappings that say that they are stacks, or what was moved of such."""
    flag = MMAP_FLAGS["stack"]
    found: set[tuple[int, int]] = set()
    for call in reversed(before):
        if call.op == "mmap" and not call.errno and int(call.record["flags"]) & flag:
            found.add((call.ret, call.ret + call.length))
        elif call.op == "mremap" and not call.errno:
            low, high = call.range
            by = call.ret - low
            parts = [(max(start, low), min(end, high)) for start, end in found]
            found |= {(start + by, end + by) for start, end in parts if start < end}
    return found


def is_stack(edge: Edge) -> bool:
    """At a mapping that says it is a stack."""
    return any(start <= edge.address <= end for start, end in _stacks(edge.before))


def is_mremap_across_stack(case: Case) -> bool:
    """mremap of a range that is one VMA only in 5.1."""
    if case.op != "mremap" or case.host["errno"] != "EFAULT":
        return False
    start, end = case.page, case.page + int(case.record["length"])
    return any(start < edge < end for stack in _stacks(case.before) for edge in stack)


def is_grown_to(edge: Edge) -> bool:
    """Where a mapping that grew in place met the next one."""
    return edge.is_emulated and any(
        call.ret == call.address and call.ret + call.new_length == edge.address
        for call in edge.before
        if call.op == "mremap" and not call.errno and call.new_length > call.length
    )


def is_between_touched_and_not(edge: Edge) -> bool:
    """In private memory, where the emulator cuts it, or in what was moved without being touched.

    One of the two has an anon_vma, perhaps from before it was cut off from what was written to.
    """
    if not edge.perms.endswith("p") or not is_touched(edge.history, edge.position, edge.space):
        return False
    return edge.is_emulated or _is_moved_untouched(edge) or _has_joined_the_other(edge)


def _is_moved_untouched(edge: Edge) -> bool:
    """In or at what has kept its offset when it was moved, for it had joined what was touched.

    5.1 gives it the offset of its new place, where it joins its neighbours.
    """
    moves = (call for call in edge.before if call.op == "mremap" and not call.errno)
    return any(
        call.ret != call.address
        and call.ret <= edge.address <= call.ret + call.new_length
        and not is_touched(edge.history, call.position, edge.space, *call.range)
        for call in moves
    )


def _has_joined_the_other(edge: Edge) -> bool:
    """At memory between touched neighbours, of which it has joined the one only on the host.

    There was a call that let it join that one before it was touched itself. The emulator keeps the
    two apart, an edge for the one that is missing here, and so has it join the other one later.
    """
    here, (low, high) = edge.address, edge.around
    return _joins(edge, (here, high), high, (low, here), (high, 1 << 64)) or _joins(
        edge, (low, here), low, (here, high), (0, low)
    )


def _joins(
    edge: Edge, part: tuple[int, int], at: int, near: tuple[int, int], far: tuple[int, int]
) -> bool:
    """Whether a part that was not touched could join what is far, at an edge of the emulator's."""
    history, space = edge.history, edge.space
    if not is_touched(history, edge.position, space, *near):
        return False
    return any(
        call.op in _RECUTTING
        and (call.covers(at) or call.covers(at - 4096))
        and is_touched(history, call.position, space, *far)
        and not is_touched(history, call.position, space, *part, even_refused=False)
        for call in edge.before
    )


def is_copied_at_fork(case: Case) -> bool:
    """A page of a file that a child of fork has from its parent.

    fork copies page tables of files only if the VMA has an anon_vma.
    """
    if case.host["faults"] != case.emulated["faults"] - 1:
        return False
    mapping, space = case.mapping, case.space
    is_candidate = mapping is not None and mapping.is_private
    return (
        is_candidate
        and case.history.spaces.is_forked(space)
        and is_touched(case.history, case.position, space)
    )
