"""Tests of will-it-scale, written afresh from their descriptions."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
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
    TOP_PAD,
    Arguments,
    Job,
    Option,
    make_arena,
    rate,
    round_up,
    start_thread,
)

__all__ = ["OPTIONS", "TESTS", "WillItScale", "will_it_scale_job"]


@dataclass(frozen=True, slots=True)
class _Test:
    """One test of will-it-scale: what a task repeats, and how many operations that counts as."""

    summary: str
    body: Callable[[TaskBuilder, int, int], None]
    operations: Callable[[int], int]
    file: bool = False
    prepare: Callable[[TaskBuilder, int, int, bool], None] | None = None


WIS_MEMORY: Final = 128 * MIB
"""What the page_fault, mmap and malloc1 tests map at a time."""

TLB_MEMORY: Final = MIB
"""What tlb_flush2 maps at a time."""

MALLOCS: Final = 1000
"""How many calls of malloc and free a round of malloc2 is; no kernel has a part in them."""

MALLOC_NS: Final = 20
"""What malloc and free from a thread's cache take together; a rough figure."""


def _page_fault1(task: TaskBuilder, number: int, page_size: int) -> None:
    area = f"area{number}"
    task.mmap(WIS_MEMORY, id=area)
    task.touch((area, 0), WIS_MEMORY)
    task.munmap((area, 0), WIS_MEMORY)


def _page_fault_file(flag: str) -> Callable[[TaskBuilder, int, int], None]:
    def body(task: TaskBuilder, number: int, page_size: int) -> None:
        area = f"area{number}"
        task.mmap(WIS_MEMORY, flags=(flag,), file=f"file{number}", id=area)
        task.touch((area, 0), WIS_MEMORY)
        task.munmap((area, 0), WIS_MEMORY)

    return body


def _mmap1(task: TaskBuilder, number: int, page_size: int) -> None:
    area = f"area{number}"
    task.mmap(WIS_MEMORY, id=area)
    task.munmap((area, 0), WIS_MEMORY)


def _mmap2(task: TaskBuilder, number: int, page_size: int) -> None:
    area = f"area{number}"
    task.mmap(WIS_MEMORY, file=f"file{number}", id=area)
    task.munmap((area, 0), WIS_MEMORY)


def _malloc1(task: TaskBuilder, number: int, page_size: int) -> None:
    area = f"area{number}"
    length = WIS_MEMORY + page_size  # a page more, for the header
    task.mmap(length, id=area)
    task.write((area, 8))
    task.munmap((area, 0), length)


def _prepare_malloc2(task: TaskBuilder, number: int, page_size: int, processes: bool) -> None:
    if processes:
        task.brk(id=f"arena{number}")
        task.brk(round_up(TOP_PAD + KIB, page_size))
    else:
        make_arena(task, number, TOP_PAD + KIB, page_size)


def _malloc2(task: TaskBuilder, number: int, page_size: int) -> None:
    # Always the same 1 KiB of the arena's first page: free leaves it in the thread's cache.
    task.write((f"arena{number}", 2 * KIB))
    task.compute(MALLOCS * MALLOC_NS)


def _tlb_flush2(task: TaskBuilder, number: int, page_size: int) -> None:
    area = f"area{number}"
    task.mmap(TLB_MEMORY, id=area)
    for offset in range(0, TLB_MEMORY, page_size):
        task.write((area, offset))
        task.madvise((area, offset), page_size, "dontneed")
        task.read((area, offset))
    task.munmap((area, 0), TLB_MEMORY)


def _brk1(task: TaskBuilder, number: int, page_size: int) -> None:
    task.brk(page_size)
    task.brk(-page_size)


def _pages(page_size: int) -> int:
    return WIS_MEMORY // page_size


def _tlb_pages(page_size: int) -> int:
    return TLB_MEMORY // page_size


TESTS: Final[Mapping[str, _Test]] = MappingProxyType(
    {
        "page_fault1": _Test("first writes to private anonymous memory", _page_fault1, _pages),
        "page_fault2": _Test(
            "first writes to a private file mapping", _page_fault_file("private"), _pages, file=True
        ),
        "page_fault3": _Test(
            "first writes to a shared file mapping", _page_fault_file("shared"), _pages, file=True
        ),
        "mmap1": _Test("mmap and munmap, untouched", _mmap1, lambda _: 1),
        "mmap2": _Test("mmap and munmap of a file, untouched", _mmap2, lambda _: 1, file=True),
        "brk1": _Test("the break one page up and down", _brk1, lambda _: 2),
        "malloc1": _Test("malloc and free of 128 MiB", _malloc1, lambda _: 1),
        "malloc2": _Test(
            "malloc and free of 1 KiB", _malloc2, lambda _: MALLOCS, prepare=_prepare_malloc2
        ),
        "tlb_flush2": _Test(
            "a page written, given back, read: a flush each", _tlb_flush2, _tlb_pages
        ),
    }
)


@dataclass(frozen=True, slots=True)
class WillItScale(Job):
    """A test of will-it-scale: independent tasks that repeat one thing as often as they can.

    Source: will-it-scale's tests. ``test`` is one of ``TESTS``; ``tasks`` and ``processes`` as -t N
    (threads) or -p N (processes); ``seconds`` as -s.

    The page_fault tests map 128 MiB, write one word of each page and unmap it; each page is an
    operation. page_fault2 and 3, and mmap2, use a temporary file for each task, which is in the
    page cache, as it is after the warm-up. mmap1 and 2 map and unmap 128 MiB untouched; brk1 moves
    the break one page up and down, two operations.
    malloc1 is a mapping of 128 MiB and a page each time, whose header is written, as glibc makes
    it; malloc2's 1 KiB comes from the thread's cache, so that the kernel has no part in it.
    tlb_flush2 maps 1 MiB, and of each page in turn writes a word, gives it back with
    MADV_DONTNEED, and reads the zeroes that are there now: one operation, two faults. The main
    task makes the others, releases them together and waits. A round that has begun is finished.

    >>> from spfemu.workloads import WillItScale
    >>> [task.name for task in WillItScale("mmap1", tasks=2).build().tasks]
    ['mmap1', 'task0', 'task1']
    """

    test: str
    tasks: int = DEFAULT_CPUS
    processes: bool = False
    seconds: float = 1.0

    @property
    def nr_tasks(self) -> int:  # type: ignore[override]
        """How many threads or processes work. Source: -t or -p."""
        return self.tasks

    def build(self, *, page_size: int = 4096, seed: int = 0) -> Program:
        """Returns the program. Source: see the class.

        ``page_size`` in bytes (4096); ``seed`` changes nothing, as nothing is random.
        Deterministic.
        """
        test = TESTS[self.test]
        memory = max(System().memory, 3 * self.tasks * WIS_MEMORY)
        system = System(memory=memory, thp="never")
        builder = ProgramBuilder(page_size, system=system, source=self.test)
        main = builder.task(self.test)
        for number in range(self.tasks):
            task = builder.task(f"task{number}", "fork" if self.processes else "clone")
            if test.file:
                builder.file(f"file{number}", WIS_MEMORY)
            if self.processes:
                main.fork(task)
            else:
                start_thread(main, task, number, page_size)
                task.write((f"stack{number}", STACK_SIZE - page_size))
            if test.prepare is not None:
                test.prepare(task, number, page_size, self.processes)
            task.barrier("go")
            with task.repeat(for_ns=round(self.seconds * NS)):
                test.body(task, number, page_size)
        main.barrier("go")
        for number in range(self.tasks):
            main.wait(f"task{number}")
        return builder.build()

    def figures(self, result: Result) -> dict[str, int | float]:
        """Returns ``operations`` and ``operations_per_s``, of all tasks together.

        Source: will-it-scale's total.
        """
        count = sum(result.rounds) * TESTS[self.test].operations(result.program.page_size)
        return {"operations": count, "operations_per_s": rate(count, result)}


def will_it_scale_job(given: Arguments, nr_cpus: int) -> WillItScale:
    """Returns the job that the options ask for. Source: will-it-scale's usage text."""
    if given.switch("t") and given.switch("p"):
        given.fail("options -t and -p (allowed: threads or processes, not both)")
    letter = "p" if given.switch("p") else "t"
    return WillItScale(
        given.name,
        tasks=given.integer(letter, nr_cpus, 1, MAX_TASKS),
        processes=letter == "p",
        seconds=given.seconds("s", 1.0),
    )


OPTIONS: Final = (
    Option("t", "NUM", "threads (the CPUs)"),
    Option("p", "NUM", "processes instead of threads"),
    Option("s", "SECONDS", "how long to run, fractions allowed (1)"),
)
