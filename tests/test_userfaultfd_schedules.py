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
