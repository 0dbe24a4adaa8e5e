"""userfaultfd under every schedule: small programs, explored completely, all bugs cured.

A missing page is brought without `mmap_sem` from the fault's first round, while another task brings
it, too, makes the file shorter, or takes the mapping away.
"""

from __future__ import annotations

from typing import Any, Final

import pytest

import spfemu
from spfemu import Program

P: Final = 4096
HUGE: Final = 1 << 21
Op = dict[str, Any]

LENGTHS: Final = {"shared": 2 * P, "memory": 2 * P, "copy": 2 * P, "huge": HUGE, "huge_copy": HUGE}
FLAGS: Final[dict[str, Op]] = {
    "shared": {"flags": ["shared", "anonymous"]},
    "memory": {"flags": ["shared"], "file": "f"},
    "copy": {"flags": ["private"], "file": "f"},
    "huge": {"flags": ["shared", "anonymous", "hugetlb"]},
    "huge_copy": {"flags": ["private", "anonymous", "hugetlb"]},
}


def beside(name: str, length: int) -> Op:
    """What t1 does while t0 writes to a missing page."""
    return {
        "write": {"op": "write", "addr": "p", "value": 2},
        "munmap": {"op": "munmap", "addr": "p", "length": length},
        "unregister": {"op": "uffd_unregister", "addr": "p", "length": length},
        "truncate": {"op": "truncate", "file": "f", "length": 0},
    }[name]


@pytest.mark.parametrize(
    ("of", "name"),
    [
        *((of, name) for of in FLAGS for name in ("write", "munmap", "unregister")),
        *((of, "truncate") for of in ("memory", "copy")),
    ],
)
def test_no_schedule_breaks_anything(of: str, name: str) -> None:
    length = LENGTHS[of]
    tasks = [
        {
            "name": "t0",
            "ops": [
                {"op": "truncate", "file": "f", "length": 2 * P},
                {"op": "mmap", "length": length, "prot": "rw", **FLAGS[of], "id": "p"},
                {"op": "uffd_register", "addr": "p", "length": length},
                {"op": "post", "name": "go"},
                {"op": "write", "addr": "p", "value": 1},
            ],
        },
        {"name": "t1", "ops": [{"op": "await", "name": "go"}, beside(name, length)]},
    ]
    files = {"f": {"length": 0, "kind": "shmem"}}
    obj = {"format": "spfemu-program/1", "files": files, "tasks": tasks}
    found = spfemu.explore(Program.from_dict(obj), preemptions=1, variants_default="fixed")
    assert found["complete"]
    assert found["violations"] == []


@pytest.mark.parametrize("of", list(FLAGS))
def test_only_who_waits_has_a_major_fault(of: str) -> None:
    # Both find the page missing; who has then to wait for nobody, for the other one has brought it,
    # has a minor fault, though of two rounds.
    write = {"op": "write", "addr": "p", "value": 1}
    length = LENGTHS[of]
    first = [
        {"op": "truncate", "file": "f", "length": 2 * P},
        {"op": "mmap", "length": length, **FLAGS[of], "id": "p"},
        {"op": "uffd_register", "addr": "p", "length": length},
        {"op": "post", "name": "go"},
        write,
    ]
    second = [{"op": "await", "name": "go"}, write]
    files = {"f": {"length": 0, "kind": "shmem"}}
    tasks = [{"ops": first}, {"ops": second}]
    obj = {"format": "spfemu-program/1", "files": files, "tasks": tasks}
    program = Program.from_dict(obj)
    expected = {(1, 2), (0, 2), (0, 1), (0, 0)}
    found = set()
    for seed in range(5000):  # a few in a thousand show it
        result = spfemu.run(program, engine="explore", seed=seed)
        counts = [o["counters"] for o in result.outcomes() if o["op"] == "write"]
        found |= {(one.get("major-faults", 0), one.get("pgfault", 0)) for one in counts}
        if found >= expected:
            break
    assert found == expected
