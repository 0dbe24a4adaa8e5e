"""What `spfemu.testing.against_host` says of a difference, and of what ends a comparison."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

import spfemu
from spfemu import Program, Result, oracle
from spfemu.testing import against_host, hosting, with_maps
from tests.oracle.play import BASE, PAGE, mmap, op, program

DONTUNMAP = op(
    "mremap", old_length=PAGE, new_length=PAGE, flags=["maymove", "dontunmap"], id="q"
)  # fmt: skip
ONE: Any = {"engines": ("reference",), "handlers": ("classic",)}


def test_a_difference_is_an_error_with_the_program(monkeypatch: pytest.MonkeyPatch) -> None:
    def run(given: Program, *, engine: str, **how: Any) -> Result:
        result = spfemu.run(given, engine=engine, **how)
        if engine == "native":
            ops = result.ops.copy()
            ops["value"][2] = 8
            return replace(result, ops=ops)
        return result

    given = program([mmap(), op("write", value=7), op("read")])
    assert [c.differences for c in against_host(given)] == [[]] * 4
    monkeypatch.setattr(hosting, "run", run)
    with pytest.raises(AssertionError) as found:
        against_host(given)
    lines = str(found.value).splitlines()
    assert lines[:3] == [
        "native (spf) and the host differ in 1 places:",
        "  tasks[0].ops[2] read round 0 value: host 7, native (spf) 8",
        "program:",
    ]
    assert Program.loads("\n".join(lines[3:])) == given


def test_what_ends_a_comparison_is_taken_out() -> None:
    if oracle.host().version < (5, 7):
        pytest.skip("the host has nothing to end it with")
    loop = {"op": "repeat", "count": 2, "ops": [mmap(4), DONTUNMAP, op("write", value=1)]}
    found = against_host(program([mmap(), DONTUNMAP, loop, op("read", "q+0x1000")]), **ONE)
    assert [c.cut for c in found] == ["tasks[0].ops[1]", "tasks[0].ops[2].ops[1]", ""]


def test_maps_are_looked_at_after_each_change() -> None:
    ops = [mmap(4), op("read"), {"op": "repeat", "count": 2, "ops": [op("munmap", length=PAGE)]}]
    looked = with_maps(program(ops))
    assert [o["op"] for o in looked.to_dict()["tasks"][0]["ops"]] == [
        "mmap", "note", "read", "repeat",
    ]  # fmt: skip
    maps = spfemu.run(looked, engine="reference").note_maps
    assert len(maps) == 3
    assert maps[0, 1, 0] == [f"{BASE:x}-{BASE + 4 * PAGE:x} rw-p 00000000"]
    assert [c.differences for c in against_host(looked, **ONE)] == [[]]
