"""When each of the named exceptions applies that cut memory into other VMAs than 5.1 does.

So do outcomes that hang on it: mremap of what is several VMAs, and what fork copies.
"""

from __future__ import annotations

from typing import Final

from spfemu.oracle.cases import Case, Edge
from spfemu.oracle.history import Call
from spfemu.program.ops import MMAP_FLAGS

__all__ = [
    "is_across_stack",
    "is_between_touched_and_not",
    "is_copied_at_fork",
    "is_grown_to",
    "is_mremap_across_uncharged",
    "is_stack",
    "is_uncharged",
    "is_wiped",
]

_WRITE: Final = 2


def is_uncharged(edge: Edge) -> bool:
    """In private memory, between what is charged on one of the two only and its neighbour."""
    return edge.is_of_merging("uncharged")


def is_wiped(edge: Edge) -> bool:
    """In what a child had wiped: it has no anon_vma there, and in 5.1 one that may be its own."""
    return edge.is_of_merging("wiped")


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


def is_across_stack(case: Case) -> bool:
    """Something about a range that is one VMA only in 5.1: mremap of it, or what fork copies."""
    if case.op != "mremap":
        return case.is_of_merging("stack")
    if case.host["errno"] != "EFAULT":
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
    """Where the newer rule merges, or has merged, and 5.1's has not, or the other way round.

    One of the two had an anon_vma then and the other one had none. What joins one neighbour may be
    kept from the other, and what has an anon_vma keeps its offset when it is moved.
    """
    return edge.is_of_merging("touched")


def is_copied_at_fork(case: Case) -> bool:
    """A page of a file that a child of fork has from its parent.

    fork copies page tables of files only if the VMA has an anon_vma, from before a merge perhaps.
    """
    return case.is_of_merging("touched")
