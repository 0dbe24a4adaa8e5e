"""collapse: which small pages become a huge one, and why others do not."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from spfemu.program import ProgramBuilder, System, TaskBuilder
from spfemu.reference import run
from tests.reference.arches import X86
from tests.reference.play import A, P, Played, play

FIXED = ("private", "anonymous", "fixed")
HUGE = 1 << 21
NR = HUGE // P


def small_pages(t: TaskBuilder, length: int = HUGE) -> None:
    """Three small pages, with 1, 2 and 3 in them."""
    t.mmap(length, addr=A, flags=FIXED)
    for page in (1, 2, 3):
        t.write(A + page * P, page)
    t.madvise(A, length, "hugepage")


def collapsed(ops: Callable[[TaskBuilder], None], system: System | None = None) -> Played:
    def all_ops(t: TaskBuilder) -> None:
        ops(t)
        t.collapse(A + 5 * P)

    return play(all_ops, system=system)


def test_small_pages_become_a_huge_one_with_their_content() -> None:
    def ops(t: TaskBuilder) -> None:
        small_pages(t)
        t.read(A + 4 * P)
        t.collapse(A)
        t.collapse(A)
        for page in range(6):
            t.read(A + page * P)
        t.touch(A, HUGE)
        t.mprotect(A, HUGE, "r")
        t.mprotect(A, HUGE, "rw")
        t.write(A)

    outcomes = play(ops).outcomes
    reads = outcomes[8:14]
    assert [o["value"] for o in reads] == [0, 1, 2, 3, 0, 0]
    assert not any(o["counters"].get("faults") for o in outcomes[8 : 14 + NR])
    assert outcomes[-1]["handled"] == "classic"


@pytest.mark.parametrize(
    "spoil",
    [
        lambda t: t.madvise(A, HUGE, "nohugepage"),
        lambda t: t.mprotect(A + 9 * P, P, "r"),
        lambda t: t.munmap(A, HUGE),
        lambda t: t.madvise(A, HUGE, "dontneed"),
        lambda t: (t.mprotect(A, HUGE, "r"), t.mprotect(A, HUGE, "rw")),
    ],
    ids=["advice", "not one VMA", "nothing mapped", "no page", "no page writable"],
)
def test_what_is_not_suitable_is_einval(spoil: Callable[[TaskBuilder], object]) -> None:
    def ops(t: TaskBuilder) -> None:
        small_pages(t)
        spoil(t)

    assert collapsed(ops).last["errno"] == "EINVAL"


@pytest.mark.parametrize(
    ("system", "errno"),
    [
        (System(thp="never"), "EINVAL"),
        (System(thp="always", config={"THP": False}), "EINVAL"),
        (System(memory=HUGE), "ENOMEM"),
        (System(memory=2 * HUGE), None),
    ],
)
def test_setting_configuration_and_memory_decide(system: System, errno: str | None) -> None:
    assert collapsed(small_pages, system).last["errno"] == errno


def test_what_was_huge_and_has_been_split_stays_so() -> None:
    def ops(t: TaskBuilder) -> None:
        t.mmap(HUGE, addr=A, flags=FIXED)
        t.madvise(A, HUGE, "hugepage")
        t.write(A)
        t.madvise(A + P, P, "dontneed")

    assert collapsed(ops).last["errno"] == "EINVAL"


def test_pages_that_another_process_has_are_eagain() -> None:
    builder = ProgramBuilder()
    t, c = builder.task("t0"), builder.task("c", "fork")
    small_pages(t)
    t.fork("c")
    t.write(A + P, 1)
    t.collapse(A)
    t.post("looked")
    t.wait("c")
    t.write(A + P, 1)
    t.collapse(A)
    c.await_("looked")
    result = run(builder.build(), arch=X86)
    outcomes = [result.outcome(row) for row in result.task_ops(0)]
    assert [o["errno"] for o in outcomes if o["op"] == "collapse"] == ["EAGAIN", None]


def test_memory_of_the_small_pages_comes_back() -> None:
    # Room for the huge page and the small ones, and for no more small ones than there were.
    def ops(t: TaskBuilder) -> None:
        small_pages(t, 2 * HUGE)
        t.collapse(A)
        t.madvise(A, 2 * HUGE, "nohugepage")
        t.touch(A + HUGE, 4 * P)

    tables = 1 + 3 + 1
    *_, last_but_one, last = play(ops, system=System(memory=(NR + tables + 4) * P)).outcomes
    assert (last_but_one["signal"], last["signal"]) == (None, "SIGKILL")
