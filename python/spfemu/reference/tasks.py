"""Tasks, processes, barriers, and the records and outcomes of the array form."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

from spfemu.reference.mm import Mm
from spfemu.reference.model import Mempolicy

Condition = Callable[[], bool]
Steps = Iterator[Condition]
"""A task at work: it yields what it waits for, and goes on when that has become true."""


class Record(NamedTuple):
    """One record of the array form; the fields of `OP_DTYPE`."""

    op: int
    flags: int
    prot: int
    access: int
    mode: int
    advice: int
    base: int
    addr: int
    length: int
    base2: int
    addr2: int
    length2: int
    value: int
    aux: int


class Outcome(NamedTuple):
    """One outcome; the fields of `OUTCOME_DTYPE`."""

    task: int
    record: int
    round: int
    access: int
    op: int
    handled: int
    livelock: int
    signal: int
    si_code: int
    has: int
    errno: int
    ret: int
    value: int
    counters: tuple[int, ...]


@dataclass(eq=False)
class Process:
    """A thread group: its address space, its tasks, and what /proc said of it in the end."""

    name: str
    mm: Mm
    tasks: list[Task] = field(default_factory=list)
    maps: list[str] = field(default_factory=list)
    proc: dict[str, list[str]] = field(default_factory=dict)

    @property
    def is_alive(self) -> bool:
        """Whether a task of it has not ended."""
        return any(not task.ended for task in self.tasks)


@dataclass(eq=False)
class Task:
    """A task: its records, where it is, and what came of them."""

    number: int
    name: str
    records: list[Record]
    process: Process | None = None
    steps: Steps = field(default_factory=lambda: iter(()))
    condition: Condition | None = None
    ended: bool = False
    ran: list[int] = field(default_factory=list)
    """For each record, how often it has run."""
    timed_rounds: int = 0
    policy: Mempolicy | None = None
    """What set_mempolicy has set; a child begins with its parent's."""
    mems_allowed: int = 0
    """The nodes of its cpuset, as a mask; a child begins with its parent's."""
    outcomes: list[Outcome] = field(default_factory=list)

    @property
    def mm(self) -> Mm:
        """The address space it runs in."""
        assert self.process is not None, "the task has started"
        return self.process.mm

    @property
    def is_runnable(self) -> bool:
        """Whether it has started, has not ended, and does not wait for anything."""
        if self.process is None or self.ended:
            return False
        return self.condition is None or self.condition()


@dataclass
class Barrier:
    """A barrier: who names it, who has come, and how often it has opened."""

    tasks: list[Task] = field(default_factory=list)
    waiting: set[int] = field(default_factory=set)
    generation: int = 0

    def has_opened(self, generation: int) -> bool:
        """Opens if everybody has come or ended; whether that has happened since `generation`."""
        if self.waiting and all(t.ended or t.number in self.waiting for t in self.tasks):
            self.waiting.clear()
            self.generation += 1
        return self.generation != generation
