"""What a program asks for beyond what there is ends in one line, whatever it is: never in a host
out of memory, and never in a wrong number."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

import spfemu
from spfemu import EngineError, Program, ProgramError

FOREVER = (1 << 64) - 2
FIXED = ["private", "anonymous", "fixed"]


def program(*ops: dict[str, Any], **more: Any) -> Program:
    text = {"format": "spfemu-program/1", "tasks": [{"ops": list(ops)}], **more}
    return Program.loads(json.dumps(text))


def repeat(count: int, *ops: dict[str, Any]) -> dict[str, Any]:
    return {"op": "repeat", "count": count, "ops": list(ops)}


@pytest.mark.parametrize("engine", ["native", "vtime", "reference"])
@pytest.mark.parametrize(
    "ops",
    [
        [repeat(FOREVER, {"op": "compute", "ns": 1})],
        [
            {"op": "mmap", "length": "1T", "id": "p"},
            {"op": "touch", "addr": "p", "length": "1T"},
        ],
    ],
)
def test_outcomes_without_end_are_refused(engine: str, ops: list[dict[str, Any]]) -> None:
    message = r"^<program>: .*more than 3000 outcomes to keep \(allowed: 3000, by max_outcomes"
    with pytest.raises(EngineError, match=message):
        spfemu.run(program(*ops), engine=engine, max_outcomes=3000)


@pytest.mark.parametrize("engine", ["native", "vtime", "reference"])
@pytest.mark.parametrize("order", ["forward", "random"])
def test_a_touch_with_too_many_outcomes_is_refused_at_once(engine: str, order: str) -> None:
    # The order alone would take more memory than many a host has.
    touch = {"op": "touch", "addr": 0, "length": (1 << 32) - 1, "stride": 1, "order": order}
    message = (
        r"^<program>: tasks\[0\].ops\[1\].ops\[0\]: operation 'touch': "
        r"more than 10000000 outcomes to keep \(allowed: 10000000, by max_outcomes"
    )
    with pytest.raises(EngineError, match=message):
        spfemu.run(program({"op": "note", "text": "x"}, repeat(1, touch)), engine=engine)


@pytest.mark.parametrize("engine", ["native", "vtime", "reference"])
def test_as_many_outcomes_as_are_allowed(engine: str) -> None:
    result = spfemu.run(program(repeat(3, {"op": "exit"})), engine=engine, max_outcomes=1)
    assert len(result.ops) == 1


def test_a_run_that_keeps_nothing_may_have_any_number_of_outcomes() -> None:
    ops = [repeat(5000, {"op": "compute", "ns": 1})]
    result = spfemu.run(program(*ops), engine="vtime", record=False, max_outcomes=0)
    assert len(result.ops) == 0
    assert result.elapsed_ns >= 5000


def test_a_limit_is_a_number() -> None:
    with pytest.raises(EngineError, match=r"^max_outcomes: value -1 \(allowed: 0 to 2\^64-1\)$"):
        spfemu.run(program({"op": "exit"}), max_outcomes=-1)


@pytest.mark.parametrize("op", ["sleep", "compute"])
@pytest.mark.parametrize(("count", "ns"), [(1, (1 << 64) - 1), (5, 1 << 45)])
def test_virtual_time_has_an_end_and_does_not_wrap(op: str, count: int, ns: int) -> None:
    late = program(repeat(count, {"op": op, "ns": ns}))
    with pytest.raises(EngineError, match=r"^<program>: virtual time: beyond 2\^46 ns"):
        spfemu.run(late, engine="vtime")


def test_virtual_time_near_its_end() -> None:
    result = spfemu.run(program({"op": "sleep", "ns": 1 << 45}), engine="vtime")
    assert result.elapsed_ns >= 1 << 45


def test_out_of_frames_is_an_outcome() -> None:
    # 1 GiB of addresses, 1 MiB of memory.
    ops = [{"op": "mmap", "length": "1G", "id": "p"}, {"op": "touch", "addr": "p", "length": "1G"}]
    for engine in ("native", "vtime"):
        result = spfemu.run(program(*ops, system={"memory": "1M"}), engine=engine)
        killed = result.ops["signal"] == 9
        assert 0 < (~killed).sum() <= 256
        assert killed.sum() > 260_000


@pytest.mark.parametrize("engine", ["native", "vtime", "explore"])
def test_frames_that_another_cpu_has_freed_are_found(engine: str) -> None:
    """Two children, one after the other, take all memory there is, or one frame too many."""
    child = {"start": "fork", "ops": [{"op": "touch", "addr": "p", "length": "64K"}]}
    parent = [
        {"op": "mmap", "length": "64K", "id": "p"},
        {"op": "fork", "child": "c1", "wait": True},
        {"op": "fork", "child": "c2", "wait": True},
    ]
    tasks = [{"name": "p", "ops": parent}, child | {"name": "c1"}, child | {"name": "c2"}]
    ended_well = set()
    for pages in range(20, 40):
        document = {
            "format": "spfemu-program/1",
            "system": {"memory": pages * 4096},
            "tasks": tasks,
        }
        text = json.dumps(document)
        want = spfemu.run(Program.loads(text), engine="reference").ops
        got = spfemu.run(Program.loads(text), engine=engine).ops
        for field in ("task", "errno", "signal"):
            assert got[field].tolist() == want[field].tolist(), f"{pages} pages"
        ended_well.add(not want["signal"].any())
    assert ended_well == {False, True}


@pytest.mark.parametrize("engine", ["native", "vtime", "explore"])
@pytest.mark.parametrize("arch", ["x86", "arm64", "powerpc-4k"])
def test_page_tables_that_wait_for_a_grace_period_are_free_before_memory_runs_out(
    engine: str, arch: str
) -> None:
    """Of another task that waits since, of this one, and of the operation that needs the memory."""
    first = [
        {"op": "mmap", "length": 4096, "addr": "0x104000000", "flags": FIXED, "id": "p"},
        {"op": "mmap", "length": 4096, "addr": "0x204000000", "flags": FIXED, "id": "q"},
        {"op": "write", "addr": "p", "value": 1},
        {"op": "barrier", "name": "written"},
        {"op": "munmap", "addr": "q", "length": 4096},
        {"op": "barrier", "name": "unmapped"},
        {"op": "mmap", "length": "1M", "addr": "0x104000000", "flags": [*FIXED, "populate"]},
        {"op": "barrier", "name": "end"},
    ]
    second = [
        {"op": "mmap", "length": 4096, "addr": "0x304000000", "flags": FIXED, "id": "r"},
        {"op": "write", "addr": "r", "value": 1},
        {"op": "barrier", "name": "written"},
        {"op": "munmap", "addr": "r", "length": 4096},
        {"op": "barrier", "name": "unmapped"},
        {"op": "barrier", "name": "end"},
    ]
    system = {"memory": 100 * 4096}
    text = json.dumps(
        {
            "format": "spfemu-program/1",
            "system": system,
            "tasks": [{"name": "t", "ops": first}, {"name": "u", "ops": second}],
        }
    )
    want, got = (
        spfemu.run(Program.loads(text), engine=one, arch=arch).counters["pgfault"]
        for one in ("reference", engine)
    )
    assert got == want > 80


@pytest.mark.parametrize("arch", ["powerpc", "arm64-64k"])
@pytest.mark.parametrize("engine", ["reference", "native", "vtime", "explore"])
def test_memory_in_which_nothing_starts_is_refused_in_the_same_words(
    engine: str, arch: str
) -> None:
    tiny = program({"op": "exit"}, page_size=65536, system={"memory": 65536})
    with pytest.raises(ProgramError) as refusal:
        spfemu.run(tiny, engine=engine, arch=arch)
    assert str(refusal.value) == (
        f"<program>: key 'memory': value 65536 (allowed on arch {arch}: room for a page table and "
        "the zero page at least)"
    )


def test_explore_cuts_a_schedule_that_makes_no_access() -> None:
    found = spfemu.explore(program(repeat(FOREVER, {"op": "note", "text": "again"})))
    assert found["too_long"] == found["schedules"] > 0
    assert not found["complete"]


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ({"engine": "native", "machine": "x86-48"}, "machine: engine native (allowed: vtime)"),
        ({"engine": "reference", "trace": True}, "trace: engine reference (allowed: native, vtime"),
        ({"engine": "native", "settings": {"tick": 1}}, 'setting "tick" (allowed: none)'),
        (
            {"engine": "vtime", "settings": {"tick": 1}},
            'setting "tick" (allowed: tick_slack_ns, spreading, ',
        ),
        ({"engine": "vtime", "cpus": 1 << 40}, "cpus: value 1099511627776 (allowed: 1 to 2^32-1)"),
        ({"pace": 3}, "pace: value 3 (allowed: True, False)"),
    ],
)
def test_what_an_engine_does_not_take_is_refused(how: dict[str, Any], message: str) -> None:
    with pytest.raises(EngineError, match=f"^{re.escape(message)}"):
        spfemu.run(program({"op": "exit"}), **how)
