"""When the host refuses what 5.1 would do for want of memory, or of memory that may be locked.

Each is as narrow as what results and the program say allows.
"""

from __future__ import annotations

import errno
from typing import Final

import numpy as np

from spfemu.oracle.cases import Case
from spfemu.oracle.history import ACCESS_OPS, Call, History
from spfemu.oracle.mapped import USER_END, Ranges, mapped, mapped_before, page_up
from spfemu.program.ops import MMAP_FLAGS, OPS

__all__ = [
    "is_locked_too_much",
    "is_too_much",
    "locks_before_a_hole",
    "promises_before_a_hole",
]

_WRITE: Final = 2


def is_too_much(case: Case) -> bool:
    """A promise of more memory than the host has, that 5.1 has no other reason to refuse."""
    settings = case.history.host.settings
    if settings["overcommit"] == 1 or not case.is_({"errno": None}, {"errno": "ENOMEM"}):
        return False
    record = case.record
    there = mapped(case.history, case.position, case.space)
    promised = {
        "mmap": int(record["length"]),
        "mprotect": int(record["length"]) if int(record["prot"]) & _WRITE else 0,
        # Newer kernels count what it is to take away as well.
        "mremap": max(int(record["length"]), int(record["length2"])),
        "brk": int(record["addr"]),
        # Each VMA on its own.
        "fork": max((end - start for start, end in there.stretches(0, USER_END)), default=0),
    }
    is_too_much = int(settings["memory"]) < promised.get(case.op, 0) <= USER_END
    if case.op == "mmap" and not _promises(case.history, record):
        return False
    return is_too_much and _is_possible(case, there)


def promises_before_a_hole(history: History, call: Call) -> bool:
    """An mprotect of too much, which 5.1 goes on with up to the hole for which it is refused."""
    settings = history.host.settings
    if call.errno != errno.ENOMEM or not int(call.record["prot"]) & _WRITE:
        return False
    there = mapped_before(history, call).stretches(call.address, USER_END)
    is_there = bool(there) and there[0][0] == call.address
    return is_there and settings["overcommit"] != 1 and _size(there[0]) > int(settings["memory"])


def _size(stretch: tuple[int, int]) -> int:
    return stretch[1] - stretch[0]


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
