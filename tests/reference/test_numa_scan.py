"""numa_scan: which pages fault once more, and what the fault leaves."""

from __future__ import annotations

from collections.abc import Callable

import pytest

import spfemu
from spfemu.program import ProgramBuilder, System, TaskBuilder
from tests.reference.play import A, P, Played, play


def scanned(
    ops: Callable[[TaskBuilder], None],
    before: Callable[[TaskBuilder], None] = lambda t: None,
    *,
    threads: int = 2,
    system: System | None = None,
) -> Played:
    """Writes to two pages, does `before`, scans, does `ops`; the outcomes are of `ops` alone."""

    def all_ops(t: TaskBuilder) -> None:
        t.mmap(2 * P, addr=A, flags=("private", "anonymous", "fixed"))
        t.touch(A, 2 * P, value=7)
        before(t)
        t.numa_scan(A, 2 * P)
        t.note("scanned")
        ops(t)

    played = play(all_ops, threads=threads, system=system)
    first = next(n for n, o in enumerate(played.outcomes) if o["op"] == "note") + 1
    return Played(played.result, played.outcomes[first:], played.maps)


def faults(played: Played) -> list[int]:
    return [outcome["counters"].get("faults", 0) for outcome in played.outcomes]


def test_each_page_faults_once_and_stays_writable() -> None:
    def ops(t: TaskBuilder) -> None:
        t.read(A)
        t.write(A, 8)
        t.write(A + P, 9)
        t.read(A + P)

    played = scanned(ops)
    assert faults(played) == [1, 0, 1, 0]
    assert [o["handled"] for o in played.outcomes] == ["spf", "none", "spf", "none"]
    assert played.last["value"] == 9


@pytest.mark.parametrize("call", ["mbind", "set_mempolicy"])
def test_where_there_is_a_policy_nothing_is_hinted(call: str) -> None:
    def before(t: TaskBuilder) -> None:
        if call == "mbind":
            t.mbind(A, P, "bind")
        else:
            t.set_mempolicy("local")

    assert faults(scanned(lambda t: t.touch(A, 2 * P), before)) == [0, int(call == "mbind")]


@pytest.mark.parametrize("engine", ["reference", "native", "vtime"])
@pytest.mark.parametrize(("kind", "hinted"), [("shmem", 0), ("regular", 1), ("devzero", 1)])
def test_private_pages_of_a_shmem_file_are_not_hinted(engine: str, kind: str, hinted: int) -> None:
    # shmem_get_policy() has no policy that lets pages move (vma_policy_mof()).
    builder = ProgramBuilder()
    builder.file("f", 4 * P, kind=kind)
    t = builder.task("t")
    t.mmap(P, addr=A, flags=("private", "fixed"), file="f")
    t.write(A)
    t.clone("c")
    t.numa_scan(A, P)
    t.read(A)
    t.barrier("end")
    builder.task("c", "clone").barrier("end")
    found = spfemu.run(builder.build(), engine=engine)
    read = next(o for o in found.outcomes() if o["op"] == "read")
    assert read["counters"].get("faults", 0) == hinted


def test_one_thread_is_where_its_pages_are() -> None:
    assert faults(scanned(lambda t: t.read(A), threads=1)) == [0]


def test_mprotect_takes_the_hint_away() -> None:
    def ops(t: TaskBuilder) -> None:
        t.mprotect(A, 2 * P, "r")
        t.read(A)

    assert faults(scanned(ops)) == [0, 0]


def test_without_numa_nobody_scans() -> None:
    assert faults(scanned(lambda t: t.read(A), system=System(config={"NUMA": False}))) == [0]
