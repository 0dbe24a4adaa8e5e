"""The OOM reaper under every schedule: small programs, explored completely.

It takes pages with mmap_sem held for reading, beside faults of both handlers and other readers.
"""

from __future__ import annotations

from typing import Any, Final

import pytest

import spfemu
from spfemu import Program

P: Final = 4096
Op = dict[str, Any]

MAP: Final[Op] = {"op": "mmap", "length": 2 * P, "id": "p"}
WRITE: Final[Op] = {"op": "write", "addr": "p", "value": 1}
SECOND: Final[Op] = {"op": "write", "addr": f"p+{P}", "value": 2}
READ: Final[Op] = {"op": "read", "addr": "p"}
REAP: Final[Op] = {"op": "oom_reap"}

BESIDE: Final[dict[str, list[Op]]] = {
    "first_write": [SECOND],
    "read_and_write": [READ, WRITE],
    "dontneed": [{"op": "madvise", "addr": "p", "length": P, "advice": "dontneed"}],
    "munmap": [{"op": "munmap", "addr": "p", "length": 2 * P}],
    "split": [{"op": "mprotect", "addr": "p", "length": P, "prot": "r"}],
    "fork": [{"op": "fork", "child": "c"}],
    "swap_out": [{"op": "swap_out", "addr": "p", "length": P}, READ],
    "migrate": [{"op": "migrate", "addr": "p", "length": P, "node": 1}, READ],
    "reaper": [REAP],
}


def explored(name: str, **settings: Any) -> dict[str, Any]:
    go: Op = {"op": "post", "name": "go"}
    tasks = [
        {"name": "t0", "ops": [MAP, WRITE, go, REAP]},
        {"name": "t1", "ops": [{"op": "await", "name": "go"}, *BESIDE[name]]},
    ]
    if name == "fork":
        tasks.append({"name": "c", "start": "fork", "ops": [READ]})
    program = Program.from_dict({"format": "spfemu-program/1", "tasks": tasks})
    found = spfemu.explore(program, preemptions=1, variants_default="fixed", **settings)
    assert found["complete"]
    return found


@pytest.mark.parametrize("name", BESIDE)
def test_no_schedule_breaks_anything(name: str) -> None:
    assert explored(name)["violations"] == []


def test_beside_another_reader_it_is_b1_again() -> None:
    found = spfemu.explore(
        Program.from_dict(
            {
                "format": "spfemu-program/1",
                "tasks": [
                    {"name": "t0", "ops": [MAP, WRITE, {"op": "post", "name": "go"}, REAP]},
                    {"name": "t1", "ops": [{"op": "await", "name": "go"}, *BESIDE["dontneed"]]},
                ],
            }
        ),
        preemptions=2,
        variants_default="fixed",
        variants={"B1": "v12"},
    )
    assert {(one["invariant"], one["entry"]) for one in found["violations"]} == {("sequence", "B1")}
