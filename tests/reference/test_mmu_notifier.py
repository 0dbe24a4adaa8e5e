"""notifier: there is one or none, and nobody of the address space can tell."""

from __future__ import annotations

import pytest

from spfemu.program import TaskBuilder
from tests.reference.play import A, P, play


def test_one_at_a_time() -> None:
    def ops(t: TaskBuilder) -> None:
        for on in (False, True, True, False, True):
            t.notifier(on=on)

    assert play(ops).errnos() == ["ENOENT", None, "EEXIST", None, None]


def test_exec_leaves_it_behind() -> None:
    def ops(t: TaskBuilder) -> None:
        t.notifier(on=True)
        t.exec()
        t.notifier(on=True)

    assert play(ops, threads=1).errnos() == [None, None, None]


@pytest.mark.parametrize("on", [False, True])
def test_nobody_can_tell(on: bool) -> None:
    def ops(t: TaskBuilder) -> None:
        if on:
            t.notifier(on=True)
        t.mmap(2 * P, addr=A, flags=("private", "anonymous", "fixed"))
        t.read(A)
        t.touch(A, 2 * P)

    faults = [outcome["counters"].get("faults", 0) for outcome in play(ops).outcomes]
    assert faults[int(on) :] == [0, 1, 1, 1]
