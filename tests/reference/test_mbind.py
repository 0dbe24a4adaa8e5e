"""mbind and set_mempolicy: which VMAs there are afterwards, and which faults may be speculative."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from spfemu.program import System, TaskBuilder
from tests.reference.play import A, P, Played, play

FIXED = ("private", "anonymous", "fixed")
NOTSUP = "pagefault:spf_vma_notsup"


def on_touched(ops: Callable[[TaskBuilder], None], system: System | None = None) -> Played:
    """Maps eight pages, writes to the first, and then does `ops`; the outcomes are of `ops`."""

    def all_ops(t: TaskBuilder) -> None:
        t.mmap(8 * P, addr=A, flags=FIXED)
        t.write(A, 1)
        ops(t)

    played = play(all_ops, system=system)
    return Played(played.result, played.outcomes[2:], played.maps)


@pytest.mark.parametrize(
    ("of_vma", "of_task", "speculative"),
    [
        ("default", "default", True),
        ("interleave", "default", False),
        ("default", "interleave", False),
        ("bind", "interleave", True),  # the VMA's own comes first
        ("local", "interleave", True),
        ("interleave", "bind", False),
    ],
)
def test_h11_asks_the_vma_and_then_the_task(of_vma: str, of_task: str, speculative: bool) -> None:
    def ops(t: TaskBuilder) -> None:
        t.mbind(A, 8 * P, of_vma)
        t.set_mempolicy(of_task)
        t.write(A + P, 1)

    counters = on_touched(ops).last["counters"]
    assert counters.get("spf", 0) == speculative
    assert counters.get(NOTSUP, 0) == (not speculative)


def test_policies_split_and_merge_vmas() -> None:
    def ops(t: TaskBuilder) -> None:
        t.mbind(A + 2 * P, 2 * P, "bind")
        t.mbind(A + 3 * P, 3 * P, "bind", nodes=(0, 7))  # there is no node 7
        t.mbind(A + 5 * P, P, "preferred", nodes=(0, 1))  # the first of them
        t.mbind(A + 6 * P, P, "preferred")

    assert on_touched(ops).areas() == ["0-2 rw-p", "2-5 rw-p", "5-7 rw-p", "7-8 rw-p"]


def test_taking_the_policy_away_joins_them_again() -> None:
    def ops(t: TaskBuilder) -> None:
        t.mbind(A + 2 * P, 2 * P, "local")
        t.mbind(A, 8 * P)

    assert on_touched(ops).areas() == ["0-8 rw-p"]


@pytest.mark.parametrize(
    ("addr", "length", "mode", "nodes", "error"),
    [
        (A + 1, P, "bind", (0,), "EINVAL"),
        (A, P, "bind", (), "EINVAL"),
        (A, P, "interleave", (2, 63), "EINVAL"),
        (A, P, "preferred", (), None),
        (A, P, "preferred", (2,), "EINVAL"),
        (A, P, "local", (0,), None),
        (A, 0, "bind", (), None),
        (A, (1 << 64) - 1, "bind", (), None),  # rounds to 0
        (A, (1 << 64) - P, "bind", (0,), "EINVAL"),
        (A - P, 2 * P, "bind", (0,), "EFAULT"),
        (A - P, 2 * P, "default", (0,), "EFAULT"),
        (A, 8 * P, "bind", (0,), "EFAULT"),  # a hole between
        (A, 8 * P, "default", (0,), None),
        (A + 6 * P, 9 * P, "bind", (0,), None),  # a hole at the end
    ],
)
def test_errors_are_linuxs(
    addr: int, length: int, mode: str, nodes: tuple[int, ...], error: str | None
) -> None:
    def ops(t: TaskBuilder) -> None:
        t.munmap(A + 4 * P, P)
        t.mbind(addr, length, mode, nodes=nodes)

    assert on_touched(ops).last["errno"] == error


def test_too_many_vmas_is_enomem_and_what_was_done_stays() -> None:
    played = on_touched(
        lambda t: t.mbind(A + 2 * P, P, "bind"), System(sysctl={"vm.max_map_count": 2})
    )
    assert played.last["errno"] == "ENOMEM"
    assert played.areas() == ["0-2 rw-p", "2-8 rw-p"]


def test_without_numa_there_is_neither_call() -> None:
    def ops(t: TaskBuilder) -> None:
        t.mbind(A, P, "bind")
        t.set_mempolicy("interleave")
        t.write(A + P, 1)

    played = on_touched(ops, System(config={"NUMA": False}))
    assert played.errnos() == ["ENOSYS", "ENOSYS", None]
    assert played.last["counters"]["spf"] == 1
