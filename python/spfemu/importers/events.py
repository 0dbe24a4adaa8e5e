"""What a recording says, line by line, whichever tool wrote it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

__all__ = [
    "CLONE_THREAD",
    "CLONE_VFORK",
    "CLONE_VM",
    "Call",
    "Ended",
    "Enter",
    "Event",
    "Exec",
    "Exit",
    "Fault",
    "Forked",
    "Lost",
    "Mapped",
    "NewTask",
    "Renamed",
    "Skipped",
    "Switched",
]

CLONE_VM: Final = 0x100
CLONE_VFORK: Final = 0x4000
CLONE_THREAD: Final = 0x10000


@dataclass(slots=True, eq=False)
class Event:
    """One line of a recording: when, on which CPU and in which task.

    Source: ours. ``time`` in nanoseconds; ``cpu`` and ``pid`` are -1 where the line does not say.
    ``compute_ns`` and ``sleep_ns`` are what the task did since its event before this one;
    ``with_gaps`` fills them in.
    """

    time: int
    tid: int
    pid: int
    cpu: int
    comm: str
    compute_ns: int = field(default=0, init=False)
    sleep_ns: int = field(default=0, init=False)


@dataclass(slots=True, eq=False)
class Fault(Event):
    """A page fault. ``access`` is an index into read, write, execute, or None where the recording
    does not say; ``ip`` is an address or a kernel function's name. Source: perf's
    exceptions:page_fault_* and page-faults events.
    """

    address: int
    ip: int | str
    access: int | None
    user: bool = True


@dataclass(slots=True, eq=False)
class Enter(Event):
    """A system call begins. ``args`` by the kernel's names, as far as they are numbers. Source:
    syscalls:sys_enter_*, strace.
    """

    name: str
    args: dict[str, int]


@dataclass(slots=True, eq=False)
class Exit(Event):
    """A system call ends with ``result`` (negative: an errno). ``early``: the tool printed the
    result together with the beginning, so that other lines of the call may still follow. Source:
    syscalls:sys_exit_*, strace.
    """

    name: str
    result: int
    early: bool = False


@dataclass(slots=True, eq=False)
class Mapped(Event):
    """PERF_RECORD_MMAP2: the mapping as it is after an operation, merged with its neighbours.
    Source: perf.
    """

    start: int
    length: int
    offset: int
    prot: int
    shared: bool
    name: str
    owner: int


@dataclass(slots=True, eq=False)
class NewTask(Event):
    """task:task_newtask: this task made the task ``child``. ``flags`` as clone's. Source: perf."""

    child: int
    flags: int


@dataclass(slots=True, eq=False)
class Forked(Event):
    """PERF_RECORD_FORK: ``parent`` made the task ``child`` of process ``child_pid``; ``flags`` are
    those of the call, where it is known. Source: perf.
    """

    child: int
    child_pid: int
    parent: int
    parent_pid: int
    flags: int | None = None


@dataclass(slots=True, eq=False)
class Ended(Event):
    """The task ``child`` ended. Source: sched:sched_process_exit, PERF_RECORD_EXIT, strace."""

    child: int


@dataclass(slots=True, eq=False)
class Renamed(Event):
    """PERF_RECORD_COMM: the task ``child`` has a new name; ``execed`` when exec gave it. Source:
    perf.
    """

    child: int
    name: str
    execed: bool


@dataclass(slots=True, eq=False)
class Exec(Event):
    """sched:sched_process_exec: the process runs another program, ``old_tid`` made the call.
    Source: perf.
    """

    old_tid: int


@dataclass(slots=True, eq=False)
class Switched(Event):
    """sched:sched_switch: the task leaves its CPU to the task ``successor``. Source: perf."""

    successor: int


@dataclass(slots=True, eq=False)
class Lost(Event):
    """PERF_RECORD_LOST: perf dropped ``count`` events. Source: perf."""

    count: int


@dataclass(slots=True, eq=False)
class Skipped(Event):
    """A line that is understood and not used; ``kind`` is counted. Source: ours."""

    kind: str


@dataclass(slots=True, eq=False)
class Call(Event):
    """A system call from beginning to end, placed in time where it takes effect.

    ``result`` is None when its end was never read. ``ended`` is the time of its end. ``mapped`` is
    the mapping that perf reported inside it. ``begins`` marks the first half of a call that takes
    effect in two places. ``done`` is false until the end has been read. Source: ours.
    """

    name: str
    args: dict[str, int]
    result: int | None = None
    ended: int = 0
    mapped: Mapped | None = None
    begins: bool = False
    done: bool = False
