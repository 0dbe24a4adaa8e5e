"""Built-in workloads: programs that behave as the originals, with the originals' option letters."""

from __future__ import annotations

import getopt
import math
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final, NoReturn

from spfemu.errors import ProgramError
from spfemu.program.builder import ProgramBuilder, TaskBuilder
from spfemu.program.model import Program, System
from spfemu.program.values import shown
from spfemu.results import Result

__all__ = ["WORKLOADS", "Ebizzy", "Job", "Option", "WillItScale", "Workload", "make_job"]

_KIB: Final = 1 << 10
_MIB: Final = 1 << 20
_NS: Final = 1_000_000_000

DEFAULT_CPUS: Final = 4
"""The CPUs that a workload assumes when nobody says how many there are."""

STACK_SIZE: Final = 8 * _MIB
"""What pthread_create maps for a stack, without the guard page. Source: the usual RLIMIT_STACK."""

# The constants of glibc's malloc on 64 bits. Source: the M_* parameters in mallopt(3), and
# arena.c's HEAP_MAX_SIZE.
MMAP_THRESHOLD: Final = 128 * _KIB
TOP_PAD: Final = 128 * _KIB
ARENA_SIZE: Final = 64 * _MIB
CHUNK_HEADER: Final = 16

RANDOM_ROUNDS: Final = 16
"""How many rounds with random draws are written out inside one timed repeat."""

COPY_BYTES_PER_NS: Final = 10
"""What memcpy moves within the cache; a rough figure, for the CPU time of a copy."""

_MAX_TASKS: Final = 16384


@dataclass(frozen=True, slots=True)
class Option:
    """One option letter of a workload. Source: the original's usage text.

    ``value`` names the argument; "" says that the option is a switch.
    """

    letter: str
    value: str
    help: str


class Job:
    """A workload with its options set, ready to become a program.

    Source: ours. ``nr_tasks`` is how many threads or processes do the work.
    """

    nr_tasks: int

    def build(self, *, page_size: int = 4096, seed: int = 0) -> Program:
        """Returns the program.

        Source: ours. ``page_size`` in bytes (4096); ``seed`` fixes every random draw (0).
        Deterministic.
        """
        raise NotImplementedError

    def figures(self, result: Result) -> dict[str, int | float]:
        """Returns the workload's own figures of a result. Source: the original's output."""
        raise NotImplementedError


def _rate(count: int, result: Result) -> float:
    return count * _NS / result.elapsed_ns if result.elapsed_ns else 0.0


def _round_up(number: int, unit: int) -> int:
    return -(-number // unit) * unit


@dataclass(frozen=True, slots=True)
class Ebizzy(Job):
    """ebizzy 0.3: threads that allocate a record, copy or touch it, search it and free it.

    Source: ebizzy's usage text, and glibc's malloc for what an allocation asks of the kernel.
    ``threads``, ``seconds``, ``chunks`` and ``chunk_size`` (bytes) as -t, -S, -n and -s;
    ``always_mmap`` -m, ``never_mmap`` -M, ``permissions`` -p, ``holes`` -P, ``random_size`` -R,
    ``touch`` -T, ``linear`` -z.

    The main thread allocates the chunks, writes them, makes the threads (a stack of 8 MiB with a
    guard page each, whose top it writes), releases them together and waits. Each thread repeats
    until the time is over: allocate a copy of a chunk's size (-R: a random part of it), then with
    -T write one word of each page, else copy a random chunk into it and search it; free it. A
    record is one such round, and a round that has begun is finished.

    What an allocation is:

    * -m: an anonymous mmap and munmap of the size.
    * without: glibc's malloc. From 128 KiB on the first record of a thread is a mapping of its
      own; freeing it raises the dynamic threshold to that size, so that all later ones come from
      the thread's arena (64 MiB reserved, made writable as it grows) and are never given back: no
      fault in the steady state. Smaller ones come from the arena at once.
    * -M: never a mapping of its own; that also switches the dynamic threshold off, so every free
      trims the arena with MADV_DONTNEED down to the 128 KiB pad, which later faults in again (96
      of 128 pages for each record, as a 4.14 kernel counts). The main thread's chunks are on the
      brk heap.

    -p puts a read-only page behind each chunk, -P a page that is unmapped once all chunks are
    allocated. Arenas are one mapping of 64 MiB here; glibc maps twice that and unmaps the ends.
    With -R, or without -T, 16 records with their draws are written out and repeated.

    >>> from spfemu.workloads import Ebizzy
    >>> Ebizzy(threads=2, seconds=0.01, always_mmap=True, touch=True).build().nr_ops > 30
    True
    """

    threads: int = 2 * DEFAULT_CPUS
    seconds: float = 10.0
    chunks: int = 10
    chunk_size: int = 512 * _KIB
    always_mmap: bool = False
    never_mmap: bool = False
    permissions: bool = False
    holes: bool = False
    random_size: bool = False
    touch: bool = False
    linear: bool = False

    @property
    def nr_tasks(self) -> int:  # type: ignore[override]
        """How many threads allocate. Source: -t."""
        return self.threads

    @property
    def _rounds(self) -> int:
        return RANDOM_ROUNDS if self.random_size or not self.touch else 1

    @property
    def _first_is_mapped(self) -> bool:
        """Says whether a thread's first record is a mapping of its own and later ones are not."""
        return not self.always_mmap and not self.never_mmap and self.chunk_size >= MMAP_THRESHOLD

    def build(self, *, page_size: int = 4096, seed: int = 0) -> Program:
        """Returns the program. Source: see the class.

        ``page_size`` in bytes (4096); ``seed`` fixes sizes and chunks drawn at random (0).
        Deterministic.
        """
        copies = self.threads * _round_up(self.chunk_size, page_size)
        memory = 2 * (copies + self.chunks * self.chunk_size) + 1024 * _MIB
        system = System(memory=max(System().memory, memory), thp="never")
        builder = ProgramBuilder(page_size, system=system, source="ebizzy")
        main = builder.task("ebizzy")
        chunks = self._allocate_chunks(main, page_size)
        for chunk in chunks:
            main.touch(chunk, self.chunk_size)
        for number in range(self.threads):
            thread = builder.task(f"thread{number}", "clone")
            _start_thread(main, thread, number, page_size)
            rng = random.Random(f"ebizzy {seed} {number}")
            self._thread(thread, number, chunks, rng, page_size)
        main.barrier("go")
        for number in range(self.threads):
            main.wait(f"thread{number}")
        return builder.build()

    def _allocate_chunks(self, main: TaskBuilder, page_size: int) -> list[tuple[str, int]]:
        """Appends the allocation of the chunks; returns their addresses."""
        mapped = self.always_mmap or (not self.never_mmap and self.chunk_size >= MMAP_THRESHOLD)
        if not mapped:
            step = _round_up(self.chunk_size + CHUNK_HEADER, CHUNK_HEADER)
            main.brk(id="heap")
            main.brk(_round_up(step * self.chunks + TOP_PAD, page_size))
            return [("heap", step * number + CHUNK_HEADER) for number in range(self.chunks)]
        header = 0 if self.always_mmap else CHUNK_HEADER
        for number in range(self.chunks):
            main.mmap(_round_up(self.chunk_size + header, page_size), id=f"chunk{number}")
            if self.permissions:
                main.mmap(page_size, prot="r")
            if self.holes:
                main.mmap(page_size, id=f"hole{number}")
        if self.holes:
            for number in range(self.chunks):
                main.munmap((f"hole{number}", 0), page_size)
        return [(f"chunk{number}", header) for number in range(self.chunks)]

    def _thread(
        self,
        thread: TaskBuilder,
        number: int,
        chunks: Sequence[tuple[str, int]],
        rng: random.Random,
        page_size: int,
    ) -> None:
        top = STACK_SIZE + page_size
        thread.write((f"stack{number}", top - 2 * page_size))
        arena = (f"arena{number}", CHUNK_HEADER)
        if not self.always_mmap:
            self._make_arena(thread, number, page_size)
        thread.barrier("go")
        if self._first_is_mapped:
            self._mapped_record(thread, number, chunks, rng, page_size)
        with thread.repeat(for_ns=round(self.seconds * _NS)):
            for _ in range(self._rounds):
                if self.always_mmap:
                    self._mapped_record(thread, number, chunks, rng, page_size)
                    continue
                size = self._use(thread, arena, chunks, rng)
                kept = _round_up(CHUNK_HEADER + TOP_PAD, page_size)
                end = _round_up(CHUNK_HEADER + size, page_size)
                if self.never_mmap and end > kept:
                    thread.madvise((f"arena{number}", kept), end - kept, "dontneed")

    def _make_arena(self, thread: TaskBuilder, number: int, page_size: int) -> None:
        """Appends the arena of a thread's first malloc, grown to what a record needs."""
        area = f"arena{number}"
        length = max(ARENA_SIZE, _round_up(2 * self.chunk_size, page_size))
        thread.mmap(length, prot="none", flags=("private", "anonymous", "noreserve"), id=area)
        used = _round_up(max(self.chunk_size + CHUNK_HEADER, TOP_PAD), page_size)
        thread.mprotect((area, 0), used, "rw")
        thread.write((area, 0))

    def _mapped_record(
        self,
        thread: TaskBuilder,
        number: int,
        chunks: Sequence[tuple[str, int]],
        rng: random.Random,
        page_size: int,
    ) -> None:
        header = 0 if self.always_mmap else CHUNK_HEADER
        size = self._size(rng)
        length = _round_up(size + header, page_size)
        copy = f"copy{number}"
        thread.mmap(length, id=copy)
        self._use(thread, (copy, header), chunks, rng, size)
        thread.munmap((copy, 0), length)

    def _size(self, rng: random.Random) -> int:
        if not self.random_size:
            return self.chunk_size
        return 8 * rng.randint(1, max(1, self.chunk_size // 8))

    def _use(
        self,
        thread: TaskBuilder,
        copy: tuple[str, int],
        chunks: Sequence[tuple[str, int]],
        rng: random.Random,
        size: int | None = None,
    ) -> int:
        """Appends what a thread does with one record; returns its size in bytes."""
        size = self._size(rng) if size is None else size
        if self.touch:
            thread.touch(copy, size)
            return size
        thread.touch(chunks[rng.randrange(len(chunks))], size, access="read")
        thread.touch(copy, size)
        thread.compute(max(1, size // COPY_BYTES_PER_NS))
        if self.linear:
            thread.touch(copy, size, access="read")
        else:
            _binary_search(thread, copy, size // 8, rng)
        return size

    def figures(self, result: Result) -> dict[str, int | float]:
        """Returns ``records`` and ``records_per_s``.

        Source: ebizzy's output. Records are finished rounds of all threads.
        """
        records = sum(result.rounds) * self._rounds
        if self._first_is_mapped:
            records += self.threads
        return {"records": records, "records_per_s": _rate(records, result)}


def _start_thread(main: TaskBuilder, thread: TaskBuilder, number: int, page_size: int) -> None:
    """Appends what pthread_create does: stack, guard, descriptor at the top, clone."""
    stack = f"stack{number}"
    size = STACK_SIZE + page_size
    main.mmap(size, prot="none", flags=("private", "anonymous", "stack"), id=stack)
    main.mprotect((stack, page_size), STACK_SIZE, "rw")
    main.write((stack, size - page_size))
    main.clone(thread)


def _binary_search(
    thread: TaskBuilder, copy: tuple[str, int], records: int, rng: random.Random
) -> None:
    """Appends the reads of a binary search for a random key among sorted 8-byte records."""
    key = rng.randrange(max(1, records))
    low, high = 0, records
    while low < high:
        middle = (low + high) // 2
        thread.read((copy[0], copy[1] + 8 * middle))
        if middle == key:
            return
        if middle < key:
            low = middle + 1
        else:
            high = middle


@dataclass(frozen=True, slots=True)
class _Test:
    """One test of will-it-scale: what a task repeats, and how many operations that counts as."""

    summary: str
    body: Callable[[TaskBuilder, int, int], None]
    operations: Callable[[int], int]
    file: bool = False


WIS_MEMORY: Final = 128 * _MIB
"""What the page_fault and mmap tests map at a time."""


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


def _brk1(task: TaskBuilder, number: int, page_size: int) -> None:
    task.brk(page_size)
    task.brk(-page_size)


def _pages(page_size: int) -> int:
    return WIS_MEMORY // page_size


_TESTS: Final[Mapping[str, _Test]] = MappingProxyType(
    {
        "page_fault1": _Test("first writes to private anonymous memory", _page_fault1, _pages),
        "page_fault2": _Test(
            "first writes to a private file mapping", _page_fault_file("private"), _pages, file=True
        ),
        "page_fault3": _Test(
            "first writes to a shared file mapping", _page_fault_file("shared"), _pages, file=True
        ),
        "mmap1": _Test("mmap and munmap, untouched", _mmap1, lambda _: 1),
        "brk1": _Test("the break one page up and down", _brk1, lambda _: 2),
    }
)


@dataclass(frozen=True, slots=True)
class WillItScale(Job):
    """A test of will-it-scale: independent tasks that repeat one thing as often as they can.

    Source: will-it-scale's test descriptions. ``test`` is page_fault1, page_fault2, page_fault3,
    mmap1 or brk1; ``tasks`` and ``processes`` as -t N (threads) or -p N (processes); ``seconds``
    as -s.

    The page_fault tests map 128 MiB, write one word of each page and unmap it; each page is an
    operation. page_fault2 and 3 use an empty temporary file for each task. mmap1 maps and unmaps
    128 MiB untouched; brk1 moves the break one page up and down, two operations. The main task
    makes the others, releases them together and waits. A round that has begun is finished.

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
        test = _TESTS[self.test]
        memory = max(System().memory, 3 * self.tasks * WIS_MEMORY)
        system = System(memory=memory, thp="never")
        builder = ProgramBuilder(page_size, system=system, source=self.test)
        main = builder.task(self.test)
        for number in range(self.tasks):
            task = builder.task(f"task{number}", "fork" if self.processes else "clone")
            if test.file:
                builder.file(f"file{number}", WIS_MEMORY, cached=False)
            if self.processes:
                main.fork(task)
            else:
                _start_thread(main, task, number, page_size)
                task.write((f"stack{number}", STACK_SIZE - page_size))
            task.barrier("go")
            with task.repeat(for_ns=round(self.seconds * _NS)):
                test.body(task, number, page_size)
        main.barrier("go")
        for number in range(self.tasks):
            main.wait(f"task{number}")
        return builder.build()

    def figures(self, result: Result) -> dict[str, int | float]:
        """Returns ``operations`` and ``operations_per_s``, of all tasks together.

        Source: will-it-scale's total.
        """
        count = sum(result.rounds) * _TESTS[self.test].operations(result.program.page_size)
        return {"operations": count, "operations_per_s": _rate(count, result)}


class _Arguments:
    """The options that a user gave, getopt style; every message names the workload and letter."""

    def __init__(self, name: str, options: Sequence[Option], arguments: Sequence[str]) -> None:
        self.name = name
        self.allowed = ", ".join(f"-{o.letter} {o.value}".rstrip() for o in options)
        letters = "".join(o.letter + (":" if o.value else "") for o in options)
        try:
            pairs, rest = getopt.getopt(list(arguments), letters)
        except getopt.GetoptError as error:
            self.fail(f"{error.msg} (allowed: {self.allowed})")
        if rest:
            self.fail(f"argument {shown(rest[0])} (allowed: {self.allowed})")
        self.given = {flag[1:]: value for flag, value in pairs}

    def fail(self, message: str) -> NoReturn:
        raise ProgramError(f"{self.name}: {message}")

    def switch(self, letter: str) -> bool:
        return letter in self.given

    def integer(self, letter: str, default: int, low: int, high: int) -> int:
        text = self.given.get(letter)
        if text is None:
            return default
        if not (text.isascii() and text.isdigit() and low <= int(text) <= high):
            self.fail(f"option -{letter}: value {shown(text)} (allowed: {low} to {high})")
        return int(text)

    def seconds(self, letter: str, default: float) -> float:
        text = self.given.get(letter)
        try:
            seconds = default if text is None else float(text)
        except ValueError:
            seconds = math.nan
        if not 1e-9 <= seconds <= 1e6:
            self.fail(f"option -{letter}: value {shown(text)} (allowed: above 0, up to 1e6)")
        return seconds


@dataclass(frozen=True, slots=True)
class Workload:
    """A built-in workload: its name, what it is, its options. Source: the original's usage."""

    name: str
    summary: str
    options: tuple[Option, ...]

    def job(self, arguments: Sequence[str], *, cpus: int | None = None) -> Job:
        """Returns the job that command-line arguments ask for.

        Source: ours. ``cpus`` are the machine's, for the default number of tasks (4). Raises
        ProgramError for a wrong option, naming what is allowed.
        """
        given = _Arguments(self.name, self.options, arguments)
        nr_cpus = DEFAULT_CPUS if cpus is None else cpus
        if self.name == "ebizzy":
            return _ebizzy_job(given, nr_cpus)
        if given.switch("t") and given.switch("p"):
            given.fail("options -t and -p (allowed: threads or processes, not both)")
        letter = "p" if given.switch("p") else "t"
        return WillItScale(
            self.name,
            tasks=given.integer(letter, nr_cpus, 1, _MAX_TASKS),
            processes=letter == "p",
            seconds=given.seconds("s", 1.0),
        )


def _ebizzy_job(given: _Arguments, nr_cpus: int) -> Ebizzy:
    if given.switch("m") and given.switch("M"):
        given.fail("options -m and -M (allowed: at most one of them)")
    return Ebizzy(
        threads=given.integer("t", 2 * nr_cpus, 1, _MAX_TASKS),
        seconds=given.seconds("S", 10.0),
        chunks=given.integer("n", 10, 1, 1 << 20),
        chunk_size=given.integer("s", 512 * _KIB, 8, 1 << 40),
        always_mmap=given.switch("m"),
        never_mmap=given.switch("M"),
        permissions=given.switch("p"),
        holes=given.switch("P"),
        random_size=given.switch("R"),
        touch=given.switch("T"),
        linear=given.switch("z"),
    )


_EBIZZY_OPTIONS: Final = (
    Option("m", "", "always mmap instead of malloc"),
    Option("M", "", "never mmap"),
    Option("n", "NUM", "memory chunks (10)"),
    Option("p", "", "keep mappings apart with permissions"),
    Option("P", "", "keep mappings apart with holes"),
    Option("R", "", "a random part of the chunk's size for each record"),
    Option("s", "BYTES", "size of a chunk (524288)"),
    Option("S", "SECONDS", "how long to run, fractions allowed (10)"),
    Option("t", "NUM", "threads (twice the CPUs)"),
    Option("T", "", "just touch the allocated pages"),
    Option("v", "", "more words; taken and ignored"),
    Option("z", "", "linear instead of binary search"),
)
_WIS_OPTIONS: Final = (
    Option("t", "NUM", "threads (the CPUs)"),
    Option("p", "NUM", "processes instead of threads"),
    Option("s", "SECONDS", "how long to run, fractions allowed (1)"),
)

WORKLOADS: Final[Mapping[str, Workload]] = MappingProxyType(
    {
        "ebizzy": Workload("ebizzy", "allocate, copy or touch, search, free", _EBIZZY_OPTIONS),
        **{
            name: Workload(name, f"will-it-scale: {test.summary}", _WIS_OPTIONS)
            for name, test in _TESTS.items()
        },
    }
)
"""The built-in workloads by name."""


def make_job(arguments: Sequence[str], *, cpus: int | None = None) -> Job:
    """Returns the job of a command line: a workload's name and its options.

    Source: ours. Raises ProgramError for an unknown name or option, naming what is allowed.

    >>> from spfemu.workloads import make_job
    >>> make_job(["ebizzy", "-mTt", "8", "-S", "0.2"]).nr_tasks
    8
    """
    name = arguments[0] if arguments else ""
    if name not in WORKLOADS:
        raise ProgramError(f"workload {shown(name)} (allowed: {', '.join(WORKLOADS)})")
    return WORKLOADS[name].job(arguments[1:], cpus=cpus)
