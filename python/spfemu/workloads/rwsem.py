"""The rwsem locking microbenchmark, as near as system calls come to it."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Final

from spfemu.program.builder import ProgramBuilder
from spfemu.program.model import Program, System
from spfemu.results import Result
from spfemu.workloads.job import (
    DEFAULT_CPUS,
    MAX_TASKS,
    NS,
    STACK_SIZE,
    Arguments,
    Job,
    Option,
    rate,
    start_thread,
)

__all__ = ["OPTIONS", "Rwsem", "rwsem_job"]

_ROUND: Final = 20
"""How many times a round takes the lock: the readers' share is met to 5 %."""

_NOWHERE: Final = 0x10000
"""An address where nothing is mapped."""


@dataclass(frozen=True, slots=True)
class Rwsem(Job):
    """rwsem: threads that take mmap_sem and give it back at once, as often as they can.

    Source: the output of W. Long's kernel module ("Running locktest with rwsem [runtime = 15s, r% =
    50%, load = 100]"), on which his patches to rwsem of 2019 report; its source is not known to us.
    ``tasks`` threads all do the same; ``readers`` percent of the times, in an order that is drawn,
    they read; ``seconds`` as -s.

    A lock by itself is nothing that a program has. Here a reader is an madvise(MADV_DONTNEED) where
    nothing is mapped, a writer a brk that asks where the break is: both look at a few words of the
    address space with mmap_sem held, which is the very short critical section. The module makes no
    system call: a machine with ``syscall_ns=0`` is the nearer one.

    >>> from spfemu.workloads import Rwsem
    >>> [task.name for task in Rwsem(tasks=2).build().tasks]
    ['rwsem', 'task0', 'task1']
    """

    tasks: int = DEFAULT_CPUS
    readers: int = 50
    seconds: float = 1.0

    @property
    def nr_tasks(self) -> int:  # type: ignore[override]
        """How many threads take the lock. Source: the module's "Threads"."""
        return self.tasks

    def build(self, *, page_size: int = 4096, seed: int = 0) -> Program:
        """Returns the program. Source: see the class.

        ``page_size`` in bytes (4096); ``seed`` fixes the order of readers and writers (0).
        Deterministic.
        """
        rng = random.Random(f"rwsem {seed}")
        builder = ProgramBuilder(page_size, system=System(thp="never"), source="rwsem")
        main = builder.task("rwsem")
        for number in range(self.tasks):
            task = builder.task(f"task{number}", "clone")
            start_thread(main, task, number, page_size)
            task.write((f"stack{number}", STACK_SIZE - page_size))
            nr_readers = round(_ROUND * self.readers / 100)
            reads = [turn < nr_readers for turn in range(_ROUND)]
            rng.shuffle(reads)
            task.barrier("go")
            with task.repeat(for_ns=round(self.seconds * NS)):
                for is_reader in reads:
                    if is_reader:
                        task.madvise(_NOWHERE, page_size, "dontneed")
                    else:
                        task.brk()
        main.barrier("go")
        for number in range(self.tasks):
            main.wait(f"task{number}")
        return builder.build()

    def figures(self, result: Result) -> dict[str, int | float]:
        """Returns ``locks`` and ``locks_per_s``, of all threads. Source: "Total Rate"."""
        count = _ROUND * sum(result.rounds)
        return {"locks": count, "locks_per_s": rate(count, result)}


def rwsem_job(given: Arguments, nr_cpus: int) -> Rwsem:
    """Returns the job that the options ask for. Source: the module's parameters."""
    return Rwsem(
        tasks=given.integer("t", nr_cpus, 1, MAX_TASKS),
        readers=given.integer("r", 50, 0, 100),
        seconds=given.seconds("s", 1.0),
    )


OPTIONS: Final = (
    Option("t", "NUM", "threads (the CPUs)"),
    Option("r", "PERCENT", "how often they read (50)"),
    Option("s", "SECONDS", "how long to run, fractions allowed (1)"),
)
