"""KSM under every schedule: small programs, explored completely, with all bugs and without.

One task merges two equal pages while another writes to one of them, or changes the mappings. No
store may be lost or seen by who has the other page, and nothing leaked, freed too early or left
locked.
"""

from __future__ import annotations

from typing import Any, Final

import pytest

import spfemu
from spfemu import Program
from tests.schedules import FORK, GO, ON, Op, P, move, on, read, write

SCAN: Final = on("ksm_scan", 2)
EQUAL: Final[list[Op]] = [
    {"op": "mmap", "length": 2 * P, "prot": "rw", "id": "p"},
    on("touch", 2, value=5),
    on("madvise", 2, advice="mergeable"),
]
MOVE: Final = move(2)
REAP: Final[Op] = {"op": "oom_reap"}

# What t0 does before and after "go", what t1 does after it, what a child does.
PROGRAMS: Final[dict[str, tuple[list[Op], list[Op], list[Op], list[Op]]]] = {
    "write": ([], [SCAN, read(), read(1)], [write(7), read(1)], []),
    "write_to_the_other": ([], [SCAN, read()], [write(7, 1), read(), read(1)], []),
    "write_to_what_is_merged": ([SCAN], [write(6), read(1)], [write(7, 1), read(1)], []),
    "write_to_what_is_merged_again": ([SCAN, write(6, 1)], [write(5, 1), SCAN], [write(7)], []),
    "munmap": ([], [SCAN], [on("munmap", 1)], []),
    "munmap_of_what_is_merged": ([SCAN], [on("munmap", 1)], [write(7, 1), read(1)], []),
    "mprotect": ([], [SCAN, write(6)], [on("mprotect", 2, prot="r"), read()], []),
    "dontneed": ([], [SCAN, read()], [on("madvise", 1, advice="dontneed"), read(1)], []),
    "mremap": ([], [SCAN], [MOVE], []),
    "unmergeable": ([SCAN], [write(6)], [on("madvise", 2, advice="unmergeable"), read(1)], []),
    "migrate": ([], [SCAN, read()], [on("migrate", 2, node=1), read(1)], []),
    "swap_out": ([], [SCAN, read()], [on("swap_out", 2), read(1)], []),
    "numa_scan": ([], [SCAN, write(6)], [on("numa_scan", 2), read()], []),
    "mlock": ([], [SCAN], [on("mlock", 2), on("munlock", 2)], []),
    "two_scans": ([], [SCAN, read()], [SCAN, write(7)], []),
    "fork": ([], [SCAN, write(6)], [FORK], [write(7), read(1)]),
    "reaper": ([], [SCAN, read()], [REAP, read(1)], []),
    "reaper_of_what_is_merged": ([SCAN], [REAP], [write(7), read(1)], []),
    "reaper_beside_unmerging": ([SCAN], [REAP], [on("madvise", 2, advice="unmergeable")], []),
    "reaper_of_what_a_child_has": ([SCAN, FORK], [REAP], [], [write(7), SCAN, read(1)]),
}  # fmt: skip


@pytest.mark.parametrize("variants", ["v12", "fixed"])
@pytest.mark.parametrize("name", PROGRAMS)
def test_no_schedule_breaks_anything(name: str, variants: str) -> None:
    before, first, second, child = PROGRAMS[name]
    tasks: list[dict[str, Any]] = [
        {"name": "t0", "ops": [*EQUAL, *before, GO, *first]},
        {"name": "t1", "ops": [ON, *second]},
    ]
    if child:
        tasks.append({"name": "c", "start": "fork", "ops": child})
    program = Program.from_dict({"format": "spfemu-program/1", "tasks": tasks})
    found = spfemu.explore(program, preemptions=1, variants_default=variants)
    assert found["complete"]
    broken = [found for found in found["violations"] if found["entry"] is None]
    assert (found["violations"] if variants == "fixed" else broken) == []
