"""When each of the named exceptions applies that cut memory into other VMAs than 5.1 does.

So do outcomes that hang on it: mremap of what is several VMAs, and what fork copies.
"""

from __future__ import annotations

from spfemu.oracle.cases import Case, Edge
from spfemu.oracle.history import Call
from spfemu.program.ops import MMAP_FLAGS

__all__ = [
    "has_not_grown",
    "is_across_grown",
    "is_across_heap",
    "is_across_stack",
    "is_across_touched",
    "is_between_touched_and_not",
    "is_copied_at_fork",
    "is_grown",
    "is_heap",
    "is_mremap_across_uncharged",
    "is_stack",
    "is_uncharged",
    "is_wiped",
]


def is_uncharged(edge: Edge) -> bool:
    """In private memory, between what is charged on one of the two only and its neighbour."""
    return edge.is_of_merging("uncharged")


def is_wiped(edge: Edge) -> bool:
    """In what a child had wiped: it has no anon_vma there, and in 5.1 one that may be its own."""
    return edge.is_of_merging("wiped")


def is_mremap_across_uncharged(case: Case) -> bool:
    """mremap of a range that is one VMA for one of the two only, for part of it was uncharged."""
    return case.op == "mremap" and case.is_of_merging("uncharged")


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
    is_at_one = any(start <= edge.address <= end for start, end in _stacks(edge.before))
    return is_at_one or edge.is_of_merging("stack")


def is_across_stack(case: Case) -> bool:
    """Something about a range that is one VMA only in 5.1: mremap of it, or what fork copies."""
    if case.op != "mremap":
        return case.is_of_merging("stack")
    if case.host["errno"] != "EFAULT":
        return False
    start, end = case.page, case.page + int(case.record["length"])
    return any(start < edge < end for stack in _stacks(case.before) for edge in stack)


def is_grown(edge: Edge) -> bool:
    """Where a mapping that grew in place met the next one, or what hangs on that."""
    return edge.is_of_merging("grown")


def is_across_grown(case: Case) -> bool:
    """As `is_across_stack`, about a range that is one VMA only where it merged as it grew."""
    return case.is_of_merging("grown")


def is_heap(edge: Edge) -> bool:
    """Where the heap begins, or what hangs on its being a VMA of its own."""
    return edge.is_of_merging("heap")


def is_across_heap(case: Case) -> bool:
    """As `is_across_grown`, about a range that the heap's start cuts in two."""
    return case.is_of_merging("heap")


def has_not_grown(edge: Edge) -> bool:
    """What would have an anon_vma, but for the limit that a refused growth met first."""
    return edge.is_of_merging("lowest")


def is_between_touched_and_not(edge: Edge) -> bool:
    """Where the newer rule merges, or has merged, and 5.1's has not, or the other way round.

    One of the two had an anon_vma then and the other one had none. What joins one neighbour may be
    kept from the other, and what has an anon_vma keeps its offset when it is moved.
    """
    return edge.is_of_merging("touched")


def is_across_touched(case: Case) -> bool:
    """mremap of a range that is one VMA for one of the two only, as the newer rule has it."""
    return case.op == "mremap" and case.is_of_merging("touched")


def is_copied_at_fork(case: Case) -> bool:
    """A page of a file that a child of fork has from its parent.

    fork copies page tables of files only if the VMA has an anon_vma, from before a merge perhaps.
    """
    return case.is_of_merging("touched")
