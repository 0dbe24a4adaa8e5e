"""exec with a stack: where it is, what is on it, and what keeps it from being there."""

from __future__ import annotations

import itertools

import pytest

import spfemu
from spfemu import Result
from spfemu.program import ProgramBuilder, System, TaskBuilder
from tests.reference.play import A, P, Played, play

TOP = (1 << 47) - P


def exec_with(
    stack: int, shift: int = 0, *, memory: int = 1 << 30, limit: int = 8 << 20, top: int = TOP
) -> Played:
    """exec, a read and a write at the stack's end, and one below all of it."""

    def ops(t: TaskBuilder) -> None:
        t.exec(stack=stack, stack_shift=shift)
        t.read(top - shift - P)
        t.write(top - shift - P, 1)
        t.write(top - shift - (1 << 20), 1)

    return play(ops, threads=1, system=System(memory=memory, stack_limit=limit))


@pytest.mark.parametrize("shift", [0, P, 2 << 20, 1 << 30, 1 << 34])
@pytest.mark.parametrize(("stack", "pages"), [(1, 1), (P - 8, 1), (P - 7, 2), (2 << 20, 513)])
def test_it_has_its_arguments_and_128k_below_them(stack: int, pages: int, shift: int) -> None:
    played = exec_with(stack, shift)
    room = pages + 32
    lowest = max(room, 256)  # grown by the last write, if it did not reach so far
    assert played.areas(base=TOP - shift) == [f"-{lowest}-0 rw-p"]
    assert [o["counters"].get("faults", 0) for o in played.outcomes] == [0, 0, 1, 1]


def test_without_a_stack_there_is_nothing() -> None:
    played = exec_with(0)
    assert played.maps == []
    assert [outcome["signal"] for outcome in played.outcomes[1:]] == ["SIGSEGV"] * 3


@pytest.mark.parametrize(
    ("limit", "most"), [(8 << 20, 2 << 20), (1 << 30, 6 << 20), (256 << 10, 128 << 10)]
)
def test_too_many_arguments(limit: int, most: int) -> None:
    assert exec_with(most, limit=limit).errnos()[0] is None
    assert exec_with(most + 1, limit=limit).errnos()[0] == "E2BIG"


def test_a_small_limit_keeps_it_small() -> None:
    assert exec_with(1, limit=64 << 10).areas(base=TOP) == ["-16-0 rw-p"]
    assert exec_with(64 << 10, limit=64 << 10).errnos()[0] == "E2BIG"


def in_a_child(frames: int) -> Result:
    """A child that leaves an address space of 16 frames, for a stack in two page tables."""
    parent = ProgramBuilder(system=System(memory=frames * P))
    child = parent.task("c", start="vfork")
    child.exec(stack=3 * P, stack_shift=(1 << 30) - P)
    child.read(TOP - (1 << 30))
    t = parent.task("t0")
    t.mmap(12 * P, addr=A, flags=("private", "anonymous", "fixed"))
    t.touch(A, 12 * P)
    t.vfork(child)
    return spfemu.run(parent.build(), engine="reference", handler="spf")


def test_memory_that_ends_is_e2big_and_for_the_move_it_kills() -> None:
    came = []
    for frames in range(16, 40):
        found = in_a_child(frames)
        outcome = next(o for o in found.outcomes() if o["op"] == "exec")
        came.append((outcome["errno"], outcome["signal"]))
    order = [key for key, _ in itertools.groupby(came)]
    assert order == [("ENOMEM", None), ("E2BIG", None), (None, "SIGKILL"), (None, None)]


def test_a_killed_task_goes_no_further_and_lets_its_vfork_parent_go_on() -> None:
    found = in_a_child(26)
    assert [o["op"] for o in found.outcomes() if o["task"] == "c"] == ["exec"]
    assert found.stuck == ()
