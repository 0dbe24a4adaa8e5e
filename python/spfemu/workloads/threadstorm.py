"""An application's launch: many threads that start at once, each with its stack and arena."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from spfemu.program.builder import ProgramBuilder, TaskBuilder
from spfemu.program.model import Program, System
from spfemu.results import Result
from spfemu.workloads.job import (
    KIB,
    MAX_TASKS,
    MIB,
    NS,
    STACK_SIZE,
    Arguments,
    Job,
    Option,
    make_arena,
    measured_ns,
    round_up,
    start_thread,
)

__all__ = ["OPTIONS", "Threadstorm", "threadstorm_job"]

CPUS: Final = 8
"""What a telephone has."""

LIBRARY: Final = 32 * MIB
"""The application's code, which all threads run parts of."""

AROUND: Final = 64 * KIB
"""What a read fault on a file maps around its address, whatever the page size."""

FRAMES: Final = 32 * KIB
"""What a thread uses of its stack."""

SIGNAL_STACK: Final = 32 * KIB
STEP: Final = 64 * KIB
"""How much of heap and arena a thread takes at a time."""

STEP_NS: Final = 700_000
"""CPU time of a step: 20 µs for each fault, which is the published share of a compilation."""

START_NS: Final = 20_000
"""CPU time of the main task between the starts of two threads; chosen."""


@dataclass(frozen=True, slots=True)
class Threadstorm(Job):
    """The launch of an application that starts some hundred threads, until all are ready.

    Source: ours, after the app launches on telephones that the series' discussion reports (faster
    by 15 % and more where there are over 50 threads). ``threads`` as -t; ``memory`` (bytes) as -m,
    what each thread uses while it starts.

    The main task maps the application's code and a heap for all, then makes one thread after the
    other (stack and guard, 20 µs of CPU time each) and waits until all are ready. Meanwhile each
    thread writes 32 KiB of its stack, maps an alternative stack for signals with a guard page,
    makes its arena (64 MiB reserved) and then, for 64 KiB at a time: runs another 64 KiB of the
    code, makes the arena writable for 64 KiB more and writes them, writes 64 KiB of the heap that
    are its own, and computes for 0.7 ms; heap and arena share ``memory`` evenly. Then it posts that
    it is ready.

    >>> from spfemu.workloads import Threadstorm
    >>> Threadstorm(threads=3).nr_tasks
    3
    """

    threads: int = 100
    memory: int = MIB

    @property
    def nr_tasks(self) -> int:  # type: ignore[override]
        """The CPUs of a telephone, or the threads if they are fewer. Source: ours."""
        return min(self.threads, CPUS)

    @property
    def _steps(self) -> int:
        return max(1, self.memory // (2 * STEP))

    def build(self, *, page_size: int = 4096, seed: int = 0) -> Program:
        """Returns the program. Source: see the class.

        ``page_size`` in bytes (4096); ``seed`` changes nothing, as nothing is random.
        Deterministic.
        """
        memory = max(System().memory, 4 * self.threads * (self.memory + MIB))
        system = System(memory=memory, thp="never")
        builder = ProgramBuilder(page_size, system=system, source="threadstorm")
        builder.file("code", LIBRARY)
        main = builder.task("threadstorm")
        main.note("launch")
        main.mmap(LIBRARY, prot="rx", file="code", id="code")
        main.mmap(self.threads * self._steps * STEP, id="heap")
        for number in range(self.threads):
            thread = builder.task(f"thread{number}", "clone")
            main.compute(START_NS)
            start_thread(main, thread, number, page_size)
            self._thread(thread, number, page_size)
        main.await_("ready")
        main.note("launched")
        return builder.build()

    def _thread(self, thread: TaskBuilder, number: int, page_size: int) -> None:
        frames = round_up(FRAMES, page_size)
        # Its top page was written when the thread was made.
        thread.touch(
            (f"stack{number}", STACK_SIZE - frames), frames, order="backward", stride=page_size
        )
        signal = round_up(SIGNAL_STACK, page_size)
        thread.mmap(signal + page_size, prot="none", id=f"signal{number}")
        thread.mprotect((f"signal{number}", page_size), signal, "rw")
        make_arena(thread, number, page_size, page_size)
        for step in range(self._steps):
            place = (number * self._steps + step) * STEP
            arena = (f"arena{number}", page_size + step * STEP)
            thread.touch(("code", place % LIBRARY), AROUND, stride=AROUND, access="execute")
            thread.mprotect(arena, STEP, "rw")
            thread.touch(arena, STEP)
            thread.touch(("heap", place), STEP)
            thread.compute(STEP_NS)
        thread.post("ready")

    def figures(self, result: Result) -> dict[str, int | float]:
        """Returns ``launch_s``, and ``threads_started``. Source: ours."""
        return {"launch_s": measured_ns(result) / NS, "threads_started": self.threads}


def threadstorm_job(given: Arguments, nr_cpus: int) -> Threadstorm:
    """Returns the job that the options ask for. Source: ours."""
    return Threadstorm(
        threads=given.integer("t", 100, 1, MAX_TASKS),
        memory=given.integer("m", 1024, 128, 16 * 1024) * KIB,
    )


OPTIONS: Final = (
    Option("t", "NUM", "threads (100)"),
    Option("m", "KIB", "memory that each uses (1024)"),
)
