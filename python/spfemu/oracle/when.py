"""When each of the named exceptions to the host's agreement applies.

Each is as narrow as what results and the program say allows.
"""

from __future__ import annotations

import errno
from typing import Final

import numpy as np

from spfemu.oracle.cases import Case
from spfemu.oracle.history import Call, History
from spfemu.oracle.mapped import USER_END, Ranges, mapped, page_up
from spfemu.program.ops import GIVEN, MMAP_FLAGS, MREMAP_FLAGS
from spfemu.results import errno_name

__all__ = [
    "has_cleared_its_place",
    "has_moved_the_first",
    "is_address_as_errno",
    "is_alone_at_the_end",
    "is_brk_over_hole",
    "is_dontunmap",
    "is_hint_too_low",
    "is_locked_on_fault",
    "is_locked_too_much",
    "is_mbind_to_a_hole",
    "is_mremap_checked_first",
    "is_mremap_of_nothing",
    "is_mremap_of_several",
    "is_read_ahead",
    "is_several_too_low",
    "is_too_much",
    "is_v12_code",
    "is_v12_livelock",
    "was_made_writable",
]

_REFUSED: Final = {"signal": "SIGSEGV", "si_code": "SEGV_ACCERR"}
_WRITE: Final = 2
_MREMAP: Final = MREMAP_FLAGS
_FIXED: Final = MMAP_FLAGS["fixed"] | MMAP_FLAGS["fixed_noreplace"]


def is_v12_code(case: Case) -> bool:
    """C3: the speculative handler's refusal comes with the code of an address without mapping."""
    emulated = {"signal": "SIGSEGV", "si_code": "SEGV_MAPERR", "handled": "spf"}
    refused = case.emulated["counters"].get("pagefault:spf_vma_access", 0) > 0
    return refused and case.is_(emulated, _REFUSED)


def is_v12_livelock(case: Case) -> bool:
    """C2: the speculative handler lets an execute fault go on for ever."""
    return case.handler == "spf" and case.is_({"livelock": True}, _REFUSED)


def was_made_writable(case: Case) -> bool:
    """A write to a page that mprotect gave back the right to be written to."""
    if not case.is_({"faults": 1, "signal": None}, {"faults": 0, "signal": None}):
        return False
    page = case.page
    for call in case.before:
        if call.op == "mprotect" and call.covers(page) and int(call.record["prot"]) & _WRITE:
            return True
        length = int(call.record["length2"])
        if call.op == "mremap" and not call.errno and 0 <= page - call.ret < length:
            page += call.address - call.ret  # it came from there
    return False


def is_brk_over_hole(case: Case) -> bool:
    """A break that goes down over pages of which nothing is mapped any more."""
    if case.op != "brk" or not case.is_({"errno": None}, {"errno": "ENOMEM"}):
        return False
    lower = int(case.emulated["ret"])
    upper = lower - int(case.record["addr"])
    there = mapped(case.history, case.position, case.space)
    return lower < upper and not there.meets(page_up(lower), page_up(upper))


def is_mremap_of_nothing(case: Case) -> bool:
    """mremap where nothing is mapped, which 5.1 need not even notice."""
    if case.op != "mremap" or case.host["errno"] != "EFAULT":
        return False
    page = case.page
    return not mapped(case.history, case.position, case.space).meets(page, page + 4096)


def is_mremap_checked_first(case: Case) -> bool:
    """mremap of what 5.1 refuses later, for another reason, or never."""
    host = case.host["errno"]
    if case.op != "mremap" or host not in ("EINVAL", "EFAULT"):
        return False
    record = case.record
    old, new = int(record["length"]), int(record["length2"])
    # 5.1 cannot unmap what is beyond user space, and finds out when all else is done.
    if max(old, new) > USER_END or case.page + old > USER_END:
        return True
    if host == "EFAULT":
        return False
    # Of nothing, to a place that it is in itself: 5.1 does not find it any more.
    target = case.history.target(record, case.position)
    is_itself = int(record["flags"]) & _MREMAP["fixed"] and target <= case.page < target + new
    return bool(is_itself) and not old and case.emulated["errno"] == "EFAULT"


def is_mremap_of_several(case: Case) -> bool:
    """mremap that only moves what is in several VMAs."""
    errnos = case.is_({"errno": "EFAULT"}, {"errno": None})
    return errnos and _only_moves(case)


def is_several_too_low(case: Case) -> bool:
    """mremap of several VMAs to where nobody may map: 5.1 minds first that they are several."""
    if not case.is_({"errno": "EFAULT"}, {"errno": "EPERM"}) or not _only_moves(case):
        return False
    target = case.history.target(case.record, case.position)
    there = mapped(case.history, case.position, case.space)
    is_too_low = target < int(case.history.host.settings["mmap_min_addr"])
    return is_too_low and there.meets(case.page, case.page + 4096)


def _only_moves(case: Case) -> bool:
    """Whether it is an mremap to a given place that changes no length, in whole pages."""
    record = case.record
    same_length = page_up(int(record["length"])) == page_up(int(record["length2"]))
    is_move = case.op == "mremap" and bool(int(record["flags"]) & _MREMAP["fixed"])
    return is_move and same_length


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
    """A hint that only the emulator takes, for it has one lowest address where the host has two."""
    hint = case.history.address(case.record, case.position) & ~4095
    is_hint = case.op == "mmap" and not int(case.record["flags"]) & _FIXED
    lowest = int(case.history.host.settings["lowest_hint"])
    return is_hint and case.emulated["ret"] == hint < lowest <= case.host["ret"]


def is_too_much(case: Case) -> bool:
    """A promise of more memory than the host has."""
    settings = case.history.host.settings
    if settings["overcommit"] == 1 or not case.is_({"errno": None}, {"errno": "ENOMEM"}):
        return False
    record = case.record
    promised = {
        "mmap": int(record["length"]),
        "mprotect": int(record["length"]),
        # Newer kernels count what it is to take away as well.
        "mremap": max(int(record["length"]), int(record["length2"])),
        "brk": int(record["addr"]),
    }
    return promised.get(case.op, 0) > int(settings["memory"])


def is_locked_too_much(case: Case) -> bool:
    """More memory to be locked than the host permits; 5.1's limit is not modelled."""
    refusal = {"mlock": "ENOMEM", "mmap": "EAGAIN", "mremap": "EAGAIN"}.get(case.op)
    if refusal is None or case.host["errno"] != refusal:
        return False
    asked = [_to_lock(call.op, call.record) for call in case.before]
    total = sum(asked) + _to_lock(case.op, case.record)
    return total > int(case.history.host.settings["max_locked"])


def _to_lock(op: str, record: np.void) -> int:
    """The bytes that a call may lock."""
    if op == "mlock" or (op == "mmap" and int(record["flags"]) & MMAP_FLAGS["locked"]):
        return page_up(int(record["length"]))
    return page_up(int(record["length2"])) if op == "mremap" else 0


def is_alone_at_the_end(case: Case) -> bool:
    """A file's last page, where an access beyond it had found nothing else to map around."""
    if case.is_of_merging("alone"):
        return True
    # It is mapped now; if it is to be executed and must not be, that is refused by another fault.
    if case.host["faults"] != case.emulated["faults"] + 1:
        return False
    mapping = case.mapping
    if mapping is None or mapping.file.kind != "regular":
        return False
    last = (mapping.file.length - 1) // 4096
    # Fault-around begins at a multiple of 64 KiB, or where the mapping does.
    first = max(case.page & ~0xFFFF, mapping.start)
    return mapping.page_of_file == last and first == case.page


def is_read_ahead(case: Case) -> bool:
    """A page that truncate has added to a file on disk, and that came with another one."""
    if case.emulated["faults"] != case.host["faults"] + 1:
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
    return bool(lengths) and mapping.page_of_file >= -(-had // 4096)


def is_address_as_errno(case: Case) -> bool:
    """A fixed address in the last page, whose negative comes back as the errno."""
    address = case.history.address(case.record, case.position)
    errnos = {"errno": "ENOMEM"}, {"errno": errno_name((1 << 64) - address)}
    return case.op == "mmap" and case.is_(*errnos)


def is_locked_on_fault(case: Case) -> bool:
    """mlock of what may not be accessed, whose pages are to come later."""
    is_onfault = case.op == "mlock" and int(case.record["flags"]) & 1
    return bool(is_onfault) and case.is_({"errno": "ENOMEM"}, {"errno": None})
