"""rebind: which nodes policies have afterwards, told by the VMAs that then can be one."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from spfemu.program import System, TaskBuilder
from tests.reference.play import A, P, Played, play

FIXED = ("private", "anonymous", "fixed")


def on_two_nodes_of_four(ops: Callable[[TaskBuilder], None]) -> Played:
    """Page n of four is bound to node n; after `ops` all change flags, and merge if they can."""

    def all_ops(t: TaskBuilder) -> None:
        t.mmap(4 * P, addr=A, flags=FIXED)
        for node in range(4):
            t.mbind(A + node * P, P, "bind", nodes=(node,))
        ops(t)
        t.mprotect(A, 4 * P, "r")

    played = play(all_ops, system=System(nodes=4))
    return Played(played.result, played.outcomes[5:-1], played.maps)


@pytest.mark.parametrize(
    ("cpusets", "areas"),
    [
        ([(3,)], ["0-4 r--p"]),
        ([(0, 1, 2)], ["0-1 r--p", "1-2 r--p", "2-3 r--p", "3-4 r--p"]),  # 0, 1, 2, 0
        ([(0, 1)], ["0-1 r--p", "1-2 r--p", "2-3 r--p", "3-4 r--p"]),  # 0, 1, 0, 1
        # Each mask is noted as the cpuset, so its one node is the first the next time.
        ([(0, 1), (2, 3)], ["0-4 r--p"]),
        # What a cpuset has already is nothing to do: 0, 1, 0, 1.
        ([(0, 1), (0, 1)], ["0-1 r--p", "1-2 r--p", "2-3 r--p", "3-4 r--p"]),
        ([(), (4,), (0, 9)], ["0-1 r--p", "1-2 r--p", "2-3 r--p", "3-4 r--p"]),
    ],
)
def test_nodes_go_by_their_places(cpusets: list[tuple[int, ...]], areas: list[str]) -> None:
    def ops(t: TaskBuilder) -> None:
        for nodes in cpusets:
            t.rebind(nodes)

    assert on_two_nodes_of_four(ops).areas() == areas


def test_errors_are_linuxs_and_policies_name_nodes_of_the_cpuset_only() -> None:
    def ops(t: TaskBuilder) -> None:
        t.rebind(())
        t.rebind((0, 4))
        t.rebind((2, 3))
        t.mbind(A, P, "bind", nodes=(0, 1))
        t.set_mempolicy("interleave", nodes=(1,))
        t.set_mempolicy("interleave", nodes=(1, 2))
        t.migrate(A, P, 4)
        t.migrate(A, P, 1)
        t.migrate(A, P, 2)

    assert on_two_nodes_of_four(ops).errnos() == [
        *("ENOSPC", "EINVAL", None, "EINVAL", "EINVAL", None),
        *("ENODEV", "EACCES", None),
    ]


def test_a_preferred_node_notes_the_cpuset_itself() -> None:
    def ops(t: TaskBuilder) -> None:
        t.mmap(4 * P, addr=A, flags=FIXED)
        for node in range(2):
            t.mbind(A + node * P, P, "preferred", nodes=(node,))
        t.rebind((0, 1))
        t.rebind((2, 3))  # 2, 3
        t.mbind(A + 2 * P, P, "preferred", nodes=(2,))
        t.mbind(A + 3 * P, P, "preferred", nodes=(3,))
        t.mprotect(A + P, 3 * P, "r")

    played = play(ops, system=System(nodes=4))
    assert played.areas() == ["0-1 rw-p", "1-2 r--p", "2-3 r--p", "3-4 r--p"]


def test_without_numa_there_is_no_such_thing() -> None:
    played = play(lambda t: t.rebind((0,)), system=System(config={"NUMA": False}))
    assert played.errnos() == ["ENOSYS"]
