"""pft, the page fault test, written afresh from what is told of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from spfemu.program.builder import ProgramBuilder
from spfemu.program.model import Program, System
from spfemu.results import Result
from spfemu.workloads.job import (
    DEFAULT_CPUS,
    MAX_TASKS,
    MIB,
    STACK_SIZE,
    Arguments,
    Job,
    Option,
    rate,
    round_up,
    start_thread,
)

__all__ = ["OPTIONS", "Pft", "pft_job"]


@dataclass(frozen=True, slots=True)
class Pft(Job):
    """pft: threads or processes that write each page of anonymous memory once.

    Source: C. Lameter's page fault test of 2004 as the kernel lists quote it, and what mmtests'
    pft-threads runs, ``pft -m SIZE -t N`` (-n N for processes). ``tasks`` and ``processes`` as -t
    or -n; ``size`` (bytes) as -m, for each task; ``own`` as -p (ours): a region for each thread in
    place of one that all share.

    The main task maps the regions, makes the others, releases them together and waits; each task
    writes one word of each page of its part, ascending, and ends. The parts of one region follow
    each other and begin at multiples of a page; regions of their own are apart by a page that
    allows nothing, so they do not merge. Processes have a region of their own always, mapped before
    the fork.

    >>> from spfemu.workloads import Pft
    >>> [len(task.ops) for task in Pft(tasks=2).build().tasks]
    [12, 5, 5]
    """

    tasks: int = DEFAULT_CPUS
    size: int = 32 * MIB
    own: bool = False
    processes: bool = False

    @property
    def nr_tasks(self) -> int:  # type: ignore[override]
        """How many threads or processes fault. Source: -t or -n."""
        return self.tasks

    def build(self, *, page_size: int = 4096, seed: int = 0) -> Program:
        """Returns the program. Source: see the class.

        ``page_size`` in bytes (4096); ``seed`` changes nothing, as nothing is random.
        Deterministic.
        """
        size = round_up(self.size, page_size)
        memory = max(System().memory, 2 * self.tasks * size + 1024 * MIB)
        system = System(memory=memory, thp="never")
        builder = ProgramBuilder(page_size, system=system, source="pft")
        main = builder.task("pft")
        if not self.own and not self.processes:
            main.mmap(self.tasks * size, id="region")
        for number in range(self.tasks):
            task = builder.task(f"task{number}", "fork" if self.processes else "clone")
            part = ("region", number * size)
            if self.own or self.processes:
                main.mmap(size, id=f"region{number}")
                main.mmap(page_size, prot="none")
                part = (f"region{number}", 0)
            if self.processes:
                main.fork(task)
            else:
                start_thread(main, task, number, page_size)
                task.write((f"stack{number}", STACK_SIZE - page_size))
            task.barrier("go")
            task.note("begin")
            task.touch(part, size)
            task.note("end")
        main.barrier("go")
        for number in range(self.tasks):
            main.wait(f"task{number}")
        return builder.build()

    def figures(self, result: Result) -> dict[str, int | float]:
        """Returns ``faults`` of the regions, ``faults_per_s`` and ``faults_per_cpu``.

        Source: pft's output as mmtests reports it. ``faults_per_cpu`` is for each second and task;
        pft divides by the CPU time of its tasks, which is less where they sleep. The time is from
        when the first begins to write its pages to when the last has written all.
        """
        page_size = result.program.page_size
        faults = self.tasks * (round_up(self.size, page_size) // page_size)
        per_s = rate(faults, result)
        return {"pages": faults, "faults_per_s": per_s, "faults_per_cpu": per_s / self.tasks}


def pft_job(given: Arguments, nr_cpus: int) -> Pft:
    """Returns the job that the options ask for. Source: pft's options as mmtests gives them."""
    if given.switch("t") and given.switch("n"):
        given.fail("options -t and -n (allowed: threads or processes, not both)")
    if given.switch("n") and given.switch("p"):
        given.fail("options -n and -p (allowed: -p with threads; processes have their own)")
    letter = "n" if given.switch("n") else "t"
    return Pft(
        tasks=given.integer(letter, nr_cpus, 1, MAX_TASKS),
        size=given.integer("m", 32, 1, 1 << 20) * MIB,
        own=given.switch("p"),
        processes=letter == "n",
    )


OPTIONS: Final = (
    Option("t", "NUM", "threads (the CPUs)"),
    Option("n", "NUM", "processes instead of threads"),
    Option("m", "MIB", "memory of each (32)"),
    Option("p", "", "a region for each thread instead of one that all share"),
)
