"""Reads what ``perf script`` prints: one line, one event."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Final

from spfemu.errors import TraceError
from spfemu.importers.events import (
    Ended,
    Enter,
    Event,
    Exec,
    Exit,
    Fault,
    Forked,
    Lost,
    Mapped,
    NewTask,
    Renamed,
    Skipped,
    Switched,
)
from spfemu.importers.lines import LineReader

__all__ = ["FIELDS", "HEADER", "read_perf"]

FIELDS: Final = "comm,pid,tid,cpu,time,event,trace"
"""The fields that a recording of system calls and faults needs (``perf script -F``)."""

HEADER: Final = re.compile(
    r"\s*(\S.*?)\s+(-?\d+)/(-?\d+)\s+(?:\[(\d+)\]\s+)?(\d+)\.(\d{1,9}):\s+(.*)", re.ASCII
)
# Most lines are of this kind: read whole, for speed. What it does not match is read in parts.
_FAULT_LINE: Final = re.compile(
    r"\s*(\S+(?: \S+)*?)\s+(\d+)/(\d+)\s+\[(\d+)\]\s+(\d+)\.(\d{9}):\s+"
    r"exceptions:page_fault_(?:(user)|kernel):\s+address=0x([0-9a-f]+) ip=(\S+) "
    r"error_code=0x([0-9a-f]+)",
    re.ASCII,
)
_ARGUMENT: Final = re.compile(r"(\w+): (0x[0-9a-fA-F]+|-?\d+)")
_FAULT: Final = re.compile(r"address=0x([0-9a-f]+) ip=(\S+) error_code=0x([0-9a-f]+)$")
_SOFTWARE_FAULT: Final = re.compile(
    r"(?:\d+\s+)?(?:page-faults|faults):?[uSkHpP]*:\s+([0-9a-f]+)\s+([0-9a-f]+)\b"
)
_MMAP: Final = re.compile(
    r"PERF_RECORD_MMAP2? (-?\d+)/(-?\d+): \[(?:0x)?([0-9a-f]+)\((?:0x)?([0-9a-f]+)\) @ "
    r"(?:0x)?([0-9a-f]+)[^\]]*\]: (\S+) ?(.*)"
)
_FORK: Final = re.compile(r"PERF_RECORD_(FORK|EXIT)\((-?\d+):(-?\d+)\):\((-?\d+):(-?\d+)\)")
_COMM: Final = re.compile(r"PERF_RECORD_COMM( exec)?: (.*):(-?\d+)/(-?\d+)$")
_NEWTASK: Final = re.compile(r"pid=(\d+) comm=.* clone_flags=(?:0x)?([0-9a-f]+) ")
_EXEC: Final = re.compile(r"filename=.* pid=(\d+) old_pid=(\d+)$")
_EXITED: Final = re.compile(r"comm=.* pid=(\d+) prio=")
_SWITCH: Final = re.compile(r" next_pid=(\d+)")
_LOST: Final = re.compile(r"PERF_RECORD_LOST(?:_SAMPLES)?\D*(\d+)?")
_EVENT: Final = re.compile(r"(?:\d+\s+)?([A-Za-z][\w.:/-]*[\w/]):(?:\s+|$)(.*)")
# The lines of a call chain follow the line of their event.
_CHAIN: Final = re.compile(r"\s+[0-9a-f]{4,16} .*\(.*\)$")

# Of x86's error code: bit 1 is a write, bit 4 an instruction fetch.
_ACCESS_BITS: Final = 0x12
_ACCESS: Final = {0x00: 0, 0x02: 1, 0x10: 2, 0x12: 2}

Head = tuple[int, int, int, int, str]
"""Time, tid, pid, cpu and comm of a line."""


def read_perf(reader: LineReader) -> Iterator[Event]:
    """Reads perf script text, event by event, in the order of the text.

    Lines that begin with # and empty lines are passed over; a line that is understood and not used
    comes out as ``Skipped``. Source: perf script's output with the fields of ``FIELDS`` (or
    ``comm,pid,tid,time,event,addr,ip``). Raises TraceError for a line that is neither.
    """
    match, match_fault = HEADER.match, _FAULT_LINE.fullmatch
    for line in reader:
        found = match_fault(line)
        if found is not None:
            comm, pid, tid, cpu, seconds, fraction, user, address, ip, code = found.groups()
            yield Fault(
                int(seconds + fraction), int(tid), int(pid), int(cpu), comm,
                int(address, 16), int(ip, 16) if ip.startswith("0x") else ip,
                _ACCESS[int(code, 16) & _ACCESS_BITS], user is not None,
            )  # fmt: skip
            continue
        found = match(line)
        if found is None:
            text = line.strip()
            if not text or text.startswith("#") or _CHAIN.match(line):
                continue
            raise reader.error(
                f"is not a line of perf script with the fields {FIELDS}: {text[:80]!r}"
            )
        comm, pid, tid, cpu, seconds, fraction, text = found.groups()
        time = int(seconds) * 1_000_000_000 + int(fraction.ljust(9, "0"))
        head = (time, int(tid), int(pid), -1 if cpu is None else int(cpu), comm)
        yield _event(reader, head, text)


def _event(reader: LineReader, head: Head, text: str) -> Event:
    if text.startswith("PERF_RECORD_"):
        return _record(reader, head, text)
    found = _EVENT.match(text)
    if found is None:
        raise reader.error(f"broken line: no event name after the time: {text[:80]!r}")
    name, rest = found.groups()
    group, _, short = name.partition(":")
    if group == "exceptions" and short in ("page_fault_user", "page_fault_kernel"):
        return _fault(reader, head, rest, short == "page_fault_user")
    if group == "syscalls" and short.startswith("sys_enter_"):
        return _enter(head, short[10:], rest)
    if group == "syscalls" and short.startswith("sys_exit_"):
        return _exit(reader, head, short[9:], rest)
    if group in ("page-faults", "faults"):
        return _software_fault(reader, head, text)
    parse = _TRACEPOINTS.get(name)
    if parse is None:
        return Skipped(*head, kind=f"event {name}")
    return parse(reader, head, rest)


def _broken(reader: LineReader, event: str, text: str, wanted: str) -> TraceError:
    return reader.error(f"broken line: {event} without {wanted}: {text[:80]!r}")


def _fault(reader: LineReader, head: Head, text: str, user: bool) -> Event:
    found = _FAULT.match(text)
    if found is None:
        name = "page_fault_user" if user else "page_fault_kernel"
        raise _broken(reader, name, text, "address=0x… ip=… error_code=0x…")
    address, ip, code_text = found.groups()
    return Fault(
        *head, address=int(address, 16), ip=int(ip, 16) if ip.startswith("0x") else ip,
        access=_ACCESS[int(code_text, 16) & _ACCESS_BITS], user=user,
    )  # fmt: skip


def _software_fault(reader: LineReader, head: Head, text: str) -> Event:
    found = _SOFTWARE_FAULT.match(text)
    if found is None:
        raise _broken(
            reader,
            "page-faults",
            text,
            "an address and an ip (perf record -d, perf script -F …,addr,ip)",
        )
    address, ip = found.groups()
    return Fault(
        *head, address=int(address, 16),
        ip=int(ip, 16), access=None, user=True,
    )  # fmt: skip


def _enter(head: Head, name: str, text: str) -> Event:
    args = {key: int(value, 0) for key, value in _ARGUMENT.findall(text)}
    return Enter(*head, name=name, args=args)


def _exit(reader: LineReader, head: Head, name: str, text: str) -> Event:
    try:
        result = int(text.split(None, 1)[0], 0)
    except (IndexError, ValueError):
        raise _broken(reader, f"sys_exit_{name}", text, "a result") from None
    if result >= 1 << 63:
        result -= 1 << 64
    return Exit(*head, name=name, result=result)


def _newtask(reader: LineReader, head: Head, text: str) -> Event:
    found = _NEWTASK.match(text)
    if found is None:
        raise _broken(reader, "task_newtask", text, "pid=, comm= and clone_flags=")
    return NewTask(
        *head,
        child=int(found[1]), flags=int(found[2], 16),
    )  # fmt: skip


def _exec(reader: LineReader, head: Head, text: str) -> Event:
    found = _EXEC.match(text)
    if found is None:
        raise _broken(reader, "sched_process_exec", text, "pid= and old_pid=")
    return Exec(*head, old_tid=int(found[2]))


def _exited(reader: LineReader, head: Head, text: str) -> Event:
    found = _EXITED.match(text)
    if found is None:
        raise _broken(reader, "sched_process_exit", text, "pid=")
    return Ended(*head, child=int(found[1]))


def _switch(reader: LineReader, head: Head, text: str) -> Event:
    found = _SWITCH.search(text)
    if found is None:
        raise _broken(reader, "sched_switch", text, "next_pid=")
    return Switched(*head, successor=int(found[1]))


_TRACEPOINTS: Final[dict[str, Callable[[LineReader, Head, str], Event]]] = {
    "task:task_newtask": _newtask,
    "sched:sched_process_exec": _exec,
    "sched:sched_process_exit": _exited,
    "sched:sched_switch": _switch,
}


def _record(reader: LineReader, head: Head, text: str) -> Event:
    if text.startswith("PERF_RECORD_MMAP"):
        return _mmap(reader, head, text)
    if (found := _FORK.match(text)) is not None:
        kind, child_pid, child, parent_pid, parent = found.groups()
        if kind == "EXIT":
            return Ended(*head, child=int(child))
        return Forked(
            *head,
            child=int(child), child_pid=int(child_pid), parent=int(parent),
            parent_pid=int(parent_pid),
        )  # fmt: skip
    if (found := _COMM.match(text)) is not None:
        execed, name, _, child = found.groups()
        return Renamed(*head, child=int(child), name=name, execed=execed is not None)
    if (found := _LOST.match(text)) is not None:
        return Lost(*head, count=int(found[1] or 1))
    kind = text.split(None, 1)[0].rstrip(":")
    if kind.startswith(("PERF_RECORD_FORK", "PERF_RECORD_EXIT", "PERF_RECORD_COMM")):
        raise _broken(reader, kind, text, "the ids of its tasks")
    return Skipped(*head, kind=kind)


def _mmap(reader: LineReader, head: Head, text: str) -> Event:
    found = _MMAP.match(text)
    if found is None:
        raise _broken(
            reader, "PERF_RECORD_MMAP2", text, "[start(length) @ offset …]: protection name"
        )
    owner, _, start, length, offset, prot, name = found.groups()
    if int(owner) < 0:
        return Skipped(*head, kind="mapping of the kernel")
    bits = sum(bit for letter, bit in (("r", 1), ("w", 2), ("x", 4)) if letter in prot)
    return Mapped(
        *head, start=int(start, 16), length=int(length, 16),
        offset=int(offset, 16), prot=bits, shared=prot.endswith("s"), name=name, owner=int(owner),
    )  # fmt: skip
