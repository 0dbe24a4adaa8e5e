"""When each of the named exceptions applies that cut memory into other VMAs than 5.1 does.

So do outcomes that hang on it: mremap of what is several VMAs, and what fork copies.
"""

from __future__ import annotations

from collections.abc import Callable

from spfemu.oracle.cases import Case, Edge

__all__ = ["edge_of", "outcome_of"]


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
