"""Swap and migration under every schedule: small programs, explored completely, all bugs cured.

Two tasks, and sometimes a child, are at one or two pages while these go out and come back. Nothing
may be lost, leaked, freed too early or left locked.
"""

from __future__ import annotations

from typing import Any, Final

import pytest

import spfemu
from spfemu import Program
from tests.schedules import FORK, GO, ON, Op, P, move, on, read, write

MAP: Final[Op] = {"op": "mmap", "length": 2 * P, "prot": "rw", "id": "p"}


OUT: Final = on("swap_out")
BOTH_OUT: Final = on("swap_out", 2)
DROP: Final = on("madvise", advice="dontneed")
BOTH: Final = [MAP, write(1), write(2, 1)]
FREE: Final = on("madvise", advice="free")
PAGEOUT: Final = on("madvise", advice="pageout")
COLD: Final = on("madvise", advice="cold")
MOVE: Final = on("migrate", node=1)
MREMAP: Final = move(1)
ONE_SLOT: Final = {"size": 2 * P, "kind": "synchronous"}

# What t0 does before and after "go", what t1 does after it, what a child does, the device.
PROGRAMS: Final[dict[str, tuple[list[Op], list[Op], list[Op], list[Op], Op]]] = {
    "out_against_write": ([MAP, write(1)], [OUT, read()], [write(2), read()], [], {}),
    "out_against_munmap": ([MAP, write(1)], [OUT], [on("munmap")], [], {}),
    "munmap_against_out_by_who_has_not_been_there": (
        *([MAP, write(1)], [on("munmap", 2)], [OUT], [], {}),
    ),
    "munmap_against_moving_by_who_has_not_been_there": (
        *([MAP, write(1)], [on("munmap", 2)], [MOVE], [], {}),
    ),
    "out_against_dontneed": ([MAP, write(1)], [OUT, read()], [DROP, read()], [], {}),
    "out_against_out": ([MAP, write(1)], [OUT, read()], [OUT, read()], [], {}),
    "out_of_a_shared_page": ([MAP, write(1), FORK], [OUT, read()], [], [ON, write(3), read()], {}),
    "out_of_two_processes": ([MAP, write(1), FORK], [OUT, write(5)], [], [ON, OUT, read()], {}),
    "out_against_exit": ([MAP, write(1), FORK], [OUT, read()], [], [ON], {}),
    "in_against_munmap": ([*BOTH, BOTH_OUT], [on("munmap")], [read()], [], {}),
    "in_against_in": ([*BOTH, BOTH_OUT], [read()], [write(3), read()], [], {}),
    "in_against_in_past_the_cache": ([MAP, write(1), OUT], [read()], [write(2)], [], ONE_SLOT),
    "in_against_out": ([MAP, write(1), on("swap_out", keep_cache=True)], [OUT], [write(2)], [], {}),
    "in_against_a_drop_of_the_page": ([*BOTH, BOTH_OUT], [read()], [DROP], [], {}),
    "in_against_a_drop_of_its_neighbour": (
        *([*BOTH, BOTH_OUT], [read()], [on("munmap", page=1)], [], {}),
    ),
    "in_against_a_split": (
        *([*BOTH, BOTH_OUT], [on("mprotect", prot="r")], [read(1), write(3, 1)], [], {}),
    ),
    "giving_up_against_write": ([MAP, write(1)], [FREE, OUT, read()], [write(2), read()], [], {}),
    "giving_up_against_out": ([MAP, write(1)], [FREE, write(3)], [OUT, read()], [], {}),
    "giving_up_what_is_in_swap": (
        *([*BOTH, BOTH_OUT], [on("madvise", 2, advice="free")], [read(), read(1)], [], {}),
    ),
    "giving_up_against_munmap": (
        [*BOTH],
        [on("madvise", 2, advice="free")],
        [on("munmap")],
        [],
        {},
    ),
    "giving_up_what_a_child_has": (
        *([MAP, write(1), FORK], [FREE, OUT], [], [ON, write(3), read()], {}),
    ),
    "giving_up_past_the_cache": (
        *([MAP, write(1), OUT, read(), FORK], [FREE, OUT], [], [ON, OUT, read()], ONE_SLOT),
    ),
    "pageout_against_write": ([MAP, write(1)], [PAGEOUT, read()], [write(2), read()], [], {}),
    "pageout_against_pageout": ([MAP, write(1)], [PAGEOUT, read()], [PAGEOUT], [], {}),
    "pageout_of_a_shared_page": ([MAP, write(1), FORK], [PAGEOUT], [], [ON, write(3), read()], {}),
    "cold_against_write": ([MAP, write(1)], [COLD, OUT], [write(2), read()], [], {}),
    "willneed_against_read": (
        *([*BOTH, BOTH_OUT], [on("madvise", 2, advice="willneed")], [read(1), write(3)], [], {}),
    ),
    "willneed_against_munmap": (
        *([*BOTH, BOTH_OUT], [on("madvise", 2, advice="willneed")], [on("munmap")], [], {}),
    ),
    "moving_against_write": ([MAP, write(1)], [MOVE, read()], [write(2), read()], [], {}),
    "moving_against_munmap": ([MAP, write(1)], [MOVE], [on("munmap", 2)], [], {}),
    "moving_against_dontneed": ([MAP, write(1)], [MOVE, read()], [DROP, read()], [], {}),
    "moving_against_mprotect": (
        *([MAP, write(1)], [MOVE, read()], [on("mprotect", prot="r"), read()], [], {}),
    ),
    "moving_against_mremap": (
        *([MAP, write(1)], [MOVE], [MREMAP, {"op": "read", "addr": "q"}], [], {}),
    ),
    "moving_against_moving": ([*BOTH], [on("migrate", 2, node=1)], [MOVE, write(3)], [], {}),
    "moving_against_out": ([MAP, write(1)], [MOVE, read()], [OUT, read()], [], {}),
    "moving_against_giving_up": ([MAP, write(1)], [MOVE, OUT], [FREE, write(2), read()], [], {}),
    "moving_against_collapse": (
        [MAP, write(1)],
        [MOVE],
        [{"op": "collapse", "addr": "p"}, read()],
        [],
        {},
    ),
    "moving_what_is_in_the_cache": (
        *([MAP, write(1), OUT, read()], [MOVE, read()], [OUT, write(2), read()], [], {}),
    ),
    "moving_a_shared_page": ([MAP, write(1), FORK], [MOVE, write(5)], [], [ON, write(3)], {}),
    "moving_against_fork": ([MAP, write(1)], [FORK, write(5), read()], [MOVE], [read()], {}),
    "moving_against_exit": ([MAP, write(1), FORK], [MOVE, read()], [], [ON], {}),
    "a_device_with_one_slot": ([*BOTH], [BOTH_OUT, read()], [write(3, 1), read(1)], [], ONE_SLOT),
}


@pytest.mark.parametrize("name", PROGRAMS)
def test_no_schedule_breaks_anything(name: str) -> None:
    before, after, beside, child, swap = PROGRAMS[name]
    tasks: list[dict[str, Any]] = [
        {"name": "t0", "ops": [*before, GO, *after]},
        {"name": "t1", "ops": [ON, *beside]},
    ]
    if child:
        tasks.append({"name": "c", "start": "fork", "ops": child})
    obj = {"format": "spfemu-program/1", "system": {"swap": swap}, "tasks": tasks}
    found = spfemu.explore(Program.from_dict(obj), preemptions=1, variants_default="fixed")
    assert found["complete"]
    assert found["violations"] == []
