"""rebind under every schedule: small programs, explored completely, all bugs cured.

The policies of an address space change while others fault by them, or replace them: none is read
after its end, and every VMA is even again.
"""

from __future__ import annotations

from typing import Any, Final

import pytest

import spfemu
from spfemu import Program

Op = dict[str, Any]

BOTH: Final[Op] = {"addr": "p", "length": 8192}
PROGRAMS: Final[dict[str, list[Op]]] = {
    "first_write": [{"op": "write", "addr": "p+0x1000", "value": 2}],
    "mbind": [{"op": "mbind", **BOTH, "mode": "preferred", "nodes": [1]}],
    "munmap": [{"op": "munmap", **BOTH}],
    "rebind": [{"op": "rebind", "nodes": [0]}],
    "fork": [{"op": "fork", "child": "c"}],
}


@pytest.mark.parametrize("name", PROGRAMS)
def test_every_schedule_leaves_all_in_order(name: str) -> None:
    # t0:  gives both pages a policy  go  rebinds it
    # t1:                             go  what the program is named for
    tasks: list[Op] = [
        {
            "name": "t0",
            "ops": [
                {"op": "mmap", "length": 8192, "prot": "rw", "id": "p"},
                {"op": "mbind", **BOTH, "mode": "bind", "nodes": [0, 1]},
                {"op": "write", "addr": "p", "value": 1},
                {"op": "post", "name": "go"},
                {"op": "rebind", "nodes": [1]},
            ],
        },
        {"name": "t1", "ops": [{"op": "await", "name": "go"}, *PROGRAMS[name]]},
    ]
    if name == "fork":
        tasks.append({"name": "c", "start": "fork", "ops": [{"op": "read", "addr": "p"}]})
    program = Program.from_dict({"format": "spfemu-program/1", "tasks": tasks})
    found = spfemu.explore(program, preemptions=1, variants_default="fixed")
    assert found["complete"]
    assert found["violations"] == []
