"""oom_reap: private memory goes, and faults after it are SIGBUS."""

from __future__ import annotations

import pytest

import spfemu
from spfemu.program import FileSpec, ProgramBuilder, System, TaskBuilder
from spfemu.program.model import Swap
from tests.reference.play import A, P, Played, play

F = (FileSpec("f", 64 * P),)
B = A + (1 << 30)
HUGE = 1 << 21


def seen(played: Played) -> list[int | str]:
    accesses = [o for o in played.outcomes if o["op"] in ("read", "write", "touch")]
    return [o["signal"] or (o["value"] if o["value"] is not None else "ok") for o in accesses]


@pytest.mark.parametrize("handler", ["spf", "classic"])
def test_what_was_private_is_gone_and_nothing_comes(handler: str) -> None:
    def ops(t: TaskBuilder) -> None:
        t.mmap(4 * P, addr=A, flags=("private", "anonymous", "fixed"))
        t.touch(A, 2 * P, value=5)
        t.swap_out(A, P)
        t.oom_reap()
        t.touch(A, 4 * P, access="read")
        t.write(A, 1)
        t.read(A, mode="kernel")

    played = play(ops, handler=handler, system=System(swap=Swap(size=1 << 20)))
    assert seen(played)[2:-1] == ["SIGBUS"] * 5
    assert played.last["errno"] == "EFAULT"
    assert {o["si_code"] for o in played.outcomes if o["signal"]} == {"BUS_ADRERR"}
    # There is still a page table, so speculation comes as far as the page.
    assert {o["handled"] for o in played.outcomes if o["signal"]} == {handler}


@pytest.mark.parametrize("engine", ["reference", "native", "vtime", "explore"])
def test_what_was_merged_is_gone_here_and_stays_in_a_child(engine: str) -> None:
    # Engines check at their end that no page is left over, and no count wrong.
    builder = ProgramBuilder()
    t = builder.task("t0")
    t.mmap(4 * P, addr=A, flags=("private", "anonymous", "fixed"))
    t.touch(A, 3 * P, value=5)
    t.madvise(A, 4 * P, "mergeable")
    t.ksm_scan(A, 4 * P)
    t.fork("c")
    t.oom_reap()
    t.post("go")
    t.wait("c")
    t.read(A)
    t.ksm_scan(A, 4 * P)
    t.madvise(A, 4 * P, "unmergeable")
    child = builder.task("c", start="fork")
    child.await_("go")
    child.write(A, 7)
    child.write(A + P, 8)
    child.write(A + 2 * P, 9)
    child.touch(A, 3 * P, access="read")
    result = spfemu.run(builder.build(), engine=engine)
    outcomes = [result.outcome(record) for record in result.task_ops(1)]
    # The parent has let go of it, so the last one of the child's may keep it.
    writes = [o["counters"].get("faults") for o in outcomes if o["op"] == "write"]
    assert (writes, [o["value"] for o in outcomes[-3:]]) == ([1, 1, 1], [7, 8, 9])
    mine = [result.outcome(record) for record in result.task_ops(0)]
    assert [o["signal"] for o in mine if o["op"] == "read"] == ["SIGBUS"]
    assert {o["errno"] for o in mine} == {None}


def test_shared_and_locked_memory_and_children_are_spared() -> None:
    def ops(t: TaskBuilder) -> None:
        t.mmap(2 * P, addr=A, flags=("shared", "anonymous", "fixed"))
        t.write(A, 5)
        t.mmap(P, addr=B, flags=("private", "anonymous", "fixed", "locked"))
        t.write(B, 6)
        t.oom_reap()
        t.touch(A, 2 * P, access="read")
        t.read(B)

    assert seen(play(ops))[2:] == [5, 0, 6]


def test_a_read_of_a_file_maps_what_is_around_all_the_same() -> None:
    def ops(t: TaskBuilder) -> None:
        t.mmap(64 * P, addr=A, flags=("private", "fixed"), file="f")
        t.write(A, 5)
        t.oom_reap()
        t.read(A)
        t.write(A + P, 1)
        t.write(A + 32 * P, 1)

    # 5.1 does not look there: the copy is lost, and the file's page comes in its place.
    assert seen(play(ops, files=F))[1:] == [0, "ok", "SIGBUS"]


def test_no_huge_page_comes_either() -> None:
    def ops(t: TaskBuilder) -> None:
        t.mmap(2 * HUGE, addr=A, flags=("private", "anonymous", "fixed"))
        t.oom_reap()
        t.read(A)
        t.write(A + HUGE)

    assert seen(play(ops, system=System(thp="always"))) == ["SIGBUS", "SIGBUS"]


def test_it_comes_once_in_a_life() -> None:
    def ops(t: TaskBuilder) -> None:
        t.oom_reap()
        t.mmap(P, addr=A, flags=("private", "fixed"), file="f")
        t.read(A)
        t.write(A, 5)
        t.oom_reap()
        t.read(A)

    assert seen(play(ops, files=F)) == [0, "ok", 5]
