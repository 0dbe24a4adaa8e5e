"""What each invariant demands, and why a finding is one: a sentence for people."""

from __future__ import annotations

from typing import Final

from spfemu.engines import core_list

__all__ = ["MEANINGS", "why"]

MEANINGS: Final = {
    "access-denied": "an access was refused that the mapping allowed all the time",
    "access-not-allowed": "an access succeeded that the mapping had forbidden before it began",
    "anon-vma-degree": "an anon_vma counts other children and VMAs than it has",
    "anon-vma-root": "an anon_vma's root is not the one whose lock protects it",
    "bad-pmd": "a page table is freed that still maps something",
    "collapse-pmd": "khugepaged found the PMD filled that it had cleared",
    "deadlock": "everybody waits for somebody else",
    "deposit": "a huge page has no page table put by for its split, or one that is not empty",
    "fault-while-odd": "a writer of a VMA faults in it while its vm_sequence is odd",
    "file-open": "a file is closed while a VMA maps it, or stays open without one",
    "i-mmap": "a file's list of VMAs that map it is not those that do",
    "irq-balance": "interrupts are disabled or enabled twice, or sent while they are disabled",
    "leak": "an object is left that nobody has",
    "livelock": "an access faults again and again and never ends",
    "lock-balance": "a lock is let go by a task that does not hold it, or never",
    "locked-vm": "locked_vm is not the number of pages in locked VMAs",
    "lost-pages": "mremap could not move pages back and lost them",
    "lost-store": "a read does not see the last write to its page",
    "map-count": "map_count is not the number of VMAs",
    "mapcount": "a page's map count is not the number of PTEs that map it",
    "mapped-outside-vma": "a page is mapped where no VMA is",
    "memcg-charge": "a memory cgroup is charged for other pages than there are",
    "mlocked": "a page counts as locked that no locked VMA maps",
    "notifier-balance": "an MMU notifier saw an invalidation begin and not end, or the reverse",
    "page-freed-while-mapped": "a page was freed that is still mapped",
    "page-leak": "a page is in use by nobody",
    "page-table-count": "an address space counts other page tables than it has",
    "page-table-leak": "a page table is left that no address space reaches",
    "panic": "the handler did what crashes a kernel",
    "pte-against-vma": "a PTE allows what its VMA does not",
    "rcu-balance": "a task ended inside an RCU read section",
    "readahead-window": "swap readahead reads outside the VMA",
    "refcount": "a reference count is not the number of references",
    "rmap": "a page's reverse map does not lead to the PTE that maps it",
    "rss-count": "a counter of mapped pages is not the number of them",
    "sequence": "a vm_sequence is odd while nobody writes, or even while somebody does",
    "signal": "a signal has another code than the address space explains",
    "sleep-in-atomic": "a task sleeps in a read section",
    "stuck": "tasks wait for each other in the program",
    "swap-count": "a swap slot counts other users than it has",
    "use-after-free": "an object was used after it had been freed",
    "vma-bounds": "the address that a fault is for is not in its VMA",
    "vma-freed-in-tree": "a VMA was freed that the tree still has",
    "vma-leak": "a VMA is left in no address space",
    "vma-order": "two VMAs overlap, or stand in the wrong order",
    "vma-tree": "the tree and the list have other VMAs",
    "zero-page": "the page of zeroes is mapped writable, or counted",
}


def why(invariant: str, entry: str | None) -> str:
    """Returns one sentence: what an invariant's break means, and the catalogue's explanation.

    Source: ours; the explanation is that of ``spfemu mutants`` and ``variants``.

    >>> why("stuck", None)
    'Tasks wait for each other in the program.'
    """
    meaning = MEANINGS.get(invariant, f"{invariant} does not hold")
    sentence = f"{meaning[0].upper()}{meaning[1:]}"
    cause = _cause(entry)
    return f"{sentence}: {cause}" if cause else f"{sentence}."


def _cause(entry: str | None) -> str | None:
    for mutant in core_list("mutants"):
        if mutant["entry"] == entry:
            return f"without {mutant['removed']} ({entry}). {mutant['race']}"
    for variant in core_list("variants"):
        if variant["entry"] == entry:
            return f"{variant['what']} ({entry})."
    return None
