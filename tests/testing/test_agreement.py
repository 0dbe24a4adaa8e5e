"""The comparison: every kind of difference is one, and only what is asked for is compared."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from spfemu import Program, ProgramError
from spfemu.reference import run
from spfemu.results import Result
from spfemu.testing import assert_same, differences
from tests.reference.arches import X86

PROGRAM = Program.loads(
    """{"format": "spfemu-program/1", "tasks": [
    {"ops": [{"op": "mmap", "length": "64K", "addr": "0x100000000", "flags":
        ["private", "anonymous", "fixed"]},
      {"op": "write", "addr": "0x100000000", "value": 7},
      {"op": "mprotect", "addr": "0x100000000", "length": "4K", "prot": "r"},
      {"op": "note", "text": "maps", "expect": {"maps_lines": []}},
      {"op": "read", "addr": "0x100000000"}, {"op": "write", "addr": "0x100000000", "value": 8}]},
    {"ops": [{"op": "read", "addr": "0x200000000"}]}]}"""
)


def result() -> Result:
    return run(PROGRAM, arch=X86)


def changed(row: int, **fields: Any) -> Result:
    """A result with one outcome changed."""
    ops = result().ops.copy()
    for name, value in fields.items():
        ops[name][row] = value
    return replace(result(), ops=ops)


def whats(other: Result, what: str = "all") -> list[str]:
    return [found.what for found in differences(result(), other, what=what)]


def test_equal_results_do_not_differ() -> None:
    assert differences(result(), result()) == []
    assert differences(result(), result(), what="own") == []
    assert_same(result(), result())


@pytest.mark.parametrize(
    ("row", "fields", "everything", "own"),
    [
        (0, {"ret": 4096}, ["ret"], ["ret"]),
        (2, {"errno": 12, "ret": -1}, ["ret", "errno"], ["ret", "errno"]),
        (4, {"value": 8}, ["value"], ["value"]),
        (5, {"signal": 7}, ["signal", "si_code"], ["signal"]),
        (5, {"si_code": 2}, ["si_code"], []),
        (1, {"handled": 1}, ["handled"], []),
        (1, {"counters": 1}, ["counters"], []),
        (5, {"livelock": 1}, ["livelock"], []),
        (6, {"signal": 0, "has": 3}, ["ret", "signal", "si_code", "value"], None),
    ],
)
def test_an_outcome_differs(
    row: int, fields: dict[str, Any], everything: list[str], own: list[str] | None
) -> None:
    other = changed(row, **fields)
    assert whats(other) == everything
    expected = ["ret", "value", "signal"] if own is None else own
    assert whats(other, "own") == expected


@pytest.mark.parametrize(
    ("fields", "what", "own"),
    [
        ({"stuck": ("t1",)}, "stuck", ["stuck"]),
        ({"rounds": (1, 0)}, "rounds", []),
        ({"note_maps": {}}, "note_maps", []),
        ({"maps": {"t0": []}}, "maps t0", ["maps t0"]),
        ({"counters": {}}, "counters faults", []),
    ],
)
def test_the_run_as_a_whole_differs(fields: dict[str, Any], what: str, own: list[str]) -> None:
    other = replace(result(), **fields)
    assert what in whats(other)
    assert whats(other, "own") == own


def test_own_does_not_see_how_the_mappings_are_cut() -> None:
    cut = ["100000000-100001000 r--p 00000000", "100001000-100008000 rw-p 00000000"]
    other = replace(result(), maps={"t0": [*cut, "100008000-100010000 rw-p 00000000"]})
    assert whats(other) == ["maps t0"]
    assert whats(other, "own") == []
    holed = replace(result(), maps={"t0": [*cut, "100009000-100010000 rw-p 00000000"]})
    assert whats(holed, "own") == ["maps t0"]


def test_a_task_that_went_another_way_differs() -> None:
    shorter = replace(result(), ops=result().ops[:-1])
    assert "next" in whats(shorter)
    assert whats(shorter, "own") == ["order"]


def test_the_message_has_the_differences_and_the_program() -> None:
    with pytest.raises(AssertionError) as caught:
        assert_same(result(), changed(4, value=8))
    first, second, third, *program = str(caught.value).splitlines()
    assert first == "reference (spf, x86) and reference (spf, x86) differ in 1 places:"
    assert second == "  tasks[0].ops[4] read: value: reference 7, reference 8"
    assert third == "program:"
    assert Program.loads("\n".join(program)) == PROGRAM


def test_unknown_comparisons_and_other_programs_are_refused() -> None:
    with pytest.raises(ProgramError, match=r'^differences: what: value "most" \(allowed: all, own'):
        differences(result(), result(), what="most")
    text = """{"format": "spfemu-program/1", "tasks": [{"ops": [{"op": "exit"}]}]}"""
    other = run(Program.loads(text), arch=X86)
    for what in ("all", "own"):
        with pytest.raises(ProgramError, match="different programs"):
            differences(result(), other, what=what)
