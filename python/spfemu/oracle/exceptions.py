"""What the host does differently from Linux 5.1, by name, and when each of these applies.

A difference that none explains is a difference. docs/fidelity.md has them as a table.
"""

from __future__ import annotations

from typing import Final

from spfemu.oracle import cuts, limits, when
from spfemu.oracle.cases import Exempt
from spfemu.oracle.history import ACCESS_OPS

__all__ = ["EXCEPTIONS", "exception"]

EXCEPTIONS: Final = (
    Exempt(
        "v12-C3",
        None,
        "v12's refusal has SEGV_MAPERR, where every kernel without it says SEGV_ACCERR or PKUERR",
        keys=("si_code",),
        outcome=when.is_v12_code,
    ),
    Exempt(
        "v12-C2",
        None,
        "v12 lets an instruction fetch from memory that may not be executed fault for ever",
        keys=("livelock", "signal", "si_code", "faults"),
        outcome=when.is_v12_livelock,
    ),
    Exempt(
        "address-as-errno",
        None,
        "a fixed address in the last 4095 bytes of all is taken for an errno; ours is ENOMEM",
        keys=("errno",),
        outcome=when.is_address_as_errno,
    ),
    Exempt(
        "vsyscall-page",
        None,
        "x86-64 has a page for old system calls at 0xffffffffff600000, ours nothing",
        keys=("ret", "signal", "si_code", "value", "errno", "faults"),
        outcome=when.is_vsyscall,
    ),
    Exempt(
        "second-lowest-address",
        None,
        "hints below CONFIG_LSM_MMAP_MIN_ADDR are raised to it, however low vm.mmap_min_addr is",
        keys=("ret",),
        outcome=when.is_hint_too_low,
        ends=True,
    ),
    Exempt(
        "large-is-aligned",
        (5, 18),
        "where a mapping of 2 MiB or more is put is chosen for huge pages: memory since 6.7, files "
        "since their file systems do",
        keys=("ret", "faults"),
        outcome=when.is_aligned,
    ),
    Exempt(
        "guard-gap-below-others",
        (6, 1),
        "nothing is put above where the guard gap of a stack begins, even if something else lies "
        "between",
        keys=("ret",),
        outcome=when.is_beyond_a_guard,
    ),
    Exempt(
        "growth-too-low",
        None,
        "nothing grows below CONFIG_LSM_MMAP_MIN_ADDR, or gets an anon_vma where that is tried",
        keys=("ret", "errno", "value", "signal", "si_code", "faults"),
        outcome=cuts.outcome_of("lowest", ACCESS_OPS),
        edge=cuts.edge_of("lowest"),
        ends=True,
    ),
    Exempt(
        "overcommit",
        None,
        "promises of more memory than there is are refused (vm.overcommit_memory is not 1)",
        keys=("ret", "errno"),
        outcome=limits.is_too_much,
        silently=("mprotect", limits.promises_before_a_hole),
        ends=True,
    ),
    Exempt(
        "locked-memory-limit",
        None,
        "more locked memory than RLIMIT_MEMLOCK is refused; ours has no limit",
        keys=("ret", "errno", "value", "signal", "si_code", "faults"),
        outcome=limits.is_locked_too_much,
        silently=("mlock", limits.locks_before_a_hole),
        ends=True,
    ),
    Exempt(
        "mprotect-spares-faults",
        (6, 1),
        "mprotect makes private pages writable that belong to nobody else; 5.1 waits for a fault",
        keys=("faults",),
        outcome=cuts.outcome_of("writable", ACCESS_OPS),
    ),
    Exempt(
        "brk-over-hole",
        (6, 1),
        "the break does not go down if nothing is left of the heap there",
        keys=("ret", "errno"),
        outcome=when.is_brk_over_hole,
        ends=True,
    ),
    Exempt(
        "mbind-hole",
        (5, 5),
        "mbind minds a hole at the end of its range, and none at all for mode default",
        keys=("ret", "errno"),
        outcome=when.is_mbind_to_a_hole,
        ends=True,
    ),
    Exempt(
        "mremap-dontunmap",
        (5, 7),
        "mremap knows the flag dontunmap",
        keys=("ret", "errno"),
        outcome=when.is_dontunmap,
        ends=True,
    ),
    Exempt(
        "mremap-of-nothing",
        (5, 16),
        "mremap of what is not mapped is EFAULT before anything else is looked at",
        keys=("ret", "errno"),
        outcome=cuts.outcome_of("nothing", ("mremap",)),
        ends=True,
    ),
    Exempt(
        "mremap-checks-first",
        (6, 17),
        "mremap checks everything before it unmaps what is at the new place",
        keys=("ret", "errno"),
        outcome=when.is_mremap_checked_first,
        silently=("mremap", when.has_cleared_its_place),
        ends=True,
    ),
    Exempt(
        "mremap-of-several",
        (6, 17),
        "mremap moves several VMAs at once if it does nothing else",
        keys=("ret", "errno"),
        outcome=cuts.outcome_of("several", ("mremap",)),
        silently=("mremap", when.has_moved_the_first),
        ends=True,
    ),
    Exempt(
        "mlock-onfault",
        (5, 18),
        "mlock with onfault does not even look whether pages may be accessed",
        keys=("ret", "errno"),
        outcome=cuts.outcome_of("onfault", ("mlock",)),
    ),
    Exempt(
        "mprotect-uncharges",
        (6, 7),
        "memory that nobody has touched is no longer charged when it may not be written to any "
        "more, which decides what it merges with",
        keys=("ret", "errno", "faults"),
        outcome=cuts.outcome_of("uncharged"),
        edge=cuts.edge_of("uncharged"),
        ends=True,
    ),
    Exempt(
        "grown-joins-next",
        (5, 19),
        "what mremap lets grow in place merges with what it then meets",
        keys=("ret", "errno", "faults"),
        outcome=cuts.outcome_of("grown"),
        edge=cuts.edge_of("grown"),
        ends=True,
    ),
    Exempt(
        "stack-is-nohugepage",
        (6, 7),
        "a mapping with the flag stack has VM_NOHUGEPAGE, and merges only with its like",
        keys=("ret", "errno", "faults"),
        outcome=cuts.outcome_of("stack"),
        edge=cuts.edge_of("stack"),
        ends=True,
    ),
    Exempt(
        "heap-stays-apart",
        (6, 1),
        "the heap does not merge with what ends where it begins",
        keys=("ret", "errno", "faults"),
        outcome=cuts.outcome_of("heap"),
        edge=cuts.edge_of("heap"),
        ends=True,
    ),
    Exempt(
        "wiped-has-no-anon-vma",
        (5, 7),
        "what a child has wiped has no anon_vma until it is touched, and merges like what is new",
        keys=("ret", "errno", "faults"),
        outcome=cuts.outcome_of("wiped"),
        edge=cuts.edge_of("wiped"),
        ends=True,
    ),
    Exempt(
        "touched-joins-untouched",
        (6, 16),
        "a VMA that was touched merges with one that was not, whichever is the neighbour",
        keys=("faults",),
        outcome=cuts.outcome_of("touched"),
        edge=cuts.edge_of("touched"),
    ),
    Exempt(
        "touched-moves-whole",
        (6, 16),
        "mremap of what is one VMA only where a touched one joins one that was not",
        keys=("ret", "errno"),
        outcome=cuts.outcome_of("touched", ("mremap",)),
        ends=True,
    ),
    Exempt(
        "last-page-alone",
        (6, 18),
        "a read beyond a file on disk does not map its last page around it, if there is no page "
        "table yet and no other page to map",
        keys=("faults",),
        outcome=cuts.outcome_of("alone", ACCESS_OPS),
    ),
    Exempt(
        "grown-file",
        None,
        "what truncate adds to a file on disk is read several pages at a time; ours is not",
        keys=("faults",),
        outcome=when.is_read_ahead,
    ),
)
"""Every exception there is, by name."""


def exception(name: str) -> Exempt:
    """Returns the exception of that name. Source: ours."""
    return next(entry for entry in EXCEPTIONS if entry.name == name)
