"""What is left of a program without some of its operations, and what becomes simpler."""

from __future__ import annotations

import json
from typing import Any, Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spfemu import Program
from spfemu.program.cutting import Cutter, nr_operations, simpler
from spfemu.testing import concurrent_programs, programs

Op = dict[str, Any]
Tasks = dict[str, list[Op]]

MAP: Final[Op] = {"op": "mmap", "length": 4096, "flags": ["private", "anonymous"], "id": "p"}
OTHER: Final[Op] = {**MAP, "id": "q"}
WRITE: Final[Op] = {"op": "write", "addr": "p", "value": 1}
READ: Final[Op] = {"op": "read", "addr": "q"}
POST: Final[Op] = {"op": "post", "name": "go"}
AWAIT: Final[Op] = {"op": "await", "name": "go"}
FORK: Final[Op] = {"op": "fork", "child": "c"}
WAIT: Final[Op] = {"op": "wait", "child": "c"}
MEET: Final[Op] = {"op": "barrier", "name": "b"}
EXIT: Final[Op] = {"op": "exit"}


def repeat(*ops: Op, count: int = 3) -> Op:
    return {"op": "repeat", "count": count, "ops": list(ops)}


def program(tasks: Tasks, **more: Any) -> Program:
    """Task ``c`` is a fork's child."""
    starts = {"c": {"start": "fork"}}
    listed = [{"name": n, **starts.get(n, {}), "ops": ops} for n, ops in tasks.items()]
    return Program.from_dict({"format": "spfemu-program/1", "tasks": listed, **more})


def ops_of(of: Program) -> Tasks:
    return {task["name"]: task["ops"] for task in of.to_dict()["tasks"]}


@pytest.mark.parametrize(
    ("tasks", "gone", "left"),
    [
        # What names an id goes with what defines it, in other tasks too.
        ({"a": [MAP, OTHER, WRITE], "b": [WRITE, READ]}, [0], {"a": [OTHER], "b": [READ]}),
        # An await goes with the last post of its name, not with the first.
        ({"a": [POST, POST, EXIT], "b": [AWAIT]}, [0], {"a": [POST, EXIT], "b": [AWAIT]}),
        ({"a": [POST, POST, EXIT], "b": [AWAIT]}, [0, 1], {"a": [EXIT], "b": []}),
        ({"a": [POST, EXIT], "b": [AWAIT]}, [2], {"a": [POST, EXIT], "b": []}),
        # A child goes with its fork, and so does who waits for it, and what the child alone does.
        ({"a": [FORK, WAIT, AWAIT, EXIT], "c": [POST]}, [0], {"a": [EXIT]}),
        ({"a": [FORK, WAIT], "c": [EXIT]}, [2], {"a": [FORK, WAIT], "c": []}),
        # A repeat leaves what is in it; without anything in it, it goes.
        ({"a": [repeat(EXIT, repeat(MEET))]}, [0], {"a": [EXIT, repeat(MEET)]}),
        ({"a": [repeat(EXIT, repeat(MEET))]}, [3], {"a": [repeat(EXIT)]}),
        ({"a": [EXIT, repeat(repeat(MEET))]}, [3], {"a": [EXIT]}),
    ],
)
def test_what_cannot_be_without_the_others_goes_too(
    tasks: Tasks, gone: list[int], left: Tasks
) -> None:
    cutter = Cutter(program(tasks))
    smaller = cutter.without([cutter.places[nth] for nth in gone])
    assert smaller is not None
    assert ops_of(smaller) == left


def test_a_task_goes_with_who_starts_it() -> None:
    tasks = {"a": [POST], "b": [FORK, WAIT, EXIT], "c": [AWAIT]}
    cutter = Cutter(program(tasks))
    for number, left in enumerate(
        [
            {"b": [FORK, WAIT, EXIT], "c": []},
            {"a": [POST]},
            {"a": [POST], "b": [EXIT]},
        ]
    ):
        smaller = cutter.without((), [number])
        assert smaller is not None
        assert ops_of(smaller) == left
    assert cutter.without((), [0, 1]) is None


def test_barriers_are_told_by_their_names() -> None:
    cutter = Cutter(program({"a": [MEET, EXIT], "b": [{**MEET, "name": "other"}, MEET]}))
    smaller = cutter.without(cutter.barriers["b"])
    assert smaller is not None
    assert ops_of(smaller) == {"a": [EXIT], "b": [{**MEET, "name": "other"}]}


def test_expectations_and_files_that_are_not_used_go() -> None:
    files = {"f": {"length": 4096, "kind": "regular"}, "g": {"length": 8192, "kind": "shmem"}}
    mapping = {"op": "mmap", "length": 4096, "flags": ["private"], "file": "g"}
    told = {"files": files, "expect_for": {"handler": "classic", "arch": "x86"}}
    whole = program({"a": [{**EXIT, "expect": {"ret": 0}}, mapping]}, **told)
    smaller = Cutter(whole).without(())
    assert smaller is not None
    obj = smaller.to_dict()
    assert set(obj) == {"format", "page_size", "files", "tasks"}
    assert (obj["files"], ops_of(smaller)) == ({"g": files["g"]}, {"a": [EXIT, mapping]})


@given(st.one_of(programs(), concurrent_programs(tasks=3)), st.data())
def test_without_whatever_it_is_a_program(whole: Program, data: st.DataObject) -> None:
    cutter = Cutter(whole)
    gone = data.draw(st.sets(st.sampled_from(cutter.places))) if cutter.places else set()
    smaller = cutter.without(gone)
    assert smaller is not None
    before, after = ops_of(whole), ops_of(smaller)
    assert set(after) <= set(before)
    assert nr_operations(smaller) <= nr_operations(whole) - len(gone)
    for name, ops in after.items():
        given = iter(flat(before[name]))
        assert all(op in given for op in flat(ops))  # in the same order


def flat(ops: list[Op]) -> list[str]:
    found = []
    for op in ops:
        inner = op.get("ops", [])
        kept = {key: value for key, value in op.items() if key not in ("ops", "expect")}
        found += [json.dumps(kept), *flat(inner)]
    return found


def test_one_thing_at_a_time_becomes_simpler() -> None:
    long = {**MAP, "length": 5 * 4096}
    unmap = {"op": "munmap", "addr": "p", "length": 5 * 4096}
    whole = program({"a": [repeat(MEET, count=9), long, unmap, OTHER]}, system={"nodes": 1})
    made = [(one.to_dict().get("system"), ops_of(one)["a"]) for one in simpler(whole)]
    rest = [long, unmap, OTHER]
    rounds = repeat(MEET, count=9)

    def with_length(length: int) -> list[Op]:
        return [rounds, {**long, "length": length}, {**unmap, "length": length}, OTHER]

    nodes = {"nodes": 1}
    assert made == [
        (None, [rounds, *rest]),
        (nodes, [repeat(MEET, count=1), *rest]),
        (nodes, [repeat(MEET, count=4), *rest]),
        (nodes, with_length(4096)),
        (nodes, with_length(8192)),
    ]
