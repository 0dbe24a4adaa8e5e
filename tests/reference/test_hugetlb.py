"""hugetlb mappings: reservations, faults, copies, and the rules of their size."""

from __future__ import annotations

from typing import Any

import pytest

from spfemu.program import FileSpec, Program, ProgramBuilder, System, TaskBuilder
from spfemu.reference import run
from tests.reference.arches import X86
from tests.reference.play import A, P, play

HUGE = 1 << 21
PRIVATE = ("private", "anonymous", "hugetlb", "fixed")
SHARED = ("shared", "anonymous", "hugetlb", "fixed")
OF_FILE = ("shared", "fixed")
FILE = FileSpec("h", 4 * HUGE, "hugetlb")


def pool(pages: int) -> System:
    return System(hugetlb_pages=pages)


def outcomes(program: Program, task: int = 0) -> list[dict[str, Any]]:
    result = run(program, arch=X86)
    return [result.outcome(record) for record in result.task_ops(task)]


def test_each_page_is_one_classic_fault() -> None:
    def ops(t: TaskBuilder) -> None:
        t.mmap(2 * HUGE, addr=A, flags=PRIVATE)
        t.touch(A, 2 * HUGE, stride=HUGE >> 2)
        t.read(A + HUGE + P)

    played = play(ops)
    assert played.result.counters["faults"] == 2
    assert played.result.counters["pagefault:spf_vma_notsup"] == 2
    assert played.areas() == ["0-1024 rw-p"]


def test_a_length_is_rounded_up_and_an_address_must_fit() -> None:
    def ops(t: TaskBuilder) -> None:
        t.mmap(P, addr=A, flags=PRIVATE)
        t.mmap(P, addr=A + 2 * HUGE + P, flags=PRIVATE)
        t.mmap(HUGE, addr=A + 4 * HUGE, flags=OF_FILE, file="h", offset=P)
        t.mmap(2**64 - 1, flags=("private", "anonymous", "hugetlb"))
        t.mmap(P, flags=("private", "hugetlb"), file="f")

    played = play(ops, files=(FILE, FileSpec("f", P)))
    assert played.areas() == ["0-512 rw-p"]
    assert played.errnos()[1:] == ["EINVAL"] * 4


def test_the_kernel_chooses_aligned_addresses() -> None:
    def ops(t: TaskBuilder) -> None:
        t.mmap(P)
        t.mmap(P, flags=("private", "anonymous", "hugetlb"))
        t.mmap(P, addr=A + P, flags=("private", "anonymous", "hugetlb"))
        t.mmap(P, addr=HUGE - P, flags=("private", "anonymous", "hugetlb"))

    small, huge, hinted, low = play(ops).outcomes
    assert huge["ret"] % HUGE == 0
    assert 0 < small["ret"] - huge["ret"] < 3 * HUGE
    assert hinted["ret"] == A
    assert low["errno"] == "EPERM"  # the hint became 0


@pytest.mark.parametrize("what", ["munmap", "mprotect", "madvise", "mremap", "dontneed"])
def test_nothing_cuts_through_a_page(what: str) -> None:
    def ops(t: TaskBuilder) -> None:
        t.mmap(2 * HUGE, addr=A, flags=PRIVATE)
        if what == "munmap":
            t.munmap(A, P)
        elif what == "mprotect":
            t.mprotect(A + P, HUGE, "r")
        elif what == "madvise":
            t.madvise(A, HUGE + P, "random")
        elif what == "mremap":
            t.mremap(A, 2 * HUGE, 4 * HUGE, flags=("maymove",))
        else:
            t.madvise(A, HUGE, "dontneed")

    played = play(ops)
    assert played.last["errno"] == "EINVAL"
    assert played.areas() == ["0-1024 rw-p"]


def test_whole_pages_are_unmapped_and_protected() -> None:
    def ops(t: TaskBuilder) -> None:
        t.mmap(3 * HUGE, addr=A, flags=PRIVATE)
        t.touch(A, 3 * HUGE, stride=HUGE)
        t.mprotect(A, HUGE, "r")
        t.munmap(A + HUGE, HUGE)
        t.write(A)
        t.mprotect(A, HUGE, "rw")
        t.write(A, 5)
        t.mmap(P, addr=A + HUGE, flags=("private", "anonymous", "fixed"))
        t.mmap(P, addr=A + 2 * HUGE, flags=("private", "anonymous", "fixed"))

    played = play(ops)
    assert played.areas() == ["0-512 rw-p", "512-513 rw-p", "1024-1536 rw-p"]
    *_, refused, _, again, _, cut = played.outcomes
    assert refused["signal"] == "SIGSEGV"
    assert again["counters"]["minor-faults"] == 1
    assert cut["errno"] == "ENOMEM"


def test_a_mapping_reserves_what_it_may_need() -> None:
    def ops(t: TaskBuilder) -> None:
        t.mmap(2 * HUGE, addr=A, flags=PRIVATE)
        t.mmap(2 * HUGE, addr=A + 4 * HUGE, flags=PRIVATE)
        t.munmap(A + HUGE, HUGE)
        t.mmap(2 * HUGE, addr=A + 4 * HUGE, flags=SHARED)
        t.munmap(A + 4 * HUGE, 2 * HUGE)
        t.write(A)
        t.mmap(2 * HUGE, addr=A + 4 * HUGE, flags=PRIVATE)
        t.munmap(A, HUGE)
        t.mmap(HUGE, addr=A, flags=PRIVATE)

    assert play(ops, system=pool(3)).errnos() == [None, "ENOMEM", *[None] * 7]


def test_without_reservation_a_fault_may_find_nothing() -> None:
    def ops(t: TaskBuilder) -> None:
        t.mmap(HUGE, addr=A, flags=PRIVATE)
        t.mmap(HUGE, addr=A + HUGE, flags=(*PRIVATE, "noreserve"))
        t.write(A + HUGE)
        t.write(A)
        t.munmap(A, HUGE)
        t.write(A + HUGE)

    *_, unreserved, reserved, _, later = play(ops, system=pool(1)).outcomes
    assert (unreserved["signal"], unreserved["si_code"]) == ("SIGBUS", "BUS_ADRERR")
    assert reserved["signal"] is None
    assert later["signal"] is None


def test_a_file_is_shared_and_keeps_its_pages() -> None:
    def ops(t: TaskBuilder) -> None:
        t.mmap(HUGE, addr=A, flags=OF_FILE, file="h", offset=HUGE)
        t.write(A + 3 * P, 7)
        t.munmap(A, HUGE)
        t.mmap(2 * HUGE, addr=A, flags=("private", "fixed"), file="h", offset=HUGE)
        t.read(A + 3 * P)
        t.write(A + 3 * P, 8)
        t.mmap(HUGE, addr=A + 4 * HUGE, flags=OF_FILE, file="h", offset=HUGE)
        t.read(A + 4 * HUGE + 3 * P)

    played = play(ops, files=(FILE,))
    assert [o["value"] for o in played.outcomes if o["op"] == "read"] == [7, 7]
    assert played.areas()[0] == "0-1024 rw-p"


def test_a_writable_mapping_makes_its_file_longer() -> None:
    def ops(t: TaskBuilder) -> None:
        t.mmap(HUGE, addr=A, prot="r", flags=OF_FILE, file="s", offset=HUGE)
        t.read(A)
        t.mmap(2 * HUGE, addr=A + 2 * HUGE, flags=OF_FILE, file="s")
        t.write(A + 3 * HUGE)
        t.read(A)

    _, beyond, _, write, within = play(ops, files=(FileSpec("s", HUGE, "hugetlb"),)).outcomes
    assert (beyond["signal"], write["signal"], within["value"]) == ("SIGBUS", None, 1)


def test_populating_brings_pages_in_without_a_fault_and_nothing_is_locked() -> None:
    def ops(t: TaskBuilder) -> None:
        t.mmap(2 * HUGE, addr=A, flags=(*PRIVATE, "populate"))
        t.touch(A, 2 * HUGE, stride=HUGE)
        t.mmap(HUGE, addr=A + 4 * HUGE, flags=(*PRIVATE, "locked"))
        t.write(A + 4 * HUGE)
        t.mlock(A, 2 * HUGE)
        t.madvise(A, HUGE, "random")
        t.mmap(HUGE, addr=A + 6 * HUGE, flags=(*PRIVATE, "noreserve"))
        t.madvise(A + 6 * HUGE, HUGE, "populate_read")

    played = play(ops, system=pool(3))
    assert played.errnos() == [*[None] * 8, "EFAULT"]
    assert not any(played.result.counters.values())
    assert played.areas() == ["0-512 rw-p", "512-1024 rw-p", "2048-2560 rw-p", "3072-3584 rw-p"]


def forked(pages: int, *, shared: bool = False) -> list[list[dict[str, Any]]]:
    """A parent writes to a page that its child has; then the child reads, and writes to it."""
    builder = ProgramBuilder(system=pool(pages))
    t, c = builder.task("t0"), builder.task("c", "fork")
    t.mmap(2 * HUGE, addr=A, flags=SHARED if shared else PRIVATE)
    t.write(A, 7)
    t.fork("c")
    t.write(A, 8)
    t.read(A + P)
    t.post("written")
    t.await_("done")
    c.await_("written")
    c.read(A)
    c.write(A, 9)
    c.write(A + HUGE, 9)
    c.post("done")
    program = builder.build()
    return [outcomes(program, task)[first:] for task, first in ((0, 3), (1, 1))]


def test_after_fork_a_write_copies() -> None:
    (write, read, *_), (old, again, other, _) = forked(5)
    assert write["counters"]["minor-faults"] == 1
    assert (read["value"], old["value"]) == (0, 7)
    assert [o["signal"] for o in (again, other)] == [None, None]


def test_a_child_pays_for_its_parents_copy() -> None:
    # Two pages, both promised to the parent: it gets its page back, and the child has none.
    (write, *_), child = forked(2)
    assert write["signal"] is None
    assert [o["signal"] for o in child[:3]] == ["SIGBUS"] * 3


def test_a_child_has_no_reservation() -> None:
    # Three pages: the third serves the parent's copy. The child keeps the old page, alone.
    (write, *_), (old, again, other, _) = forked(3)
    assert write["signal"] is None
    assert (old["value"], again["signal"], other["signal"]) == (7, None, "SIGBUS")


def test_shared_memory_is_not_copied() -> None:
    (write, *_), (value, again, other, _) = forked(2, shared=True)
    assert "faults" not in write["counters"]
    assert (value["value"], again["signal"], other["signal"]) == (8, None, None)
