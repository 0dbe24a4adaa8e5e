"""Truncation under every schedule: small programs, explored completely, all bugs cured.

One task makes a file shorter or longer while another is at its pages, or at the mappings through
which it finds them. Nothing may be lost, leaked, freed too early or left locked.
"""

from __future__ import annotations

from typing import Any, Final

import pytest

import spfemu
from spfemu import Program
from tests.schedules import FORK, GO, ON, Op, P, move, on, read, write

EMPTY: Final[Op] = {"op": "truncate", "file": "f", "length": 0}
SHORT: Final[Op] = {"op": "truncate", "file": "f", "length": P}
TAIL: Final[Op] = {"op": "truncate", "file": "f", "length": 1}
LONG: Final[Op] = {"op": "truncate", "file": "f", "length": 2 * P}
MOVE: Final = move(2)


def mapped(sharing: str) -> Op:
    return {"op": "mmap", "length": 2 * P, "prot": "rw", "flags": [sharing], "file": "f", "id": "p"}


SHARED: Final = mapped("shared")
PRIVATE: Final = mapped("private")


# The file's kind; what t0 does before and after "go", what t1 does after it, what a child does.
PROGRAMS: Final[dict[str, tuple[str, list[Op], list[Op], list[Op], list[Op]]]] = {
    "write_to_a_page": ("regular", [SHARED, write(1)], [EMPTY], [write(2), read()], []),
    "write_to_a_page_in_memory": ("shmem", [SHARED, write(1)], [EMPTY], [write(2), read()], []),
    "first_read": ("regular", [SHARED], [EMPTY], [read(1), read()], []),
    "first_read_in_memory": ("shmem", [SHARED], [EMPTY], [read(1)], []),
    "copy_at_the_first_write": ("regular", [PRIVATE], [EMPTY], [write(2, 1), read(1)], []),
    "copy_of_a_mapped_page": ("shmem", [PRIVATE, read(1)], [SHORT], [write(2, 1), read(1)], []),
    "shorter_and_longer": ("regular", [SHARED, write(1)], [EMPTY, LONG], [read(), write(2)], []),
    "holes_in_memory": ("shmem", [SHARED], [EMPTY, LONG], [write(2), read()], []),
    "the_rest_of_a_page": ("regular", [SHARED, write(0x101)], [TAIL], [write(0x202), read()], []),
    "the_rest_of_a_page_in_memory": ("shmem", [SHARED], [TAIL, LONG], [write(0x202), read()], []),
    "the_rest_of_a_page_copied": ("shmem", [PRIVATE, read()], [TAIL], [write(0x202), read()], []),
    "both_shorten": ("regular", [SHARED, write(1), write(1, 1)], [SHORT], [EMPTY, LONG], []),
    "munmap": ("regular", [PRIVATE, write(1), write(1, 1)], [EMPTY], [on("munmap", 2)], []),
    "munmap_of_a_half": ("regular", [SHARED, write(1)], [EMPTY], [on("munmap")], []),
    "split": ("regular", [SHARED, write(1)], [EMPTY], [on("mprotect", prot="r"), read()], []),
    "mmap": ("regular", [SHARED, write(1)], [EMPTY], [PRIVATE, {"op": "read", "addr": "p"}], []),
    "mremap": ("regular", [PRIVATE, write(1)], [EMPTY], [MOVE], []),
    "dontneed": ("regular", [PRIVATE, write(1)], [EMPTY], [on("madvise", advice="dontneed")], []),
    "willneed": ("regular", [SHARED], [EMPTY], [on("madvise", 2, advice="willneed"), read()], []),
    "swap_out": ("regular", [PRIVATE, write(1)], [EMPTY], [on("swap_out"), read()], []),
    "migrate": ("regular", [PRIVATE, write(1)], [EMPTY], [on("migrate", node=1), read()], []),
    "mlock": ("regular", [SHARED, write(1)], [EMPTY], [on("mlock", 2)], []),
    "fork": ("regular", [PRIVATE, write(1)], [EMPTY], [FORK], [read()]),
    "exit": ("regular", [PRIVATE, write(1), FORK], [EMPTY], [], [ON]),
}


@pytest.mark.parametrize("name", PROGRAMS)
def test_no_schedule_breaks_anything(name: str) -> None:
    kind, before, after, beside, child = PROGRAMS[name]
    tasks: list[dict[str, Any]] = [
        {"name": "t0", "ops": [*before, GO, *after]},
        {"name": "t1", "ops": [ON, *beside]},
    ]
    if child:
        tasks.append({"name": "c", "start": "fork", "ops": child})
    files = {"f": {"length": 2 * P, "kind": kind}}
    obj = {"format": "spfemu-program/1", "files": files, "tasks": tasks}
    found = spfemu.explore(Program.from_dict(obj), preemptions=1, variants_default="fixed")
    assert found["complete"]
    assert found["violations"] == []
