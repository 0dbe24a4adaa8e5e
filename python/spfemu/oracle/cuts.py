"""When each of the named exceptions applies that cut memory into other VMAs than 5.1 does.

So do outcomes that hang on it: mremap of what is several VMAs, and what fork copies.
"""

from __future__ import annotations

from collections.abc import Callable

from spfemu.oracle.cases import Case, Edge
from spfemu.oracle.history import Call
from spfemu.program.ops import MMAP_FLAGS

__all__ = ["edge_of", "is_stack", "outcome_of"]


def edge_of(rule: str) -> Callable[[Edge], bool]:
    """Returns whether an edge is there, or is not, because of a newer rule of the reference.

    Source: ours. What joins one neighbour may be kept from the other, so that is not only so where
    the rule itself applies.
    """
    return lambda edge: edge.is_of_merging(rule)


def outcome_of(rule: str, ops: tuple[str, ...] = ()) -> Callable[[Case], bool]:
    """Returns whether an outcome is another one because of a newer rule; of ``ops``, if any.

    Source: ours. mremap fails where a range is two VMAs; fork copies page tables of a file only if
    the VMA has an anon_vma, from before a merge perhaps.
    """
    return lambda case: (not ops or case.op in ops) and case.is_of_merging(rule)


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


def _was_moved_across(before: list[Call], stacks: set[tuple[int, int]]) -> bool:
    """Whether mremap moved what is one VMA only in 5.1: where the host moves several at once."""
    edges = {edge for stack in stacks for edge in stack}
    moved = (call.range for call in before if call.op == "mremap" and not call.errno)
    return any(start < edge < end for start, end in moved for edge in edges)


def is_stack(edge: Edge) -> bool:
    """At a mapping that says it is a stack.

    The reference with the newer rule does not move several VMAs at once: what comes of that is
    told by where stacks are.
    """
    if edge.is_of_merging("stack"):
        return True
    stacks = _stacks(edge.before)
    is_at_one = any(start <= edge.address <= end for start, end in stacks)
    return is_at_one and _was_moved_across(edge.before, stacks)
