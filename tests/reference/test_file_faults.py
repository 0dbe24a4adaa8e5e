"""Faults on files: around, private copies, write notification, the end, the page cache."""

from __future__ import annotations

import pytest

from spfemu.program import FileSpec, TaskBuilder
from tests.reference.arches import ARM64_64K, POWERPC, X86
from tests.reference.play import A, P, play

F = (FileSpec("f", 64 * P),)
S = (FileSpec("f", 64 * P, kind="shmem"),)


def map_file(t: TaskBuilder, kind: str = "private", pages: int = 64, first: int = 0) -> None:
    t.mmap(pages * P, addr=A + first * P, flags=(kind, "fixed"), file="f", offset=first * P)


def fault_counts(played_counters: list[dict[str, int]]) -> list[int]:
    return [counters.get("faults", 0) for counters in played_counters]


@pytest.mark.parametrize(
    ("first", "target", "mapped"),
    [
        (0, 20, range(16, 32)),  # the aligned sixteen pages
        (0, 63, range(48, 64)),
        (18, 20, range(18, 34)),  # begins at the mapping, and is sixteen pages from there
    ],
)
def test_a_read_maps_around(first: int, target: int, mapped: range) -> None:
    def ops(t: TaskBuilder) -> None:
        map_file(t, pages=64 - first, first=first)
        t.read(A + target * P)
        t.touch(A + first * P, (64 - first) * P, access="read")

    touched = play(ops, files=F).outcomes[2:]
    present = [first + o["access"] for o in touched if not o["counters"]]
    assert set(mapped) <= set(present)
    missed = [first + o["access"] for o in touched if o["counters"]]
    assert not set(mapped) & set(missed)
    assert all(page % 16 == 0 or page in (mapped.stop, first) for page in missed)


def test_around_ends_with_the_page_table() -> None:
    # Sixteen pages from the mapping's start would go into the next table.
    table = 1 << 21

    def ops(t: TaskBuilder) -> None:
        start = A + table - 3 * P
        t.mmap(8 * P, addr=start, flags=("private", "fixed"), file="f")
        t.read(start)
        t.touch(start, 8 * P, access="read")

    touched = play(ops, files=F).outcomes[2:]
    assert [o["access"] for o in touched if o["counters"]] == [3]


@pytest.mark.parametrize("arch", [POWERPC, ARM64_64K], ids=lambda arch: arch.name)
def test_pages_of_64k_have_no_around(arch: object) -> None:
    from spfemu.profiles import Arch

    assert isinstance(arch, Arch)
    size = arch.page_size

    def ops(t: TaskBuilder) -> None:
        t.mmap(4 * size, addr=A, flags=("private", "fixed"), file="f")
        t.touch(A, 4 * size, access="read")

    played = play(ops, arch=arch, files=(FileSpec("f", 4 * size),))
    assert played.result.counters["faults"] == 4


def test_a_write_maps_its_page_only() -> None:
    def ops(t: TaskBuilder) -> None:
        map_file(t, "shared")
        t.write(A, 7)
        t.read(A + P)
        t.read(A)

    played = play(ops, files=F)
    assert fault_counts([o["counters"] for o in played.outcomes[1:]]) == [1, 1, 0]
    assert played.last["value"] == 7


def test_a_private_copy_is_made_once_and_stays_private() -> None:
    def ops(t: TaskBuilder) -> None:
        t.mmap(64 * P, addr=A + (1 << 30), flags=("shared", "fixed"), file="f")
        t.write(A + (1 << 30), 5)
        map_file(t)
        t.read(A)
        t.write(A, 6)
        t.write(A, 7)
        t.read(A)
        t.read(A + (1 << 30))

    played = play(ops, files=F)
    assert [o["value"] for o in played.outcomes if o["op"] == "read"] == [5, 7, 5]
    assert fault_counts([o["counters"] for o in played.outcomes[3:7]]) == [1, 1, 0, 0]


def test_a_disk_file_is_notified_of_the_first_write_shmem_is_not() -> None:
    def ops(t: TaskBuilder) -> None:
        map_file(t, "shared")
        t.read(A)
        t.write(A)
        t.mprotect(A, 64 * P, "r")
        t.mprotect(A, 64 * P, "rw")
        t.write(A)
        t.write(A + P)

    def faults(files: tuple[FileSpec, ...]) -> list[int]:
        counters = [o["counters"] for o in play(ops, files=files).outcomes]
        return fault_counts([counters[index] for index in (1, 2, 5, 6)])

    # After mprotect, a page that was written stays writable; one that was only read does not.
    assert faults(F) == [1, 1, 0, 1]
    assert faults(S) == [1, 0, 0, 0]


@pytest.mark.parametrize(("kind", "rounds"), [("regular", 2), ("shmem", 1)])
def test_the_first_access_of_a_page_that_is_not_cached_is_major(kind: str, rounds: int) -> None:
    # A file on disk is read without mmap_sem, and the fault then begins again.
    def ops(t: TaskBuilder) -> None:
        map_file(t)
        t.read(A)
        t.read(A + P)
        t.write(A + 2 * P)
        t.madvise(A, 64 * P, "dontneed")
        t.read(A)

    outcomes = play(ops, files=(FileSpec("f", 64 * P, kind=kind, cached=False),)).outcomes
    major = {"faults": 1, "major-faults": 1, "pgfault": rounds, "pgmajfault": 1}
    for outcome in outcomes[1:4]:
        assert outcome["counters"] == {**major, "pagefault:spf_vma_notsup": 1}
    assert outcomes[5]["counters"]["minor-faults"] == 1


@pytest.mark.parametrize("kind", ["private", "shared"])
@pytest.mark.parametrize("op", ["read", "write"])
def test_beyond_the_end_is_sigbus(kind: str, op: str) -> None:
    # 64 pages and one byte: page 64 is there, page 65 is not.
    def ops(t: TaskBuilder) -> None:
        t.mmap(70 * P, addr=A, flags=(kind, "fixed"), file="f")
        for page in (64, 65):
            t.read(A + page * P) if op == "read" else t.write(A + page * P)

    good, bad = play(ops, files=(FileSpec("f", 64 * P + 1),)).outcomes[1:]
    assert good["signal"] is None
    assert (bad["signal"], bad["si_code"]) == ("SIGBUS", "BUS_ADRERR")
    assert bad["counters"] == {"faults": 1, "pagefault:spf_vma_notsup": 1, "pgfault": 1}


def test_a_read_beyond_the_end_still_maps_around() -> None:
    def ops(t: TaskBuilder) -> None:
        t.mmap(70 * P, addr=A, flags=("private", "fixed"), file="f")
        t.read(A + 66 * P)
        t.read(A + 64 * P)

    bad, good = play(ops, files=(FileSpec("f", 65 * P),)).outcomes[1:]
    assert bad["signal"] == "SIGBUS"
    assert good["counters"] == {}


def test_shared_dev_zero_at_an_offset_has_nothing_there() -> None:
    # The shmem object is as long as the mapping, and the mapping begins beyond it.
    def ops(t: TaskBuilder) -> None:
        t.mmap(4 * P, addr=A, flags=("shared", "fixed"), file="z", offset=4 * P)
        t.read(A)

    assert play(ops, files=(FileSpec("z", 1 << 20, kind="devzero"),)).last["signal"] == "SIGBUS"


def test_shared_anonymous_memory_is_shared_with_a_child() -> None:
    from spfemu.program import ProgramBuilder
    from spfemu.reference import run

    builder = ProgramBuilder()
    t = builder.task()
    t.mmap(4 * P, addr=A, flags=("shared", "anonymous", "fixed"))
    t.write(A, 3)
    t.fork("c", wait=True)
    t.read(A)
    builder.task("c", start="fork").write(A, 4)
    result = run(builder.build(), arch=X86)
    assert int(result.task_ops(0)["value"][-1]) == 4


def test_dontneed_brings_the_files_content_back() -> None:
    def ops(t: TaskBuilder) -> None:
        map_file(t)
        t.write(A, 9)
        t.madvise(A, P, "dontneed")
        t.read(A)

    assert play(ops, files=F).last["value"] == 0
