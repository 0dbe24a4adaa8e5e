"""An in-memory database: transactions on one large region, with buffers that come and go."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Final

from spfemu.program.builder import ProgramBuilder, TaskBuilder
from spfemu.program.model import Program, System
from spfemu.results import Result
from spfemu.workloads.job import (
    DEFAULT_CPUS,
    KIB,
    MAX_TASKS,
    MIB,
    NS,
    STACK_SIZE,
    Arguments,
    Job,
    Option,
    make_arena,
    rate,
    round_up,
    start_thread,
)

__all__ = ["OPTIONS", "Database", "database_job"]

BATCH: Final = 16
"""How many transactions, each with its own rows, are written out inside one timed repeat."""

ROWS: Final = 8
"""How many pages of the region a transaction reads; it writes half of them."""

DELTA: Final = 16 * KIB
"""What a transaction adds to its thread's arena."""

TRANSACTION_NS: Final = 50_000
"""CPU time of a transaction; chosen."""


@dataclass(frozen=True, slots=True)
class Database(Job):
    """An in-memory database: threads that each do one transaction after the other.

    Source: ours, after "a popular in-memory multithreaded database product", of which the series'
    cover letters tell no more than that (on 1408 CPUs 30 % more transactions, nearly all faults
    speculative). ``threads`` as -t, ``seconds`` as -S; ``region`` (bytes) as -g, the table that all
    share, an anonymous shared mapping; ``buffer`` (bytes) as -b.

    Each thread has an arena as glibc makes one (64 MiB reserved) and brings its part of the region
    in before all start together. A transaction maps a buffer for its intermediate results, reads 8
    random pages of the region, writes the whole buffer, writes the first 4 of the pages, adds 16
    KiB to the thread's arena, computes for 50 µs and unmaps the buffer. After 16 transactions what
    they added has been merged into the region, and the arena gives it back (MADV_DONTNEED). So
    buffers and arenas fault, the region no longer does. Random are the pages only; 16
    transactions are written out and repeated.

    >>> from spfemu.workloads import Database
    >>> [task.name for task in Database(threads=2).build().tasks]
    ['database', 'thread0', 'thread1']
    """

    threads: int = DEFAULT_CPUS
    seconds: float = 1.0
    region: int = 64 * MIB
    buffer: int = 256 * KIB

    @property
    def nr_tasks(self) -> int:  # type: ignore[override]
        """How many threads do transactions. Source: -t."""
        return self.threads

    def build(self, *, page_size: int = 4096, seed: int = 0) -> Program:
        """Returns the program. Source: see the class.

        ``page_size`` in bytes (4096); ``seed`` fixes which pages are drawn (0). Deterministic.
        """
        region = round_up(self.region, page_size)
        memory = max(System().memory, 2 * (region + self.threads * (self.buffer + 2 * MIB)))
        system = System(memory=memory, thp="never")
        builder = ProgramBuilder(page_size, system=system, source="database")
        main = builder.task("database")
        main.mmap(region, flags=("shared", "anonymous"), id="region")
        part = round_up(-(-region // self.threads), page_size)
        for number in range(self.threads):
            thread = builder.task(f"thread{number}", "clone")
            start_thread(main, thread, number, page_size)
            thread.write((f"stack{number}", STACK_SIZE - page_size))
            make_arena(thread, number, page_size + BATCH * self._delta(page_size), page_size)
            if (first := number * part) < region:
                thread.touch(("region", first), min(part, region - first))
            thread.barrier("go")
            rng = random.Random(f"database {seed} {number}")
            thread.note("begin")
            with thread.repeat(for_ns=round(self.seconds * NS)):
                self._batch(thread, number, rng, page_size)
            thread.note("end")
        main.barrier("go")
        for number in range(self.threads):
            main.wait(f"thread{number}")
        return builder.build()

    @staticmethod
    def _delta(page_size: int) -> int:
        return round_up(DELTA, page_size)

    def _batch(self, thread: TaskBuilder, number: int, rng: random.Random, page_size: int) -> None:
        """Appends 16 transactions and the merge that ends them."""
        length = round_up(self.buffer, page_size)
        delta = self._delta(page_size)
        for transaction in range(BATCH):
            rows = [
                ("region", page_size * rng.randrange(-(-self.region // page_size)))
                for _ in range(ROWS)
            ]
            thread.mmap(length, id=f"buffer{number}")
            for row in rows:
                thread.read(row)
            thread.touch((f"buffer{number}", 0), length)
            for row in rows[: ROWS // 2]:
                thread.write(row)
            thread.touch((f"arena{number}", page_size + transaction * delta), delta)
            thread.compute(TRANSACTION_NS)
            thread.munmap((f"buffer{number}", 0), length)
        thread.madvise((f"arena{number}", page_size), BATCH * delta, "dontneed")

    def figures(self, result: Result) -> dict[str, int | float]:
        """Returns ``transactions`` and ``transactions_per_s`` of all threads.

        Source: ours. Bringing the region in does not count; the transactions that are under way
        when the time of -S is over do, with what they take.
        """
        count = sum(result.rounds) * BATCH
        return {"transactions": count, "transactions_per_s": rate(count, result)}


def database_job(given: Arguments, nr_cpus: int) -> Database:
    """Returns the job that the options ask for. Source: ours."""
    return Database(
        threads=given.integer("t", nr_cpus, 1, MAX_TASKS),
        seconds=given.seconds("S", 1.0),
        region=given.integer("g", 64, 1, 1 << 20) * MIB,
        buffer=given.integer("b", 256, 4, 1 << 20) * KIB,
    )


OPTIONS: Final = (
    Option("t", "NUM", "threads (the CPUs)"),
    Option("S", "SECONDS", "how long to run, fractions allowed (1)"),
    Option("g", "MIB", "the region that all share (64)"),
    Option("b", "KIB", "a transaction's buffer (256)"),
)
