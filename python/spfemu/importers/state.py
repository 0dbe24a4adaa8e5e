"""What the importer knows of the recorded machine: tasks, processes and their address spaces."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

from spfemu.importers.order import Mark, Trail
from spfemu.importers.ranges import RangeMap
from spfemu.importers.tape import Tape

__all__ = ["PAGE_SIZE", "Area", "Process", "Space", "TaskState", "page_up"]

PAGE_SIZE = 4096
"""What an x86 recording has."""


def page_up(length: int) -> int:
    """Returns a length rounded up to pages. Source: ours."""
    return (length + PAGE_SIZE - 1) & -PAGE_SIZE


class Area(NamedTuple):
    """What lies in a range of addresses: protection bits, the label's number, the file's number
    from 1 (0 none), the file offset less the address, and whether it is shared. Source: ours.
    """

    prot: int
    label: int
    file: int = 0
    origin: int = 0
    shared: bool = False


@dataclass(slots=True, eq=False)
class Space:
    """One address space: what is mapped in it, who uses it, and the trail of what happened in it.

    ``brk`` is the end of the heap, None before it is known. ``exec_at`` is the exec that made this
    space and still lacks the start of the heap. ``loading`` is true while exec maps the program.
    ``life`` is the latest start or end of a task here. ``guesses`` are accesses taken for writes,
    by page. Source: ours.
    """

    areas: RangeMap[Area] = field(default_factory=RangeMap)
    trail: Trail = field(default_factory=Trail)
    users: set[int] = field(default_factory=set)
    brk: int | None = None
    exec_at: Mark | None = None
    loading: bool = False
    life: Mark | None = None
    guesses: dict[int, Mark] = field(default_factory=dict)

    def forget_guesses(self, start: int, end: int) -> None:
        """The pages of a range are new: the next fault there tells nothing about those before.
        Source: ours.
        """
        if self.guesses:
            pages = range(start // PAGE_SIZE, -(-end // PAGE_SIZE))
            few, many = sorted((pages, self.guesses), key=len)
            for page in [page for page in few if page in many]:
                del self.guesses[page]


@dataclass(slots=True, eq=False)
class Process:
    """A process: its tasks that live, who made it, and the ends of its children that nothing here
    came after yet.

    Source: ours.
    """

    pid: int
    parent: Process | None = None
    tasks: dict[int, TaskState] = field(default_factory=dict)
    children_ended: set[int] = field(default_factory=set)


@dataclass(slots=True, eq=False)
class TaskState:
    """A task that lives.

    ``owed`` are operations that its next one must come after; ``compute_ns`` and ``sleep_ns`` the
    gap before it. ``moving`` is what an mremap that has begun moves. ``apart`` tells a process that
    shares memory without being a vfork child, and so is a thread of the program; ``lost`` that it
    left that memory. Source: ours.
    """

    tape: Tape
    tid: int
    process: Process
    space: Space
    start: str | None
    comm: str
    owed: set[Mark] = field(default_factory=set)
    compute_ns: int = 0
    sleep_ns: int = 0
    execed: bool = False
    apart: bool = False
    lost: bool = False
    moving: Area | None = None

    @property
    def number(self) -> int:
        """The task's number in the program. Source: ours."""
        return self.tape.number
