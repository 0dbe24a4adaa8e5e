"""Copies of a program's threads in one process."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import spfemu
from spfemu import reference
from spfemu.errors import ProgramError
from spfemu.importers import import_trace
from spfemu.program import EVENTS, Program, ProgramBuilder
from tests.reference.arches import X86

TRACES = Path(__file__).parent / "traces"


def program(*tasks: dict[str, Any], **more: Any) -> Program:
    return Program.from_dict({"format": "spfemu-program/1", "tasks": list(tasks), **more})


FIXED = ["private", "anonymous", "fixed"]


def test_each_copy_has_ranges_of_its_own() -> None:
    # 0x7000_0000: [rw][rw] gap [rw]    and the same again, twice, with the words of that copy
    ops = [
        {"op": "mmap", "addr": "0x70000000", "length": "8K", "flags": FIXED},
        {"op": "mmap", "addr": "0x70010000", "length": "4K", "flags": FIXED},
        {"op": "touch", "addr": "0x70000000", "length": "8K"},
        {"op": "write", "addr": "0x70010008", "value": 7},
    ]
    one = program({"ops": ops})
    single = reference.run(one, arch=X86)
    result = reference.run(one.replicate(3), arch=X86)
    assert result.counters["faults"] == 3 * single.counters["faults"] == 9
    bounds = [[int(end, 16) for end in line.split()[0].split("-")] for line in result.maps["t0"]]
    assert [end - start for start, end in bounds] == [8192, 4096] * 3
    assert {bounds[at + 1][0] - bounds[at][0] for at in (0, 2, 4)} == {0x10000}
    assert bounds[0][0] == 0x70000000
    assert {start % (2 << 20) for start, _ in bounds[::2]} == {0}  # as far into a page table


def test_threads_of_copies_share_one_process() -> None:
    builder = ProgramBuilder()
    first, second = builder.task("first"), builder.task("second", "clone")
    first.mmap(65536, id="p")
    first.clone(second)
    first.barrier("go")
    second.barrier("go")
    second.touch("p", 65536)
    second.post("done")
    first.await_("done")
    many = builder.build().replicate(4)
    assert [task.name for task in many.tasks][2:4] == ["first#1", "second#1"]
    assert [task.start for task in many.tasks] == [None, "clone"] * 4
    result = reference.run(many, arch=X86)
    assert not result.stuck
    assert result.counters["faults"] == 4 * 16
    assert list(result.maps) == ["first"]
    assert len({int(task["value"]) for task in result.ops if task["op"] == 20}) == 1
    assert spfemu.run(many, engine="vtime", cpus=8).counters["faults"] == 4 * 16


def launched() -> Program:
    """A launcher forks a child, which execs and makes a thread; both use the heap."""
    heap = 0x1000000
    return program(
        {"name": "sh", "ops": [{"op": "fork", "child": "app", "wait": True}]},
        {
            "name": "app",
            "start": "fork",
            "ops": [
                {"op": "mmap", "length": "4K"},
                {"op": "exec", "brk_start": heap},
                {"op": "brk"},
                {"op": "brk", "delta": "64K"},
                {"op": "clone", "child": "worker"},
                {"op": "touch", "addr": heap, "length": "32K"},
                {"op": "wait", "child": "worker"},
            ],
        },
        {
            "name": "worker",
            "start": "clone",
            "ops": [
                {"op": "brk", "delta": "-4K"},
                {"op": "touch", "addr": heap + 32768, "length": "16K"},
            ],
        },
        cpus=2,
    )


def test_what_comes_after_an_exec_is_copied() -> None:
    many = launched().replicate(3)
    assert [task.name for task in many.tasks] == [
        *("sh", "app", "worker"),
        *("app#1", "worker#1"),
        *("app#2", "worker#2"),
    ]
    assert many.cpus == 6
    result = reference.run(many, arch=X86)
    assert not result.stuck
    assert (result.ops["errno"] == 0).all()
    assert (result.ops["signal"] == 0).all()
    assert list(result.maps) == ["sh", "app"]
    assert result.counters["faults"] == 3 * 12
    assert len(result.maps["app"]) == 3  # a heap, and a mapping in its place for each copy


@pytest.mark.parametrize("name", ["pigz", "memcached"])
def test_a_recording_does_the_same_in_each_copy(name: str) -> None:
    one, _ = import_trace([str(TRACES / f"{name}.perf.txt.zst")])
    copies = 3
    many = one.replicate(copies)
    single, result = (spfemu.run(each, engine="native", handler="classic") for each in (one, many))
    assert not result.stuck
    wrong = [
        int(np.count_nonzero(each.ops["errno"]) + np.count_nonzero(each.ops["signal"]))
        for each in (single, result)
    ]
    assert wrong[1] <= copies * wrong[0]
    # All but the launcher's faults come once for each copy; the heap of a copy is there at once.
    launcher = int(single.task_ops(0)["counters"][:, EVENTS.index("faults")].sum())
    app = single.counters["faults"] - launcher
    assert copies * app >= result.counters["faults"] - launcher > 0.97 * copies * app


def test_one_copy_is_the_program() -> None:
    one = launched()
    assert one.replicate(1) is one


def test_limits_grow_with_the_copies() -> None:
    one = program({"ops": [{"op": "compute", "ns": 1}]}, system={"memory": "1G"})
    many = one.replicate(4)
    assert many.system.memory == 4 << 30
    assert many.system.sysctl["vm.max_map_count"] == 4 * 65530


def test_a_launcher_is_waited_for() -> None:
    ops: list[dict[str, Any]] = [{"op": "exec"}, {"op": "await", "name": "ready"}]
    app = {"name": "app", "start": "fork", "ops": [*ops, {"op": "clone", "child": "t"}]}
    thread = {"name": "t", "start": "clone", "ops": [{"op": "compute", "ns": 1}]}
    start = {"ops": [{"op": "fork", "child": "app"}, {"op": "post", "name": "ready"}]}
    result = reference.run(program(start, app, thread).replicate(2), arch=X86)
    assert not result.stuck


HEAP = {"op": "brk", "delta": "4K"}


@pytest.mark.parametrize(
    ("ops", "copies", "message"),
    [
        ([HEAP], 0, "replicate: value 0 (allowed: 1 to 1024)"),
        ([HEAP], 1025, "replicate: value 1025 (allowed: 1 to 1024)"),
        ([HEAP], 2, "replicate: tasks[0].ops[0]: nothing says where the heap begins (allowed:"),
        (
            [{"op": "brk", "id": "h", "start": 1 << 33}],
            2,
            "replicate: tasks[0].ops[0]: brk with an id (allowed: without)",
        ),
        (
            [{"op": "mmap", "addr": 1 << 33, "length": "30T", "flags": FIXED}],
            3,
            "replicate: value 3: the ranges of a copy need ",
        ),
        (
            [{"op": "repeat", "count": 2, "ops": [{"op": "compute", "ns": 1}, {"op": "exec"}]}],
            2,
            "replicate: tasks[0].ops[0].ops[1]: exec ",
        ),
    ],
)
def test_what_cannot_be_copied_is_named(
    ops: list[dict[str, Any]], copies: int, message: str
) -> None:
    # Two tasks, so that no exec makes an address space with more of them.
    one = replace(program({"ops": ops}, {"ops": [{"op": "compute", "ns": 1}]}), source="p.json")
    with pytest.raises(ProgramError) as raised:
        one.replicate(copies)
    assert str(raised.value).startswith(f"p.json: {message}")


def test_how_many_would_fit_is_said() -> None:
    one = program({"ops": [{"op": "mmap", "addr": 1 << 33, "length": "10T", "flags": FIXED}]})
    with pytest.raises(ProgramError, match=r"and there are \d+ \(allowed: 1 to 6\)$"):
        one.replicate(7)
    assert len(one.replicate(6).tasks) == 6
