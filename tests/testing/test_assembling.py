"""Turns become programs in which one task is at work at a time."""

from __future__ import annotations

from typing import Any

from spfemu import Program, run
from spfemu.testing import differential
from spfemu.testing.assembling import Assembly, Turn
from spfemu.testing.vocabulary import At

READ = {"op": "read", "addr": At(None, 4096)}


def assembled(*turns: Turn, threads: int = 1, stuck: bool = False) -> dict[str, list[Any]]:
    """For each task, its operations: names, with who is waited for or what is handed over."""
    assembly = Assembly(threads=threads, most=4, max_ops=99, anywhere=0x100000)
    tasks = assembly.tasks_of(turns, stuck=stuck)
    return {task["name"]: [brief(op) for op in task["ops"]] for task in tasks}


def brief(op: dict[str, Any]) -> Any:
    name = op.get("name", op.get("child"))
    if op["op"] == "repeat":
        return [brief(inner) for inner in op["ops"]]
    return op["op"] if name is None else f"{op['op']} {name}"


def test_hands_over_by_post_and_await_or_by_a_barrier() -> None:
    # t0 | read |      | read
    # t1        | read |
    assert assembled(Turn(0, [READ]), Turn(1, [READ], "barrier"), Turn(0, [READ]), threads=2) == {
        "t0": ["read", "barrier b1", "await p2", "read", "post end3"],
        "t1": ["barrier b1", "read", "post p2", "await end3"],
    }


def test_waits_for_the_end_of_who_has_ended() -> None:
    assert assembled(Turn(0, [READ, {"op": "end"}]), Turn(0, [READ]), threads=2) == {
        "t0": ["read"],
        "t1": ["wait t0", "read"],
    }


def test_the_caller_of_vfork_goes_on_after_the_child() -> None:
    # t0 | vfork              | read      c1 takes over what is left of the turn.
    # c1         | read, exec |
    turns = [Turn(0, [{"op": "vfork"}, READ]), Turn(0, [{"op": "exec"}]), Turn(0, [READ])]
    assert assembled(*turns) == {
        "t0": ["vfork c1", "await p1", "read", "post end2"],
        "c1": ["read", "exec", "post p1", "await end2"],
    }


def test_the_caller_of_fork_with_wait_goes_on_when_the_child_has_ended() -> None:
    turns = [
        Turn(0, [{"op": "fork", "wait": True}]),
        Turn(0, [READ, {"op": "exit"}]),
        Turn(0, [READ]),
    ]
    assert assembled(*turns) == {"t0": ["fork c1", "wait c1", "read"], "c1": ["read", "exit"]}


def test_exec_ends_the_others_at_what_they_wait_for() -> None:
    # t1 says that it has left the barrier; then it waits for what never comes while it lives.
    turns = [Turn(1, [READ]), Turn(0, [READ], "barrier"), Turn(0, [{"op": "exec"}, READ])]
    assert assembled(*turns, threads=2) == {
        "t0": ["barrier b1", "read", "await r2", "exec", "post x3", "wait t1", "read"],
        "t1": ["read", "barrier b1", "post r2", "await x3"],
    }


def test_an_exec_that_fails_lets_nobody_end_beside_later_faults() -> None:
    # Found by a campaign: whether t1 had ended decided who handled t0's faults (mm_users).
    stack = {"op": "exec", "stack": 1 << 21, "stack_shift": 1 << 30}
    touch = {"op": "touch", "addr": At("p", 0), "length": 1 << 16}
    turns = [
        Turn(0, [{"op": "mmap", "length": 1 << 16, "id": "p"}]),
        Turn(1, [READ]),
        Turn(0, [stack, touch]),
    ]
    tasks = Assembly(threads=2, most=2, max_ops=9, anywhere=0x100000).tasks_of(turns)
    head = {"format": "spfemu-program/1", "system": {"stack_limit": 41060}}
    program = Program.from_dict({**head, "tasks": tasks})
    exec_outcome = next(one for one in run(program).outcomes() if one["op"] == "exec")
    assert exec_outcome["errno"] == "E2BIG"
    for _ in range(20):
        differential(program, arches=("x86",))


def test_two_tasks_take_turns_in_a_loop() -> None:
    step = {"op": "alternate", "count": 2, "other": 0, "mine": [READ], "theirs": [READ, READ]}
    assert assembled(Turn(0, [step]), threads=2) == {
        "t0": [["read", "barrier b1", "barrier b2"], "post end3"],
        "t1": [["barrier b1", "read", "read", "barrier b2"], "await end3"],
    }


def test_everybody_may_wait_for_ever_in_the_end() -> None:
    assert assembled(Turn(0, [READ]), threads=2, stuck=True) == {
        "t0": ["read", "await never1", "post never1", "post end2"],
        "t1": ["await end2"],
    }


def test_leaves_out_what_cannot_be() -> None:
    forks = [{"op": "fork"} for _ in range(9)]
    waits = [{"op": "wait", "which": 3}]
    made = assembled(Turn(0, [*waits, {"op": "nothing"}, *forks]), Turn(5, [{"op": "nothing"}]))
    assert made["t0"] == ["fork c1", "fork c2", "fork c3", "post end1"]
    assert len(made) == 4


def test_an_id_that_is_not_defined_yet_is_an_address() -> None:
    before = {"op": "read", "addr": At("p", 4096)}
    mmap = {"op": "mmap", "length": 4096, "id": "p"}
    assembly = Assembly(threads=1, most=1, max_ops=9, anywhere=0x100000)
    (task,) = assembly.tasks_of([Turn(0, [before, mmap, before])])
    assert [op["addr"] for op in task["ops"] if op["op"] == "read"] == ["0x101000", "p+0x1000"]
