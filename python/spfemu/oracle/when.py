"""When each of the named exceptions to the host's agreement applies.

Each is as narrow as what results and the program say allows.
"""

from __future__ import annotations

import errno
from typing import Final

from spfemu.oracle.cases import Case
from spfemu.oracle.history import ACCESS_OPS, Call, History
from spfemu.oracle.mapped import USER_END, grows_down, mapped, mapped_before, page_up
from spfemu.program.ops import ACCESSES, GIVEN, MMAP_FLAGS, MREMAP_FLAGS
from spfemu.results import errno_name

__all__ = [
    "has_cleared_its_place",
    "has_moved_the_first",
    "is_address_as_errno",
    "is_aligned",
    "is_beyond_a_guard",
    "is_brk_over_hole",
    "is_dontunmap",
    "is_hint_too_low",
    "is_mbind_to_a_hole",
    "is_mremap_checked_first",
    "is_read_ahead",
    "is_v12_code",
    "is_v12_livelock",
    "is_vsyscall",
]

_REFUSED: Final = {"signal": "SIGSEGV", "si_code": "SEGV_ACCERR"}
_HUGE: Final = 2 << 20
_MASK: Final = (1 << 64) - 1
_VSYSCALL: Final = 0xFFFF_FFFF_FF60_0000
_MREMAP: Final = MREMAP_FLAGS


def is_v12_code(case: Case) -> bool:
    """C3: the speculative handler's refusal comes with the code of an address without mapping."""
    emulated = {"signal": "SIGSEGV", "si_code": "SEGV_MAPERR", "handled": "spf"}
    refused = case.emulated["counters"].get("pagefault:spf_vma_access", 0) > 0
    by_key = {**_REFUSED, "si_code": "SEGV_PKUERR"}
    return refused and (case.is_(emulated, _REFUSED) or case.is_(emulated, by_key))


def is_v12_livelock(case: Case) -> bool:
    """C2: the speculative handler lets an execute fault go on for ever."""
    is_fetch = case.op == "execute" or (
        case.op == "touch" and int(case.record["access"]) == ACCESSES.index("execute")
    )
    by_spf = {"livelock": True, "handled": "spf"}
    return is_fetch and case.handler == "spf" and case.is_(by_spf, _REFUSED)


def is_brk_over_hole(case: Case) -> bool:
    """A break that goes down over pages of which nothing is mapped any more."""
    if case.op != "brk" or not case.is_({"errno": None}, {"errno": "ENOMEM"}):
        return False
    lower = int(case.emulated["ret"])
    upper = lower - int(case.record["addr"])
    there = mapped(case.history, case.position, case.space)
    return lower < upper and not there.meets(page_up(lower), page_up(upper))


def is_mremap_checked_first(case: Case) -> bool:
    """mremap of what 5.1 refuses later, for another reason, or never."""
    host, mine = case.host["errno"], case.emulated["errno"]
    if case.op != "mremap" or host not in ("EINVAL", "EFAULT"):
        return False
    record = case.record
    old, new = (page_up(int(record[key])) & _MASK for key in ("length", "length2"))
    if max(old, new) > USER_END or case.page + old > USER_END:
        return mine in _answers_beyond(case, old, new)
    if host == "EFAULT":
        return False
    # Of nothing, to a place that it is in itself: 5.1 does not find it any more.
    target = case.history.target(record, case.position)
    is_itself = int(record["flags"]) & _MREMAP["fixed"] and target <= case.page < target + new
    return bool(is_itself) and not old and mine == "EFAULT"


def _answers_beyond(case: Case, old: int, new: int) -> tuple[str | None, ...]:
    """What 5.1 may say of an mremap of what is beyond user space, of sizes in whole pages."""
    is_fixed = int(case.record["flags"]) & _MREMAP["fixed"]
    if old > new:
        # What it cannot unmap it finds out when all else is done. Where the end of what stays
        # wraps, it unmaps what is there, and all is well.
        rest = (case.page + new) & _MASK
        is_done = not is_fixed and rest + old - new <= USER_END
        return (None,) if is_done else ("EINVAL",)
    if old < new:
        return ("EFAULT", "ENOMEM")
    return ("EINVAL", "EFAULT") if is_fixed else (None,)  # nothing to do: it does not look


def is_dontunmap(case: Case) -> bool:
    """mremap with a flag that 5.1 does not know."""
    has_flag = int(case.record["flags"]) & _MREMAP["dontunmap"]
    return case.op == "mremap" and bool(has_flag) and case.is_({"errno": "EINVAL"}, {})


def _is_move_that_failed(call: Call) -> bool:
    """mremap to a given place that failed, not because of what it was given."""
    # 5.1 refuses dontunmap at once; where that is known, it may have done something.
    flags = int(call.record["flags"]) & ~_MREMAP["dontunmap"]
    if not call.errno or flags != GIVEN | _MREMAP["maymove"] | _MREMAP["fixed"]:
        return False
    old, new, end = call.address, call.target, call.target + call.new_length
    overlaps = old < end and new < (old + call.length) % (1 << 64)
    return (old | new) % 4096 == 0 and new < end <= USER_END and not overlaps


def has_cleared_its_place(history: History, call: Call) -> bool:
    """A move that failed: 5.1 has unmapped by then what was there, and what it was to cut off."""
    if not _is_move_that_failed(call):
        return False
    there = mapped_before(history, call)
    return there.meets(call.target, call.target + call.new_length) or there.meets(
        call.address + call.new_length, call.address + call.length
    )


def has_moved_the_first(history: History, call: Call) -> bool:
    """A move of several VMAs that failed: some that came first may have been moved."""
    is_of_several = call.errno == errno.EFAULT and call.length == call.new_length
    if not is_of_several or not _is_move_that_failed(call):
        return False
    return mapped_before(history, call).meets(call.address, call.address + 4096)


def is_mbind_to_a_hole(case: Case) -> bool:
    """mbind with a hole at the end of its range, or for mode default at its beginning."""
    if case.op != "mbind":
        return False
    if case.is_({"errno": None}, {"errno": "EFAULT"}):
        page = page_up(case.page + int(case.record["length"])) - 4096
    elif case.is_({"errno": "EFAULT"}, {"errno": None}) and not int(case.record["advice"]):
        page = case.page
    else:
        return False
    return not mapped(case.history, case.position, case.space).meets(page, page + 4096)


def is_hint_too_low(case: Case) -> bool:
    """A hint that the host raises, for it has two lowest addresses where the emulator has one."""
    return case.op == "mmap" and case.is_of_placing("lowest")


def is_aligned(case: Case) -> bool:
    """What is as large as a huge page, and lies as one on the host; not where it was told.

    Which pages of a file come with the one that is accessed depends on where it lies.
    """
    if case.op in ACCESS_OPS:
        return case.moved % _HUGE != 0 and _is_mapped_around(case)
    record = case.record
    length = page_up(int(record["length" if case.op == "mmap" else "length2"]))
    offset = int(record["value"]) if case.op == "mmap" else 0
    is_placed = case.op in ("mmap", "mremap") and case.host["ret"] < case.emulated["ret"]
    is_so = is_placed and length >= _HUGE and (int(case.host["ret"]) - offset) % _HUGE == 0
    return bool(is_so) and _is_at_the_top(case, int(case.emulated["ret"]), length)


def _is_mapped_around(case: Case) -> bool:
    """Whether a page belongs to a file, or to shared memory, which is one."""
    shared = MMAP_FLAGS["shared"]
    return case.mapping is not None or any(
        call.op == "mmap" and int(call.record["flags"]) & shared and not call.errno
        for call in case.before
        if call.ret <= case.page < call.ret + call.length
    )


def _is_at_the_top(case: Case, place: int, length: int) -> bool:
    """Whether a place is free, and right below something; what keeps a guard gap may be higher."""
    there, end = mapped(case.history, case.position, case.space), place + length
    is_below = end == case.mmap_base or there.meets(end, end + 4096)
    is_below = is_below or any(grows_down(call) for call in case.before)
    return is_below and not there.meets(place, end)


def is_beyond_a_guard(case: Case) -> bool:
    """What is further down because the guard gap of a stack reaches over something else."""
    has_stack = any(grows_down(call) for call in case.before)
    return has_stack and case.op in ("mmap", "mremap") and case.is_of_placing("guard")


def is_vsyscall(case: Case) -> bool:
    """An access to the page that x86-64 keeps for old system calls, which ours does not have."""
    is_refused = case.emulated["si_code"] == "SEGV_MAPERR" or case.emulated["errno"] == "EFAULT"
    return case.op in ACCESS_OPS and is_refused and case.page == _VSYSCALL


def is_read_ahead(case: Case) -> bool:
    """A page that truncate has added to a file on disk, and that came with another one, or did not.

    It is the first access to that page: then it is there either way. One that came with another is
    no fault, and so brings none with it in turn.
    """
    differs_by_one = abs(case.emulated["faults"] - case.host["faults"]) == 1
    if not differs_by_one or not _only_reads(case):
        return False
    mapping = case.mapping
    if mapping is None or mapping.file.kind != "regular":
        return False
    files = case.history.program.files
    lengths = [
        int(call.record["length"])
        for call in case.history.calls
        if call.op == "truncate"
        and call.position < case.position
        and files[int(call.record["aux"])].name == mapping.file.name
    ]
    # What it had all the time was in the page cache from the beginning.
    had = min([mapping.file.length, *lengths])
    is_added = bool(lengths) and mapping.page_of_file >= -(-had // 4096)
    return is_added and not _was_reached(case)


def _only_reads(case: Case) -> bool:
    return case.op in ("read", "execute") or (
        case.op == "touch" and int(case.record["access"]) != ACCESSES.index("write")
    )


def _was_reached(case: Case) -> bool:
    """Whether there was an access to this page of memory since the last call about it."""
    of_task = case.history.spaces.of_task
    cut = [c for c in case.history.calls if c.op == "truncate" and c.position < case.position]
    calls = [*cut, *(c for c in case.before if _may_unmap(c, case.page))]
    last = max((call.position for call in calls), default=-1)
    return any(
        last < reach.position < case.position
        and reach.is_done
        and reach.page == case.page
        and of_task(reach.task, reach.position) == case.space
        for reach in case.history.reached
    )


def _may_unmap(call: Call, page: int) -> bool:
    """Whether a page that was there before a call may be gone after it."""
    if call.op in ("fork", "exec"):
        return True
    if call.op == "mmap":
        return call.ret <= page < call.ret + call.length
    if call.op == "mremap" and call.ret <= page < call.ret + call.new_length:
        return True  # something else was moved there
    return call.op in ("munmap", "mremap", "madvise") and call.covers(page)


def is_address_as_errno(case: Case) -> bool:
    """A fixed address in the last page, whose negative comes back as the errno."""
    address = case.history.address(case.record, case.position)
    errnos = {"errno": "ENOMEM"}, {"errno": errno_name((1 << 64) - address)}
    return case.op == "mmap" and case.is_(*errnos)
