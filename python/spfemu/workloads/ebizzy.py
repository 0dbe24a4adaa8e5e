"""ebizzy 0.3, written afresh from its usage text."""

from __future__ import annotations

import random
from collections.abc import Sequence
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
    MMAP_THRESHOLD,
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

__all__ = ["OPTIONS", "Ebizzy", "ebizzy_job"]

CHUNK_HEADER: Final = 16
"""What glibc's malloc puts before what it returns, on 64 bits."""

RANDOM_ROUNDS: Final = 16
"""How many rounds with random draws are written out inside one timed repeat."""

COPY_BYTES_PERNS: Final = 10
"""What memcpy moves within the cache; a rough figure, for the CPU time of a copy."""


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
    chunk_size: int = 512 * KIB
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
        copies = self.threads * round_up(self.chunk_size, page_size)
        memory = 2 * (copies + self.chunks * self.chunk_size) + 1024 * MIB
        system = System(memory=max(System().memory, memory), thp="never")
        builder = ProgramBuilder(page_size, system=system, source="ebizzy")
        main = builder.task("ebizzy")
        chunks = self._allocate_chunks(main, page_size)
        for chunk in chunks:
            main.touch(chunk, self.chunk_size)
        for number in range(self.threads):
            thread = builder.task(f"thread{number}", "clone")
            start_thread(main, thread, number, page_size)
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
            step = round_up(self.chunk_size + CHUNK_HEADER, CHUNK_HEADER)
            main.brk(id="heap")
            main.brk(round_up(step * self.chunks + TOP_PAD, page_size))
            return [("heap", step * number + CHUNK_HEADER) for number in range(self.chunks)]
        header = 0 if self.always_mmap else CHUNK_HEADER
        for number in range(self.chunks):
            main.mmap(round_up(self.chunk_size + header, page_size), id=f"chunk{number}")
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
            used = max(self.chunk_size + 2 * CHUNK_HEADER, TOP_PAD)
            make_arena(thread, number, used, page_size)
        thread.barrier("go")
        if self._first_is_mapped:
            self._mapped_record(thread, number, chunks, rng, page_size)
        with thread.repeat(for_ns=round(self.seconds * NS)):
            for _ in range(self._rounds):
                if self.always_mmap:
                    self._mapped_record(thread, number, chunks, rng, page_size)
                    continue
                size = self._size(rng)
                # malloc puts the header of what is left of the arena right behind the record.
                thread.write((arena[0], arena[1] + size))
                self._use(thread, arena, size, chunks, rng)
                kept = round_up(CHUNK_HEADER + TOP_PAD, page_size)
                end = round_up(2 * CHUNK_HEADER + size, page_size)
                if self.never_mmap and end > kept:
                    thread.madvise((f"arena{number}", kept), end - kept, "dontneed")

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
        length = round_up(size + header, page_size)
        copy = f"copy{number}"
        thread.mmap(length, id=copy)
        self._use(thread, (copy, header), size, chunks, rng)
        thread.munmap((copy, 0), length)

    def _size(self, rng: random.Random) -> int:
        if not self.random_size:
            return self.chunk_size
        return 8 * rng.randint(1, max(1, self.chunk_size // 8))

    def _use(
        self,
        thread: TaskBuilder,
        copy: tuple[str, int],
        size: int,
        chunks: Sequence[tuple[str, int]],
        rng: random.Random,
    ) -> None:
        """Appends what a thread does with one record of so many bytes."""
        if self.touch:
            thread.touch(copy, size)
            return
        thread.touch(chunks[rng.randrange(len(chunks))], size, access="read")
        thread.touch(copy, size)
        thread.compute(max(1, size // COPY_BYTES_PERNS))
        if self.linear:
            thread.touch(copy, size, access="read")
        else:
            _binary_search(thread, copy, size // 8, rng)

    def figures(self, result: Result) -> dict[str, int | float]:
        """Returns ``records`` and ``records_per_s``.

        Source: ebizzy's output. Records are finished rounds of all threads.
        """
        records = sum(result.rounds) * self._rounds
        if self._first_is_mapped:
            records += self.threads
        return {"records": records, "records_per_s": rate(records, result)}


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


def ebizzy_job(given: Arguments, nr_cpus: int) -> Ebizzy:
    """Returns the job that the options ask for. Source: ebizzy's usage text."""
    if given.switch("m") and given.switch("M"):
        given.fail("options -m and -M (allowed: at most one of them)")
    return Ebizzy(
        threads=given.integer("t", 2 * nr_cpus, 1, MAX_TASKS),
        seconds=given.seconds("S", 10.0),
        chunks=given.integer("n", 10, 1, 1 << 20),
        chunk_size=given.integer("s", 512 * KIB, 8, 1 << 40),
        always_mmap=given.switch("m"),
        never_mmap=given.switch("M"),
        permissions=given.switch("p"),
        holes=given.switch("P"),
        random_size=given.switch("R"),
        touch=given.switch("T"),
        linear=given.switch("z"),
    )


OPTIONS: Final = (
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
