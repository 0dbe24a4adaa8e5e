"""clear_refs: what is used from now on can be seen, by old pages and by faults of writes."""

from __future__ import annotations

import pytest

import spfemu
from spfemu.profiles import Arch
from spfemu.program import EVENTS, FileSpec, ProgramBuilder, TaskBuilder
from tests.reference.arches import ARCHES, ARM64, X86
from tests.reference.play import A, P, Played, play

F = (FileSpec("f", 4 * P),)
S = (FileSpec("f", 4 * P, kind="shmem"),)
B = A + 16 * P


def faults(played: Played, since: int = 0) -> list[int]:
    return [outcome["counters"].get("faults", 0) for outcome in played.outcomes[since:]]


def test_the_next_write_to_each_page_faults() -> None:
    def ops(t: TaskBuilder) -> None:
        t.mmap(2 * P, addr=A, flags=("private", "anonymous", "fixed"))
        t.touch(A, 2 * P)
        t.clear_refs(4)
        t.read(A)
        t.write(A, 5)
        t.write(A, 6)
        t.read(A)
        t.write(A + P, 7)

    played = play(ops)
    assert faults(played, 4) == [0, 1, 0, 0, 1]
    assert played.outcomes[5]["handled"] == "spf"
    assert played.outcomes[7]["value"] == 6


@pytest.mark.parametrize("arch", ARCHES, ids=lambda arch: arch.name)
def test_arm64_does_not_track_writes(arch: Arch) -> None:
    page = arch.page_size

    def ops(t: TaskBuilder) -> None:
        t.mmap(page, addr=A, flags=("private", "anonymous", "fixed"))
        t.write(A)
        t.clear_refs(4)
        t.write(A)

    assert faults(play(ops, arch=arch), 3) == [int(arch.family != "arm64")]


@pytest.mark.parametrize("engine", ["reference", "native", "vtime"])
@pytest.mark.parametrize(("before", "after"), [("r", "rw"), ("rw", "rwx")])
def test_mprotect_does_not_make_tracked_shared_memory_writable(
    engine: str, before: str, after: str
) -> None:
    # vma_wants_writenotify() sees the protection from before, and so no tracking.
    t = (builder := ProgramBuilder()).task("t")
    t.mmap(P, addr=A, flags=("shared", "anonymous", "fixed"))
    t.write(A)
    t.mprotect(A, P, before)
    t.clear_refs(4)
    t.mprotect(A, P, after)
    t.write(A, 2)
    result = spfemu.run(builder.build(), engine=engine)
    assert result.ops["counters"][-1, EVENTS.index("faults")] == 1


def test_shared_memory_is_mapped_read_only_from_then_on() -> None:
    def ops(t: TaskBuilder) -> None:
        t.mmap(2 * P, addr=A, flags=("shared", "fixed"), file="f")
        t.read(A)
        t.write(A)
        t.clear_refs(4)
        t.madvise(A, 2 * P, "dontneed")
        t.read(A)
        t.write(A)

    # Until then memory that asks for no notice can be written to as soon as it is mapped.
    assert faults(play(ops, files=S), 1) == [1, 0, 0, 0, 1, 1]


def test_mprotect_lets_writes_be_when_it_should_not() -> None:
    # A bug of 5.1: a page that is dirty, but not known to be since, gets writable again.
    def ops(t: TaskBuilder) -> None:
        t.mmap(P, addr=A, flags=("shared", "fixed"), file="f")
        t.write(A)
        t.clear_refs(4)
        t.mprotect(A, P, 1)
        t.mprotect(A, P, 3)
        t.write(A)

    assert faults(play(ops, files=F))[-1] == 0


def test_what_joins_a_new_mapping_is_not_tracked_any_more() -> None:
    def ops(t: TaskBuilder) -> None:
        t.mmap(P, addr=A, flags=("shared", "fixed"), file="f")
        t.write(A)
        t.clear_refs(4)
        t.mmap(P, addr=A + P, flags=("shared", "fixed"), file="f", offset=P)
        t.mprotect(A, 2 * P, 1)
        t.mprotect(A, 2 * P, 3)
        t.write(A)

    # One mapping that is all new; but the page is known to be clean. On disk that makes a fault.
    played = play(ops, files=F)
    assert played.areas() == ["0-2 rw-s"]
    assert faults(played)[-1] == 1


def test_mremap_marks_what_it_moves() -> None:
    def ops(t: TaskBuilder) -> None:
        t.mmap(P, addr=A, flags=("shared", "fixed"), file="f")
        t.write(A)
        t.clear_refs(4)
        t.mremap(A, P, P, flags=("maymove", "fixed"), new_addr=B)
        t.mmap(P, addr=B + P, flags=("shared", "fixed"), file="f", offset=P)
        t.mprotect(B, 2 * P, 1)
        t.mprotect(B, 2 * P, 3)
        t.write(B)

    assert faults(play(ops, files=F))[-1] == 0


@pytest.mark.parametrize(("what", "is_old"), [(0, 0), (1, 1), (2, 1), (3, 0), (5, 0)])
def test_old_pages_can_be_told_from_used_ones(what: int, is_old: int) -> None:
    # pageout leaves what another process has used since its pages were made old.
    builder = ProgramBuilder()
    parent = builder.task("t0")
    parent.mmap(P, addr=A, flags=("private", "anonymous", "fixed"))
    parent.write(A)
    parent.fork("c")
    parent.await_("used")
    parent.madvise(A, P, "pageout")
    parent.read(A)
    parent.post("done")
    child = builder.task("c", start="fork")
    child.read(A)
    child.clear_refs(what)
    child.post("used")
    child.await_("done")
    for engine in ("reference", "native"):
        result = spfemu.run(builder.build(), arch="x86", engine=engine)
        assert result.outcome(result.task_ops(0)[5])["counters"].get("faults", 0) == is_old


def test_other_numbers_are_refused() -> None:
    def ops(t: TaskBuilder) -> None:
        for what in range(7):
            t.clear_refs(what)

    expected = ["EINVAL", *[None] * 5, "EINVAL"]
    assert play(ops, arch=ARM64).errnos() == expected
    assert play(ops, arch=X86).errnos() == expected
