"""Tasks: how they start, wait and end, and what they leave."""

from __future__ import annotations

import json
from typing import Any

import pytest

from spfemu.errors import EngineError, ProgramError
from spfemu.program import Program, ProgramBuilder
from spfemu.reference import run
from spfemu.reference.order import splitmix64, touch_order
from spfemu.results import Result
from tests.reference.arches import POWERPC, X86
from tests.reference.play import A, P

FIXED = ("private", "anonymous", "fixed")


def run_tasks(*tasks: dict[str, Any]) -> Result:
    text = json.dumps({"format": "spfemu-program/1", "tasks": list(tasks)})
    return run(Program.loads(text), arch=X86)


def values(result: Result, task: int | str) -> list[int]:
    rows = result.task_ops(task)
    return [int(value) for value in rows["value"][(rows["has"] & 2) != 0]]


def op(name: str, /, **keys: Any) -> dict[str, Any]:
    return {"op": name, **keys}


MAP = op("mmap", length=16 * P, addr=A, flags=list(FIXED))


def write(value: int, page: int = 0) -> dict[str, Any]:
    return op("write", addr=A + page * P, value=value)


def read(page: int = 0) -> dict[str, Any]:
    return op("read", addr=A + page * P)


WAIT = op("wait", child="c")
END = op("barrier", name="end")


class TestOrder:
    def test_tasks_run_in_file_order_each_until_it_waits(self) -> None:
        # t0 writes 1 and waits; t1 writes 2 and ends; t2 sees it; t0 goes on
        result = run_tasks(
            {"ops": [MAP, write(1), op("await", name="x"), read(), write(4)]},
            {"ops": [read(), write(2)]},
            {"ops": [read(), write(3), op("post", name="x")]},
        )
        assert (values(result, 0), values(result, 1), values(result, 2)) == ([3], [1], [2])

    def test_outcomes_stand_by_task_with_round_and_access(self) -> None:
        inner = op("repeat", count=2, ops=[op("touch", addr=A, length=2 * P)])
        result = run_tasks({"ops": [MAP, op("repeat", count=2, ops=[inner])]})
        rows = [(int(r["index"]), int(r["round"]), int(r["access"])) for r in result.ops]
        assert rows == [(0, 0, 0)] + [
            (3, round_, access) for round_ in range(4) for access in range(2)
        ]

    def test_an_id_that_another_task_sets_is_awaited(self) -> None:
        result = run_tasks(
            {"ops": [op("write", addr="p", value=5), op("read", addr="p")]},
            {"ops": [op("mmap", length=P, id="p")]},
        )
        assert values(result, 0) == [5]

    def test_ids_are_bound_anew_in_each_round(self) -> None:
        body = [
            op("mmap", length=P, prot="r", id="p"),
            op("mmap", length=P, id="q"),
            op("write", addr="q", value=1),
        ]
        result = run_tasks({"ops": [op("repeat", count=3, ops=body)]})
        assert result.counters["faults"] == 3
        assert result.stuck == ()


class TestBarriers:
    def test_each_round_is_a_new_one(self) -> None:
        def ops(name: str, page: int) -> list[dict[str, Any]]:
            return [op("repeat", count=3, ops=[op("barrier", name=name), write(1, page)])]

        result = run_tasks({"ops": [MAP, *ops("b", 0)]}, {"ops": ops("b", 1)})
        assert result.stuck == ()

    def test_who_has_ended_is_not_waited_for(self) -> None:
        result = run_tasks(
            {"ops": [op("barrier", name="b"), op("barrier", name="b")]},
            {"ops": [op("barrier", name="b"), op("exit"), op("barrier", name="b")]},
        )
        assert result.stuck == ()
        assert len(result.task_ops(1)) == 2

    def test_who_has_not_started_is_waited_for(self) -> None:
        result = run_tasks(
            {"ops": [op("barrier", name="b"), op("fork", child="c")]},
            {"name": "c", "start": "fork", "ops": [op("barrier", name="b")]},
        )
        assert result.stuck == ("t0",)

    def test_what_never_comes_leaves_its_waiters_named(self) -> None:
        result = run_tasks(
            {"ops": [op("await", name="x"), op("post", name="x")]},
            {"ops": [op("barrier", name="b")]},
            {"ops": [op("await", name="x"), op("barrier", name="b")]},
        )
        assert result.stuck == ("t0", "t1", "t2")
        assert result.maps == {"t0": []}

    def test_await_needs_every_post(self) -> None:
        result = run_tasks(
            {"ops": [MAP, op("await", name="x"), read()]},
            {"ops": [op("post", name="x"), op("post", name="x"), write(1)]},
            {"ops": [write(2), op("post", name="x")]},
        )
        assert values(result, 0) == [2]


class TestProcesses:
    def test_fork_copies_and_both_sides_go_their_ways(self) -> None:
        result = run_tasks(
            {
                "ops": [
                    MAP,
                    write(1),
                    op("fork", child="c"),
                    write(2),
                    op("wait", child="c"),
                    read(),
                ]
            },
            {"name": "c", "start": "fork", "ops": [read(), write(3), read()]},
        )
        assert values(result, 0) == [2]
        assert values(result, "c") == [1, 3]
        assert list(result.maps) == ["t0", "c"]

    def test_the_last_owner_writes_without_a_copy(self) -> None:
        # After the child has ended its page is nobody else's: a fault, but the page stays.
        result = run_tasks(
            {"ops": [MAP, write(1), op("fork", child="c", wait=True), write(2), write(3)]},
            {"name": "c", "start": "fork", "ops": [read()]},
        )
        faults = [int(row["counters"][0]) for row in result.task_ops(0)]
        assert faults == [0, 1, 0, 1, 0]

    def test_dontfork_is_not_there_and_wipeonfork_is_empty(self) -> None:
        result = run_tasks(
            {
                "ops": [
                    MAP,
                    write(1),
                    op("madvise", addr=A, length=4 * P, advice="dontfork"),
                    op("fork", child="c", wait=True),
                ]
            },
            {"name": "c", "start": "fork", "ops": [read(4), read(0)]},
        )
        fine, gone = [result.outcome(row) for row in result.task_ops("c")]
        assert fine["value"] == 0
        assert gone["signal"] == "SIGSEGV"

    def test_a_vfork_child_shares_and_its_parent_waits(self) -> None:
        result = run_tasks(
            {"ops": [MAP, write(1), op("vfork", child="c"), read(), write(3, 1)]},
            {
                "name": "c",
                "start": "vfork",
                "ops": [write(2), write(2, 2), op("await", name="x"), op("exec"), read()],
            },
            {"ops": [op("post", name="x")]},
        )
        assert values(result, 0) == [2]
        child = [result.outcome(row) for row in result.task_ops("c")]
        assert child[1]["handled"] == "spf"
        assert child[-1]["signal"] == "SIGSEGV"
        assert result.maps["c"] == []

    def test_vfork_may_wait_for_the_end(self) -> None:
        result = run_tasks(
            {"ops": [MAP, op("vfork", child="c", wait=True), op("note", text="later")]},
            {"name": "c", "start": "vfork", "ops": [op("exec"), op("barrier", name="b")]},
            {"ops": [op("barrier", name="b")]},
        )
        assert result.stuck == ()

    def test_exec_ends_the_other_tasks_and_empties_the_process(self) -> None:
        result = run_tasks(
            {"ops": [MAP, op("clone", child="x"), END]},
            {"ops": [write(1), op("exec", brk_start=A), op("brk", delta=5), read(), END]},
            {"name": "x", "start": "clone", "ops": [write(2)]},
        )
        assert result.stuck == ()
        assert len(result.task_ops(0)) == 2
        assert len(result.task_ops("x")) == 0
        ends = [result.outcome(row) for row in result.task_ops(1)]
        assert ends[2]["ret"] == A + 5
        assert ends[3]["value"] == 0
        assert ends[3]["counters"]["faults"] == 1
        assert list(result.maps) == ["t0"]

    def test_clone_makes_a_thread(self) -> None:
        result = run_tasks(
            {"ops": [MAP, write(1), write(1, 1), op("clone", child="x"), write(1, 2)]},
            {"name": "x", "start": "clone", "ops": [read()]},
        )
        handled = [result.outcome(row)["handled"] for row in result.task_ops(0)]
        assert handled == ["none", "classic", "classic", "none", "spf"]
        assert values(result, "x") == [1]
        assert list(result.maps) == ["t0"]


class TestTouch:
    def test_orders(self) -> None:
        assert list(touch_order(0, 4, 0)) == [0, 1, 2, 3]
        assert list(touch_order(1, 4, 0)) == [3, 2, 1, 0]
        assert sorted(touch_order(2, 100, 7)) == list(range(100))
        assert list(touch_order(2, 100, 7)) != list(touch_order(2, 100, 8))

    def test_splitmix64_is_the_published_one(self) -> None:
        draws = splitmix64(1234567)
        assert [next(draws) for _ in range(3)] == [
            6457827717110365317,
            3203168211198807973,
            9817491932198370423,
        ]

    def test_accesses_every_stride(self) -> None:
        touch = op("touch", addr=A + 8, length=3 * P + 1, stride=2 * P, value=6)
        result = run_tasks({"ops": [MAP, touch, read(0), read(2), read(1)]})
        assert values(result, 0) == [6, 6, 0]

    def test_reads_give_values(self) -> None:
        result = run_tasks({"ops": [MAP, write(3), op("touch", addr=A, length=P, access="read")]})
        assert values(result, 0) == [3]


class TestLimits:
    def test_for_ns_needs_max_count(self) -> None:
        builder = ProgramBuilder(source="x.json")
        t = builder.task()
        with t.repeat(for_ns=5):
            t.compute(1)
        with pytest.raises(EngineError, match=r"x.json: tasks\[0\].ops\[0\]: key 'for_ns'"):
            run(builder.build(), arch=X86)

    def test_for_ns_runs_max_count_rounds(self) -> None:
        builder = ProgramBuilder()
        t = builder.task()
        with t.repeat(for_ns=5, max_count=3):
            t.mmap(P)
        with t.repeat(for_ns=5, max_count=2):
            t.exit()
        result = run(builder.build(), arch=X86)
        assert result.rounds == (3,)
        assert len(result.ops) == 4

    def test_the_page_size_is_the_archs(self) -> None:
        program = ProgramBuilder()
        program.task().exit()
        with pytest.raises(ProgramError, match="'page_size': value 4096"):
            run(program.build(), arch=POWERPC)

    def test_the_handler_is_one_of_two(self) -> None:
        program = ProgramBuilder()
        program.task().exit()
        with pytest.raises(EngineError, match="allowed: spf, classic"):
            run(program.build(), arch=X86, handler="fast")

    def test_memory_holds_at_least_a_page_table(self) -> None:
        text = '{"format": "spfemu-program/1", "page_size": 65536, "system": {"memory": 65536}, '
        text += '"tasks": [{"ops": [{"op": "exit"}]}]}'
        with pytest.raises(ProgramError, match="'memory': value 65536"):
            run(Program.loads(text), arch=POWERPC)


def test_a_note_that_states_its_maps_keeps_them() -> None:
    note = op("note", text="here", expect={"maps_lines": ["0x100000000000..0x100000010000 rw-p 0"]})
    result = run_tasks({"ops": [MAP, note, op("munmap", addr=A, length=16 * P)]})
    assert result.note_maps == {(0, 1, 0): [f"{A:08x}-{A + 16 * P:08x} rw-p 00000000"]}


def test_maps_lines_look_like_proc() -> None:
    builder = ProgramBuilder()
    builder.file("f", 1 << 20)
    t = builder.task()
    t.mmap(P, addr=0x10000, prot="x", flags=FIXED)
    t.mmap(P, addr=A, prot="r", flags=("shared", "fixed"), file="f", offset=3 * P)
    t.mmap(P, addr=A + 4 * P, prot="none", flags=("shared", "anonymous", "fixed"))
    assert run(builder.build(), arch=X86).maps["t0"] == [
        "00010000-00011000 --xp 00000000",
        "100000000000-100000001000 r--s 00003000",
        "100000004000-100000005000 ---s 00000000",
    ]


def test_newer_rules_are_named() -> None:
    builder = ProgramBuilder()
    builder.task().mmap(P)
    rules = (
        "wiped, stack, grown, heap, uncharged, touched, alone, lowest, writable, several, "
        "nothing, onfault, guard"
    )
    with pytest.raises(EngineError, match=rf"newer: 'none' \(allowed: {rules}\)"):
        run(builder.build(), arch=X86, newer=("none",))
