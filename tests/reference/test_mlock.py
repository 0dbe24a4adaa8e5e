"""Faulting in without an access: mlock, munlock, MAP_POPULATE, MAP_LOCKED, MADV_POPULATE_*."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from spfemu.program import FileSpec, ProgramBuilder, System, TaskBuilder
from spfemu.reference import run
from tests.reference.arches import X86
from tests.reference.play import A, P, Played, play

FIXED = ("private", "anonymous", "fixed")
TOP = (1 << 64) - P
END = X86.task_size
FILES = (FileSpec("f", 1 << 16), FileSpec("u", 1 << 16, cached=False), FileSpec("e", 2 * P))

Ops = Callable[[TaskBuilder], None]


def mlock(address: int, length: int, *, onfault: bool = False) -> Ops:
    return lambda t: t.mlock(address, length, onfault=onfault)


def munlock(address: int, length: int) -> Ops:
    return lambda t: t.munlock(address, length)


def populate(address: int, length: int, *, write: bool = False) -> Ops:
    advice = "populate_write" if write else "populate_read"
    return lambda t: t.madvise(address, length, advice)


@pytest.mark.parametrize(
    ("call", "errno"),
    [
        (mlock(A, 0), None),
        (mlock(A, 4 * P), None),
        (mlock(A + 100, 4 * P - 100), None),  # whole pages
        (mlock(A + 1, 4 * P), "ENOMEM"),
        (mlock(A, (1 << 64) - 1), None),  # rounds up to 0
        (mlock(A + P, (1 << 64) - 2 * P), "EINVAL"),  # ends below its start
        (mlock(A - P, 2 * P), "ENOMEM"),
        (mlock(A, 5 * P), "ENOMEM"),
        (mlock(A + 5 * P, P), "ENOMEM"),  # may not be accessed
        (mlock(A + 5 * P, P, onfault=True), "ENOMEM"),
        (mlock(END, P), "ENOMEM"),
        (munlock(A, 0), None),
        (munlock(A, 4 * P), None),
        (munlock(A + 5 * P, P), None),
        (munlock(A, 5 * P), "ENOMEM"),
        (munlock(A, (1 << 64) - P), "EINVAL"),
        (populate(A, 4 * P), None),
        (populate(A, 4 * P, write=True), None),
        (populate(A + 1, P), "EINVAL"),
        (populate(A, 5 * P), "ENOMEM"),
        (populate(A + 4 * P, P), "ENOMEM"),
        (populate(A + 5 * P, P), "EINVAL"),
        (populate(A + 6 * P, P), None),
        (populate(A + 6 * P, P, write=True), "EINVAL"),
        (populate(A + 7 * P, P), "EINVAL"),  # write-only
        (populate(A + 7 * P, P, write=True), None),
        (mlock(A + 7 * P, P), None),
    ],
)
def test_errno(call: Ops, errno: str | None) -> None:
    # AAAA.NRW   A readable and writable, N nothing, R, W write-only
    def ops(t: TaskBuilder) -> None:
        t.mmap(4 * P, addr=A, flags=FIXED)
        for page, prot in ((5, "none"), (6, "r"), (7, "w")):
            t.mmap(P, addr=A + page * P, flags=FIXED, prot=prot)
        call(t)

    assert play(ops).last["errno"] == errno


def areas_after(*calls: Ops) -> list[str]:
    """The VMAs of eight touched pages at A after these calls."""

    def ops(t: TaskBuilder) -> None:
        t.mmap(8 * P, addr=A, flags=FIXED)
        t.touch(A, 8 * P)
        for call in calls:
            call(t)

    return play(ops).areas()


def test_a_lock_splits_and_its_end_merges() -> None:
    lock = mlock(A + 2 * P, 3 * P)
    assert areas_after(lock) == ["0-2 rw-p", "2-5 rw-p", "5-8 rw-p"]
    assert areas_after(lock, munlock(A, 8 * P)) == ["0-8 rw-p"]
    assert areas_after(lock, mlock(A, 8 * P)) == ["0-8 rw-p"]
    # Locked on fault is another flag.
    assert areas_after(lock, mlock(A, 8 * P, onfault=True)) == ["0-8 rw-p"]
    assert areas_after(lock, mlock(A, 2 * P, onfault=True))[:2] == ["0-2 rw-p", "2-5 rw-p"]


def test_what_a_hole_ends_is_locked_but_not_brought_in() -> None:
    def ops(t: TaskBuilder) -> None:
        t.mmap(2 * P, addr=A, flags=FIXED)
        t.mlock(A, 4 * P)
        t.madvise(A, P, "dontneed")
        t.write(A, 1)

    played = play(ops)
    assert played.errnos() == [None, "ENOMEM", "EINVAL", None]
    assert played.last["counters"]["faults"] == 1


def counters_of(ops: Ops) -> dict[str, int]:
    played = play(ops, files=FILES)
    counters = played.last["counters"]
    assert isinstance(counters, dict)
    return counters


def test_populating_is_no_hardware_fault() -> None:
    counters = counters_of(lambda t: t.mmap(4 * P, flags=("private", "anonymous", "populate")))
    assert counters == {"pgfault": 4}


def test_populating_writes_to_private_memory_that_may_be_written() -> None:
    def ops(t: TaskBuilder) -> None:
        t.mmap(2 * P, addr=A, flags=(*FIXED, "populate"))
        t.write(A, 1)
        t.mmap(2 * P, addr=A + 4 * P, flags=(*FIXED, "populate"), prot="r")
        t.mprotect(A + 4 * P, 2 * P, "rw")
        t.write(A + 4 * P, 1)

    played = play(ops)
    assert played[1]["handled"] == "none"
    assert played.last["counters"]["faults"] == 1  # it was the zero page


def test_populating_a_shared_file_maps_it_unwritten() -> None:
    def ops(t: TaskBuilder) -> None:
        t.mmap(2 * P, addr=A, flags=("shared", "fixed", "populate"), file="f")
        t.read(A + P)
        t.write(A + P, 1)

    played = play(ops, files=FILES)
    assert played[1]["handled"] == "none"
    assert played.last["handled"] == "classic"  # the first write is told to the file


def test_a_page_to_read_is_one_more_round() -> None:
    # mmap_sem is dropped for each read: the fault comes back with the page there.
    flags = ("private", "populate")
    counters = counters_of(lambda t: t.mmap(3 * P, flags=flags, file="u", prot="r"))
    assert counters == {"pgfault": 6, "pgmajfault": 3}


def test_populating_stops_at_the_end_of_the_file_and_says_nothing() -> None:
    def ops(t: TaskBuilder) -> None:
        t.mmap(4 * P, addr=A, flags=("private", "fixed", "populate"), file="e")
        t.read(A + P)

    played = play(ops, files=FILES)
    assert played[0]["errno"] is None
    assert played[0]["counters"] == {"pgfault": 4}  # two copies, the failure twice
    assert played.last["handled"] == "none"


@pytest.mark.parametrize(
    ("call", "errno"), [(mlock(A, 4 * P), "ENOMEM"), (populate(A, 4 * P), "EFAULT")]
)
def test_beyond_a_file_nothing_can_be_brought_in(call: Ops, errno: str) -> None:
    def ops(t: TaskBuilder) -> None:
        t.mmap(4 * P, addr=A, flags=("private", "fixed"), file="e")
        call(t)

    assert play(ops, files=FILES).last["errno"] == errno


def test_what_is_locked_cannot_be_dropped() -> None:
    def ops(t: TaskBuilder) -> None:
        t.mmap(4 * P, addr=A, flags=FIXED)
        t.touch(A, 4 * P, value=5)
        t.mlock(A + 2 * P, P)
        t.madvise(A, 4 * P, "dontneed")
        for page in range(4):
            t.read(A + page * P)

    played = play(ops)
    assert [o["errno"] for o in played.outcomes if o["op"] == "madvise"] == ["EINVAL"]
    assert [o["value"] for o in played.outcomes if o["op"] == "read"] == [0, 0, 5, 5]


def test_onfault_brings_nothing_in() -> None:
    def ops(t: TaskBuilder) -> None:
        t.mmap(4 * P, addr=A, flags=FIXED)
        t.mlock(A, 4 * P, onfault=True)

    assert counters_of(ops) == {}


def test_locked_memory_that_becomes_writable_is_copied_at_once() -> None:
    def ops(t: TaskBuilder) -> None:
        t.mmap(2 * P, addr=A, flags=(*FIXED, "locked"), prot="r")
        t.mprotect(A, 2 * P, "rw")
        t.write(A, 1)

    played = play(ops)
    assert played[1]["counters"] == {"pgfault": 2}
    assert played.last["handled"] == "none"


def test_locked_memory_brings_in_what_it_grows_by() -> None:
    def grown(by: Ops) -> Played:
        def ops(t: TaskBuilder) -> None:
            t.mmap(2 * P, addr=A, flags=(*FIXED, "locked"))
            by(t)

        return play(ops)

    in_place = grown(lambda t: t.mremap(A, 2 * P, 4 * P))
    assert in_place.last["counters"] == {"pgfault": 2}
    to = {"flags": ("maymove", "fixed"), "new_addr": A + 16 * P}
    moved = grown(lambda t: t.mremap(A, 2 * P, 5 * P, **to))  # type: ignore[arg-type]
    assert moved.last["counters"] == {"pgfault": 3}
    same = grown(lambda t: t.mremap(A, 2 * P, 2 * P, **to))  # type: ignore[arg-type]
    assert same.last["counters"] == {}


def test_a_child_inherits_no_lock() -> None:
    builder = ProgramBuilder()
    parent, child = builder.task("p"), builder.task("c", "fork")
    parent.mmap(2 * P, addr=A, flags=(*FIXED, "locked"))
    parent.fork("c", wait=True)
    child.madvise(A, P, "dontneed")
    child.mlock(A, P)
    child.madvise(A, P, "dontneed")
    outcomes = run(builder.build(), arch=X86).outcomes()
    dropped = [o["errno"] for o in outcomes if o["op"] == "madvise"]
    assert dropped == [None, "EINVAL"]


@pytest.mark.parametrize(
    ("call", "errno"),
    [
        (mlock(A, 64 * P), "EAGAIN"),
        (populate(A, 64 * P, write=True), "ENOMEM"),
        (lambda t: t.mmap(64 * P, flags=("private", "anonymous", "populate")), None),
    ],
)
def test_without_memory(call: Ops, errno: str | None) -> None:
    def ops(t: TaskBuilder) -> None:
        t.mmap(64 * P, addr=A, flags=FIXED)
        call(t)

    assert play(ops, system=System(memory=16 * P)).last["errno"] == errno


@pytest.mark.parametrize(
    ("call", "of_file", "of_userfaultfd"),
    [(mlock(A, 32 * P), "EAGAIN", "ENOMEM"), (populate(A, 32 * P), "ENOMEM", "EFAULT")],
)
def test_without_memory_it_ends(call: Ops, of_file: str, of_userfaultfd: str) -> None:
    def mapped(t: TaskBuilder) -> None:
        t.mmap(32 * P, addr=A, prot="r", flags=("shared", "fixed"), file="u")
        call(t)

    def registered(t: TaskBuilder) -> None:
        t.mmap(32 * P, addr=A, prot="r", flags=FIXED)
        t.uffd_register(A, 32 * P)
        call(t)

    files = (FileSpec("u", 32 * P, cached=False),)
    for ops, errno in ((mapped, of_file), (registered, of_userfaultfd)):
        assert play(ops, files=files, system=System(memory=16 * P)).last["errno"] == errno
