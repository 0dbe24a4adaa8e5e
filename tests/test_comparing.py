"""Comparing results: with expectations, and with the result of another engine."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from spfemu import reference
from spfemu.comparing import Difference, check, compare
from spfemu.errors import ProgramError
from spfemu.program import Program
from spfemu.results import Result
from tests.reference.arches import ARM64, X86

MMAP = {"op": "mmap", "length": "16K", "id": "p", "addr": "0x10000000"}
SPF_WRITE = {"counters": {"faults": 1, "spf": 1}, "handled": "spf"}


def result_of(*ops: dict[str, Any], **top: Any) -> Result:
    tasks = [{"ops": list(ops)}, {"name": "other", "ops": [{"op": "compute", "ns": 1}]}]
    program = Program.from_dict({"format": "spfemu-program/1", **top, "tasks": tasks})
    return reference.run(program, arch=X86)


def keys(differences: list[Difference]) -> list[tuple[str, int, str, Any, Any]]:
    return [(d.place, d.round, d.what, d.expected, d.actual) for d in differences]


class TestCheck:
    def test_what_comes_out_as_expected(self) -> None:
        result = result_of(
            {**MMAP, "expect": {"ret": "0x10000000", "errno": None}},
            {"op": "write", "addr": "p", "value": 5},
            {"op": "read", "addr": "p", "expect": {"value": 5, "handled": "none", "signal": None}},
            {"op": "read", "addr": 0, "expect": {"signal": "SIGSEGV", "si_code": "SEGV_MAPERR"}},
            {"op": "munmap", "addr": 1, "length": 1, "expect": {"ret": -1, "errno": "EINVAL"}},
        )
        assert check(result) == []

    def test_each_key_that_differs(self) -> None:
        result = result_of(
            {**MMAP, "expect": {"ret": 4096}},
            {"op": "read", "addr": "p", "expect": {"value": 7, "signal": "SIGBUS"}},
            {"op": "munmap", "addr": "p", "length": 0, "expect": {"errno": None, "livelock": True}},
        )
        assert keys(check(result)) == [
            ("tasks[0].ops[0]", 0, "ret", 4096, 0x10000000),
            ("tasks[0].ops[1]", 0, "value", 7, 0),
            ("tasks[0].ops[1]", 0, "signal", "SIGBUS", None),
            ("tasks[0].ops[2]", 0, "errno", None, "EINVAL"),
            ("tasks[0].ops[2]", 0, "livelock", True, False),
        ]

    def test_counters_of_a_touch_are_summed(self) -> None:
        touch = {"op": "touch", "addr": "p", "length": "16K"}
        assert check(result_of(MMAP, {**touch, "expect": {"counters": {"faults": 4}}})) == []
        differences = check(result_of(MMAP, {**touch, "expect": {"counters": {"faults": 3}}}))
        assert keys(differences) == [("tasks[0].ops[1]", 0, "counters faults", 3, 4)]

    def test_every_round_of_a_repeat(self) -> None:
        write = {"op": "write", "addr": "p", "value": 1, "expect": {"counters": {"faults": 1}}}
        result = result_of(MMAP, {"op": "repeat", "count": 3, "ops": [write]})
        assert keys(check(result)) == [
            ("tasks[0].ops[1].ops[0]", 1, "counters faults", 1, 0),
            ("tasks[0].ops[1].ops[0]", 2, "counters faults", 1, 0),
        ]

    def test_an_operation_that_did_not_run(self) -> None:
        result = result_of({"op": "exit"}, {"op": "read", "addr": 0, "expect": {"value": 0}})
        assert keys(check(result)) == [("tasks[0].ops[1]", 0, "outcome", "to run", "did not run")]

    def test_maps_at_a_note(self) -> None:
        note = {"op": "note", "text": "now"}
        lines = ["p..p+0x4000 rw-p 0"]
        assert check(result_of(MMAP, {**note, "expect": {"maps_lines": lines}})) == []
        wrong = check(result_of(MMAP, {**note, "expect": {"maps_lines": ["p..p+4K rw-p 0"]}}))
        assert keys(wrong)[0][3] == ["0x10000000..0x10001000 rw-p 0x0"]

    def test_other_settings_than_it_was_made_for(self) -> None:
        result = result_of({**MMAP, "expect": {"errno": None}})
        with pytest.raises(ProgramError, match="made for handler spf, arch x86; this run has hand"):
            check(replace(result, arch="arm64"))
        made_for = result_of({**MMAP, "expect": {"ret": 1}}, expect_for={"handler": "classic"})
        with pytest.raises(ProgramError, match="made for handler classic"):
            check(made_for)

    def test_a_run_without_outcomes(self) -> None:
        result = result_of({**MMAP, "expect": {"errno": None}})
        bare = replace(result, ops=result.ops[:0], settings={"record": False})
        with pytest.raises(ProgramError, match="without outcomes"):
            check(bare)


class TestCompare:
    def test_a_result_with_itself(self) -> None:
        result = result_of(MMAP, {"op": "write", "addr": "p", "value": 1})
        assert compare(result, result) == []

    def test_a_field_that_differs(self) -> None:
        result = result_of(MMAP, {"op": "write", "addr": "p", "value": 1})
        ops = result.ops.copy()
        ops["handled"][1] = 0
        assert keys(compare(result, replace(result, ops=ops))) == [
            ("tasks[0].ops[1]", 0, "handled", "classic", "none")
        ]

    def test_values_that_mean_nothing_are_not_compared(self) -> None:
        result = result_of(MMAP, {"op": "write", "addr": "p", "value": 1})
        ops = result.ops.copy()
        ops["value"][1] = 99
        assert compare(result, replace(result, ops=ops)) == []

    def test_outcomes_that_are_missing(self) -> None:
        result = result_of(MMAP, {"op": "write", "addr": "p", "value": 1})
        ops = np.delete(result.ops, 1)
        assert keys(compare(result, replace(result, ops=ops))) == [
            ("tasks[0]", 0, "next", "tasks[0].ops[1] round 0", "no more outcomes")
        ]
        assert keys(compare(replace(result, ops=ops), result)) == [
            ("tasks[0]", 0, "next", "no more outcomes", "tasks[0].ops[1] round 0")
        ]

    def test_maps_and_stuck_tasks(self) -> None:
        result = result_of(MMAP)
        other = replace(result, maps={}, stuck=("t0",))
        assert [(d.what, d.actual) for d in compare(result, other)] == [
            ("stuck", ["t0"]),
            ("maps t0", None),
        ]

    def test_other_programs(self) -> None:
        with pytest.raises(ProgramError, match="different programs"):
            compare(result_of(MMAP), result_of(MMAP, MMAP))


def test_results_as_json() -> None:
    result = reference.run(
        Program.from_dict(
            {"format": "spfemu-program/1", "tasks": [{"ops": [MMAP, {"op": "read", "addr": 0}]}]}
        ),
        handler="classic",
        arch=ARM64,
    )
    obj = result.to_json()
    assert (obj["format"], obj["engine"], obj["handler"]) == (
        "spfemu-result/1", "reference", "classic",
    )  # fmt: skip
    assert list(obj["counters"]) == list(result.counters)
    assert len(obj["counters"]) == 12
    assert obj["ops"][0]["ret"] == 0x10000000
    read = obj["ops"][1]
    assert (read["ret"], read["signal"], read["si_code"]) == (None, "SIGSEGV", "SEGV_MAPERR")
    assert read["counters"]["faults"] == 1
    assert obj["maps"] == {"t0": ["10000000-10004000 rw-p 00000000"]}
