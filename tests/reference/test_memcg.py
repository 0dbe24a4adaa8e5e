"""A memory cgroup: how many pages of anonymous memory the processes may have together."""

from __future__ import annotations

import pytest

from spfemu.program import FileSpec, System, TaskBuilder
from spfemu.program.model import Swap
from tests.reference.play import A, P, Played, play

F = (FileSpec("f", 64 * P),)
HUGE = 1 << 21


def seen(played: Played) -> list[int | str]:
    accesses = [o for o in played.outcomes if o["op"] in ("read", "write", "touch")]
    return [o["signal"] or (o["value"] if o["value"] is not None else "ok") for o in accesses]


def limited(pages: int, **settings: object) -> System:
    return System(memcg=pages * P, swap=Swap(size=1 << 20), **settings)  # type: ignore[arg-type]


@pytest.mark.parametrize("handler", ["spf", "classic"])
def test_what_costs_too_much_is_out_of_memory(handler: str) -> None:
    def ops(t: TaskBuilder) -> None:
        t.mmap(4 * P, addr=A, flags=("private", "anonymous", "fixed"))
        t.touch(A, 4 * P)
        t.touch(A, 4 * P, access="read")

    played = play(ops, handler=handler, system=limited(2))
    assert seen(played) == ["ok", "ok", "SIGKILL", "SIGKILL", 1, 1, 0, 0]
    assert played.outcomes[3]["handled"] == handler


def test_copies_count_and_files_do_not() -> None:
    def ops(t: TaskBuilder) -> None:
        t.mmap(64 * P, addr=A, flags=("private", "fixed"), file="f")
        t.touch(A, 64 * P, access="read")
        t.touch(A, 2 * P)

    assert seen(play(ops, files=F, system=limited(1)))[64:] == ["ok", "SIGKILL"]


def test_what_comes_back_from_swap_counts_when_it_is_mapped() -> None:
    def ops(t: TaskBuilder) -> None:
        t.mmap(4 * P, addr=A, flags=("private", "anonymous", "fixed"))
        t.write(A, 5)
        t.swap_out(A, P)
        t.write(A + P, 6)
        t.read(A)
        t.munmap(A + P, P)
        t.read(A)

    assert seen(play(ops, system=limited(1))) == ["ok", "ok", "SIGKILL", 5]


def test_it_is_all_given_back() -> None:
    def ops(t: TaskBuilder) -> None:
        for _ in range(3):
            t.mmap(4 * P, addr=A, flags=("private", "anonymous", "fixed"))
            t.touch(A, 4 * P)
            t.swap_out(A, P, keep_cache=True)
            t.madvise(A, 4 * P, "dontneed")
            t.touch(A, 4 * P)
            t.munmap(A, 4 * P)

    assert seen(play(ops, system=limited(4))) == ["ok"] * 24


@pytest.mark.parametrize(("pages", "small"), [(511, True), (512, False)])
def test_a_huge_page_that_costs_too_much_is_a_small_one(pages: int, small: bool) -> None:
    def ops(t: TaskBuilder) -> None:
        t.mmap(HUGE, addr=A, flags=("private", "anonymous", "fixed"))
        t.write(A)
        t.write(A + P)

    played = play(ops, system=limited(pages, thp="always"))
    assert [o["counters"].get("faults", 0) for o in played.outcomes[1:]] == [1, int(small)]


def test_collapse_needs_a_charge_of_its_own() -> None:
    def ops(t: TaskBuilder) -> None:
        t.mmap(HUGE, addr=A, flags=("private", "anonymous", "fixed"))
        t.madvise(A, HUGE, "hugepage")
        t.write(A)
        t.collapse(A)

    played = play(ops, system=limited(512, thp="madvise"))
    assert seen(played) == ["ok"]
