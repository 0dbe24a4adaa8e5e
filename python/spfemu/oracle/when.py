"""When each of the named exceptions to the host's agreement applies.

Each is as narrow as what results and the program say allows.
"""

from __future__ import annotations

import errno
from typing import Final

import numpy as np

from spfemu.oracle.cases import Case
from spfemu.oracle.history import ACCESS_OPS, Call, History
from spfemu.oracle.mapped import USER_END, Ranges, mapped, page_up
from spfemu.program.ops import ACCESSES, GIVEN, MMAP_FLAGS, MREMAP_FLAGS, OPS
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
    "is_locked_too_much",
    "is_mbind_to_a_hole",
    "is_mremap_checked_first",
    "is_read_ahead",
    "is_too_much",
    "is_v12_code",
    "is_v12_livelock",
    "is_vsyscall",
    "locks_before_a_hole",
]

_REFUSED: Final = {"signal": "SIGSEGV", "si_code": "SEGV_ACCERR"}
_WRITE: Final = 2
_HUGE: Final = 2 << 20
_VSYSCALL: Final = 0xFFFF_FFFF_FF60_0000
_MREMAP: Final = MREMAP_FLAGS
_FIXED: Final = MMAP_FLAGS["fixed"] | MMAP_FLAGS["fixed_noreplace"]


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


def _is_not_looked_at(record: np.void) -> bool:
    """An mremap for which 5.1 does not look whether what stays is mapped."""
    is_fixed = bool(int(record["flags"]) & _MREMAP["fixed"])
    return not is_fixed and page_up(int(record["length"])) >= page_up(int(record["length2"]))


def is_mremap_checked_first(case: Case) -> bool:
    """mremap of what 5.1 refuses later, for another reason, or never."""
    host = case.host["errno"]
    if case.op != "mremap" or host not in ("EINVAL", "EFAULT"):
        return False
    record = case.record
    old, new = int(record["length"]), int(record["length2"])
    if case.emulated["errno"] is None and not _is_not_looked_at(record):
        return False
    # 5.1 cannot unmap what is beyond user space, and finds out when all else is done.
    if max(old, new) > USER_END or case.page + old > USER_END:
        return True
    if host == "EFAULT":
        return False
    # Of nothing, to a place that it is in itself: 5.1 does not find it any more.
    target = case.history.target(record, case.position)
    is_itself = int(record["flags"]) & _MREMAP["fixed"] and target <= case.page < target + new
    return bool(is_itself) and not old and case.emulated["errno"] == "EFAULT"


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
    there = _mapped_before(history, call)
    return there.meets(call.target, call.target + call.new_length) or there.meets(
        call.address + call.new_length, call.address + call.length
    )


def has_moved_the_first(history: History, call: Call) -> bool:
    """A move of several VMAs that failed: some that came first may have been moved."""
    is_of_several = call.errno == errno.EFAULT and call.length == call.new_length
    if not is_of_several or not _is_move_that_failed(call):
        return False
    return _mapped_before(history, call).meets(call.address, call.address + 4096)


def _mapped_before(history: History, call: Call) -> Ranges:
    space = history.spaces.of_task(call.task, call.position)
    return mapped(history, call.position, space)


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
    """A hint that only the emulator takes, for it has one lowest address where the host has two.

    Or it is taken, and the host has raised it to a place that is free.
    """
    hint = case.history.address(case.record, case.position) & ~4095
    is_hint = case.op == "mmap" and not int(case.record["flags"]) & _FIXED
    lowest = int(case.history.host.settings["lowest_hint"])
    is_taken, is_raised = case.emulated["ret"] == hint, case.host["ret"] == lowest
    return is_hint and hint < lowest <= case.host["ret"] and (is_taken or is_raised)


def is_aligned(case: Case) -> bool:
    """What is as large as a huge page, and lies as one on the host; not where it was told."""
    record = case.record
    length = page_up(int(record["length" if case.op == "mmap" else "length2"]))
    offset = int(record["value"]) if case.op == "mmap" else 0
    is_placed = case.op in ("mmap", "mremap") and case.host["ret"] < case.emulated["ret"]
    return is_placed and length >= _HUGE and (int(case.host["ret"]) - offset) % _HUGE == 0


def is_beyond_a_guard(case: Case) -> bool:
    """What is further down because the guard gap of a stack reaches over something else."""
    return case.op in ("mmap", "mremap") and case.is_of_placing("guard")


def is_too_much(case: Case) -> bool:
    """A promise of more memory than the host has, that 5.1 has no other reason to refuse."""
    settings = case.history.host.settings
    if settings["overcommit"] == 1 or not case.is_({"errno": None}, {"errno": "ENOMEM"}):
        return False
    record = case.record
    there = mapped(case.history, case.position, case.space)
    promised = {
        "mmap": int(record["length"]) if _promises(case.history, record) else 0,
        "mprotect": int(record["length"]) if int(record["prot"]) & _WRITE else 0,
        # Newer kernels count what it is to take away as well.
        "mremap": max(int(record["length"]), int(record["length2"])),
        "brk": int(record["addr"]),
        # Each VMA on its own.
        "fork": max((end - start for start, end in there.stretches(0, USER_END)), default=0),
    }
    is_too_much = int(settings["memory"]) < promised.get(case.op, 0) <= USER_END
    return is_too_much and _is_possible(case, there)


def _is_possible(case: Case, there: Ranges) -> bool:
    """Whether what the emulator says that it did can be: there is memory, or room for it."""
    record, ret = case.record, int(case.emulated["ret"] or 0)
    length = page_up(int(record["length"]))
    if case.op == "mprotect":
        parts = there.within(case.page, case.page + length)
        return sum(end - start for start, end in parts) == length
    if case.op == "mmap" and not int(record["flags"]) & MMAP_FLAGS["fixed"]:
        return not there.meets(ret, ret + length)
    if case.op == "mremap" and ret == case.page:
        return not there.meets(ret + length, ret + page_up(int(record["length2"])))
    if case.op == "brk":
        return not there.meets(page_up(ret - int(record["addr"])), page_up(ret))
    return True


def _promises(history: History, record: np.void) -> bool:
    """Whether an mmap is of memory that is charged: what may be written to and is no file's.

    Shared memory of /dev/zero is anonymous.
    """
    flags, file = int(record["flags"]), int(record["aux"])
    if flags & MMAP_FLAGS["noreserve"]:
        return False
    if flags & MMAP_FLAGS["shared"]:
        return not file or history.program.files[file - 1].kind == "devzero"
    return bool(int(record["prot"]) & _WRITE)


def is_locked_too_much(case: Case) -> bool:
    """More memory to be locked than the host permits; 5.1's limit is not modelled."""
    if case.op in ACCESS_OPS:
        return _has_grown_too_far(case)
    refusal = {"mlock": "ENOMEM", "mmap": "EAGAIN", "mremap": "EAGAIN"}.get(case.op)
    if refusal is None or case.host["errno"] != refusal:
        return False
    wraps = case.page + int(case.record["length"]) >= 1 << 64
    if case.op == "mlock" and case.emulated["errno"] == "EINVAL" and wraps:
        return True  # which 5.1 sees next
    if case.emulated["errno"] is not None:
        return False
    if case.op == "mlock":
        start, end = case.page, case.page + page_up(int(case.record["length"]))
        there = mapped(case.history, case.position, case.space).within(start, end)
        if sum(high - low for low, high in there) != end - start:
            return False  # there is a hole, for which 5.1 refuses it
    return _locks_too_much(case.history, case.position, case.space, case.page, case.record)


def _has_grown_too_far(case: Case) -> bool:
    """A locked stack that grows, on the emulator."""
    maperr = {"signal": "SIGSEGV", "si_code": "SEGV_MAPERR"}
    refused = case.is_({}, maperr) or case.is_({}, {"errno": "EFAULT"})
    if not refused or not case.is_({"signal": None, "errno": None}, {}):
        return False
    page = case.page
    above = mapped(case.history, case.position, case.space).stretches(page, USER_END)
    locked = _locked(case.history, case.position, case.space)
    if not above or not page < above[0][0]:
        return False
    stack = locked.within(*above[0])  # without what it has grown by
    limit = int(case.history.host.settings["max_locked"])
    return bool(stack) and locked.size + stack[0][0] - page > limit


def locks_before_a_hole(history: History, call: Call) -> bool:
    """An mlock of too much, which 5.1 goes on with up to the hole for which it is refused."""
    start, end = call.range
    space = history.spaces.of_task(call.task, call.position)
    if call.errno != errno.ENOMEM or end >= 1 << 64:
        return False
    if not mapped(history, call.position, space).meets(start, start + 4096):
        return False
    return _locks_too_much(history, call.position, space, call.address, call.record)


def _locks_too_much(
    history: History, position: int, space: int, start: int, record: np.void
) -> bool:
    """Whether it would be more than the limit with what is locked already.

    An upper bound: 5.1 locks no more than is mapped.
    """
    there = _locked(history, position, space)
    length = page_up(int(record["length"]))
    if int(record["op"]) == OPS["mremap"].code:
        length = page_up(int(record["length2"])) - length
    elif int(record["op"]) == OPS["mlock"].code:
        there.remove(start, start + length)  # what is locked already counts once
    return there.size + length > int(history.host.settings["max_locked"])


def _locked(history: History, position: int, space: int) -> Ranges:
    """What an address space may have locked at a position. A child begins with nothing."""
    found = Ranges()
    of_task = history.spaces.of_task
    for call in reversed(history.before(position, space)):
        if of_task(call.task, call.position) != space:
            continue
        start, end = call.range
        if call.op == "mlock" and call.errno == errno.ENOMEM:
            # Up to the first hole, if the limit did not forbid all of it.
            parts = mapped(history, call.position, space).within(start, end)
            if parts and parts[0][0] == start:
                found.add(*parts[0])
        elif call.op == "mlock" and not call.errno:
            found.add(start, end)
        elif call.errno:
            continue
        elif call.op in ("munlock", "munmap"):
            found.remove(start, end)
        elif call.op == "mmap":
            found.remove(call.ret, call.ret + call.length)
            if int(call.record["flags"]) & MMAP_FLAGS["locked"]:
                found.add(call.ret, call.ret + call.length)
        elif call.op == "mremap" and found.meets(start, end):
            found.remove(start, end)
            found.add(call.ret, call.ret + call.new_length)
    return found


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
