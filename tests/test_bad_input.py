"""Bad calls and what runs out: Linux's errno, the same on every engine, and nothing is left over.

Each program is also run up to each of its operations, for engines look at all of an address space
when it ends (a leaked frame, a count that is wrong, a VMA left odd or a lock held is an error).
"""

from __future__ import annotations

from typing import Any, Final

import pytest

import spfemu
from spfemu import Program
from spfemu.profiles import arch_names
from spfemu.testing import against_host, differential, with_maps
from tests.host_kernel import REFUSAL

Op = dict[str, Any]
P: Final = 4096
BASE: Final = 0x1000_0000_0000
END: Final = (1 << 47) - P
"""The end of x86's user space."""
MAX: Final = (1 << 64) - P
"""A length that wraps wherever a range begins."""
FIXED: Final = ["private", "anonymous", "fixed"]
MOVE: Final = ["maymove", "fixed"]


def mmap(page: int, pages: int, **keys: Any) -> Op:
    place = {"addr": BASE + page * P, "length": pages * P}
    return {"op": "mmap", **place, "flags": FIXED, **keys}


def on(name: str, page: int, pages: int, **keys: Any) -> Op:
    return {"op": name, "addr": BASE + page * P, "length": pages * P, **keys}


def at(name: str, addr: int, length: int = P, **keys: Any) -> Op:
    return {"op": name, "addr": addr, "length": length, **keys}


def remap(page: int, old: int, new: int, to: int | None = None, **keys: Any) -> Op:
    target = {"flags": ["maymove"]} if to is None else {"flags": MOVE, "new_addr": BASE + to * P}
    lengths = {"old_length": old * P, "new_length": new * P}
    return {"op": "mremap", "addr": BASE + page * P, **lengths, **target, **keys}


def read(page: int) -> Op:
    return {"op": "read", "addr": BASE + page * P}


def write(page: int, value: int) -> Op:
    return {"op": "write", "addr": BASE + page * P, "value": value}


WRITTEN: Final = [mmap(0, 8), on("touch", 0, 8, value=5)]

# What comes first, then bad calls and what each of them is: an errno, a signal, a value, or "".
CASES: Final[dict[str, tuple[list[Op], list[tuple[Op, str | int]]]]] = {
    "mremap_over_itself": (
        WRITTEN,
        [
            (remap(0, 4, 4, to=0), "EINVAL"),
            (remap(0, 4, 4, to=3), "EINVAL"),
            (remap(2, 4, 4, to=0), "EINVAL"),
            (remap(0, 4, 2, to=3), "EINVAL"),
            (remap(4, 1, 4, to=2), "EINVAL"),
            (remap(0, 4, 4, to=4), ""),
            (read(3), "SIGSEGV"),
            (read(7), 5),
        ],
    ),
    "fixed_maps_over_each_other": (
        WRITTEN,
        [
            (mmap(6, 4), ""),
            (read(5), 5),
            (read(6), 0),
            (mmap(2, 2, prot="r"), ""),
            (write(2, 1), "SIGSEGV"),
            (mmap(0, 16, flags=["shared", "anonymous", "fixed"]), ""),
            (read(0), 0),
            (mmap(0, 16, flags=["private", "anonymous", "fixed_noreplace"]), "EEXIST"),
            (mmap(0, 16), ""),
            (read(5), 0),
        ],
    ),
    "addresses_beyond_user_space": (
        WRITTEN,
        [
            (at("mmap", END, flags=FIXED), "ENOMEM"),
            (at("mmap", END - P, 2 * P, flags=FIXED), "ENOMEM"),
            (at("mmap", END - P, P, flags=FIXED), ""),
            (at("mmap", 1 << 63, flags=FIXED), "ENOMEM"),
            (at("munmap", END), "EINVAL"),
            (at("munmap", END - P, 2 * P), "EINVAL"),
            (at("mprotect", END, prot="r"), "ENOMEM"),
            (at("mprotect", END - P, 2 * P, prot="r"), "ENOMEM"),
            (at("madvise", END, advice="dontneed"), "ENOMEM"),
            (at("mlock", END), "ENOMEM"),
            (remap(0, 4, 4, to=(END - BASE) // P - 2), "EINVAL"),
            (remap(0, 4, 4, to=((1 << 63) - BASE) // P), "EINVAL"),
            ({"op": "read", "addr": END}, "SIGSEGV"),
            ({"op": "write", "addr": 1 << 63, "value": 1}, "SIGSEGV"),
            ({"op": "write", "addr": 1 << 63, "value": 1, "mode": "kernel"}, "EFAULT"),
            (read(3), 5),
        ],
    ),
    "a_length_that_wraps": (
        WRITTEN,
        [
            (on("mmap", 0, 0, length=MAX, flags=FIXED), "ENOMEM"),
            (on("mmap", 0, 0, length=MAX + P - 1, flags=FIXED), "ENOMEM"),
            (on("munmap", 0, 0, length=MAX), "EINVAL"),
            (on("mprotect", 0, 0, length=MAX, prot="r"), "ENOMEM"),
            (on("madvise", 0, 0, length=MAX, advice="dontneed"), "EINVAL"),
            (on("madvise", 0, 0, length=MAX + P - 1, advice="dontneed"), "EINVAL"),
            (on("mlock", 0, 0, length=MAX), "EINVAL"),
            (on("munlock", 0, 0, length=MAX), "EINVAL"),
            (on("mbind", 0, 0, length=MAX, mode="local"), "EINVAL"),
            (remap(0, 4, 0, new_length=MAX), "ENOMEM"),
            (remap(0, 4, 0, to=32, new_length=MAX), "EINVAL"),
            ({"op": "brk", "delta": 1 << 62}, "ENOMEM"),
            (read(3), 5),
        ],
    ),
}  # fmt: skip
# What no host is asked for: it would have to be short of something.
LIMITS: Final[dict[str, tuple[list[Op], list[tuple[Op, str | int]]]]] = {
    "vm_max_map_count": (
        [*WRITTEN, {"op": "sysctl", "name": "vm.max_map_count", "value": 2}],
        [
            (mmap(16, 1), ""),
            (mmap(32, 1), ""),
            (mmap(48, 1), "ENOMEM"),
            (on("munmap", 3, 1), "ENOMEM"),
            (on("mprotect", 3, 1, prot="r"), "ENOMEM"),
            (on("madvise", 3, 1, advice="dontfork"), "ENOMEM"),
            (on("mlock", 3, 1), "ENOMEM"),
            (on("mbind", 3, 1, mode="local"), "ENOMEM"),
            (remap(3, 1, 1, to=64), "ENOMEM"),
            (remap(16, 1, 1, to=64), "ENOMEM"),
            ({"op": "brk", "delta": P}, "ENOMEM"),
            (on("munmap", 0, 1), ""),
            (read(3), 5),
            (write(4, 6), ""),
        ],
    ),
    "swap_is_full": (
        [*WRITTEN, on("swap_out", 0, 8)],
        [
            (read(7), 5),
            (write(0, 6), ""),
            (on("swap_out", 0, 8), ""),
            (on("madvise", 0, 8, advice="pageout"), ""),
            (read(0), 6),
            (on("munmap", 0, 4), ""),
            (on("swap_out", 0, 8), ""),
            (read(4), 5),
        ],
    ),
}  # fmt: skip
SYSTEMS: Final = {"swap_is_full": {"swap": {"size": 4 * P}}}


def program(ops: list[Op], *tasks: dict[str, Any], **keys: Any) -> Program:
    first = {"name": "t0", "ops": ops}
    obj = {"format": "spfemu-program/1", "tasks": [first, *tasks], **keys}
    return with_maps(Program.from_dict(obj))


def outcome(found: dict[str, Any]) -> str | int:
    """What came of an operation: an errno, a signal, a value, or ""."""
    wrong: str | None = found["signal"] or found["errno"]
    return wrong or (found["value"] if found["op"] == "read" else "")


@pytest.mark.parametrize("name", [*CASES, *LIMITS])
def test_is_refused_on_every_engine_and_leaves_nothing(name: str) -> None:
    before, calls = (CASES | LIMITS)[name]
    system = SYSTEMS.get(name, {})
    ops = [*before, *(call for call, _ in calls)]
    for number in range(len(before), len(ops) + 1):
        differential(program(ops[:number], system=system))
    result = spfemu.run(program(ops, system=system), engine="native")
    found = [one for one in result.outcomes() if one["op"] != "note"]
    assert [outcome(one) for one in found[-len(calls) :]] == [wanted for _, wanted in calls]


@pytest.mark.parametrize("name", arch_names())
def test_each_arch_has_its_own_end_of_user_space(name: str) -> None:
    arch = spfemu.arch(name)
    page, end = arch.page_size, arch.task_size
    calls: list[tuple[Op, str]] = [
        (at("mmap", end - page, page, flags=FIXED), ""),
        (at("mmap", end, page, flags=FIXED), "ENOMEM"),
        (at("mmap", end - page, 2 * page, flags=FIXED), "ENOMEM"),
        (at("munmap", end, page), "EINVAL"),
        (at("munmap", end - page, 2 * page), "EINVAL"),
        (at("mprotect", end - page, 2 * page, prot="r"), "ENOMEM"),
        ({"op": "write", "addr": end - page, "value": 1}, "SIGSEGV"),
        ({"op": "write", "addr": end, "value": 1}, "SIGSEGV"),
        (at("munmap", end - page, page), ""),
    ]
    ops = [call for call, _ in calls]
    for number in range(1, len(ops) + 1):
        differential(program(ops[:number], page_size=page), arches=(name,))
    result = spfemu.run(program(ops, page_size=page), engine="native", arch=name)
    found = [outcome(one) for one in result.outcomes() if one["op"] != "note"]
    assert found == [wanted for _, wanted in calls]


@pytest.mark.skipif(bool(REFUSAL), reason=REFUSAL)
@pytest.mark.parametrize("name", CASES)
def test_is_refused_by_the_host(name: str) -> None:
    before, calls = CASES[name]
    against_host(program([*before, *(call for call, _ in calls)]))


@pytest.mark.parametrize("engine", ["reference", "native", "vtime", "explore"])
@pytest.mark.parametrize("handler", ["spf", "classic"])
def test_out_of_frames_in_the_middle_of_fork(engine: str, handler: str) -> None:
    # Eight tables of PTEs far apart; the child gets some of them, however much memory there is
    # between its first table and its last one. Then it can be forked after all.
    places = [BASE + (number << 21) for number in range(8)]
    ops: list[Op] = [
        *(at("mmap", place, flags=FIXED) for place in places),
        *({"op": "write", "addr": place, "value": 5} for place in places),
        {"op": "fork", "child": "c", "wait": True},
        *({"op": "read", "addr": place} for place in places),
        {"op": "write", "addr": places[0], "value": 6},
    ]
    tasks = [{"name": "c", "start": "fork", "ops": [{"op": "read", "addr": places[7]}]}]
    frames = _frames_needed(program(ops, *tasks), engine, handler)
    for memory in range(frames - 8, frames):
        given = program(ops, *tasks, system={"memory": memory * P})
        result = spfemu.run(given, engine=engine, handler=handler)
        found = [result.outcome(record) for record in result.task_ops(0)]
        forked = next(one for one in found if one["op"] == "fork")
        assert forked["errno"] == "ENOMEM"
        assert len(result.task_ops(1)) == 0
        assert [one["value"] for one in found if one["op"] == "read"] == [5] * 8
        assert [one["signal"] for one in found] == [None] * len(found)


def _frames_needed(given: Program, engine: str, handler: str) -> int:
    """The least frames with which the program's fork succeeds."""
    for frames in range(24, 100):
        obj = given.to_dict() | {"system": {"memory": frames * P}}
        result = spfemu.run(Program.from_dict(obj), engine=engine, handler=handler)
        if len(result.task_ops(1)):
            return frames
    raise AssertionError("the child is never forked")
