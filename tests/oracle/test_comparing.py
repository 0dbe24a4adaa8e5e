"""Differences from the host are found, wherever they are; relative addresses are none."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Final

import numpy as np
import pytest

import spfemu
from spfemu import ProgramError, Result, oracle
from spfemu.program.ops import EVENTS
from tests.oracle.play import BASE, PAGE, mmap, op, program

FAULTS: Final = EVENTS.index("faults")
TOUCHED: Final = [
    mmap(4),
    op("write", value=7),
    op("read", "p+0x8"),
    op("read", BASE + 64 * PAGE),
    {"op": "note", "text": "maps", "expect": {"maps_lines": []}},
    op("munmap", "p+1", length=PAGE),
]


def both(*ops: dict[str, Any], **keys: Any) -> tuple[Result, Result]:
    given = program(list(ops), **keys)
    emulated = oracle.for_host(given, oracle.host())
    return (
        spfemu.run(emulated, engine="reference", handler="classic"),
        spfemu.run(given, engine="kernel"),
    )


def keys(found: oracle.Comparison) -> list[tuple[Any, ...]]:
    return [(d.place, d.what, d.expected, d.actual) for d in found.differences]


def test_the_same() -> None:
    found = oracle.compare(*both(*TOUCHED))
    assert (found.differences, found.excused, found.cut) == ([], [], "")


@pytest.mark.parametrize(
    ("index", "field", "value", "difference"),
    [
        (0, "ret", BASE + PAGE, ("ret", BASE, BASE + PAGE)),
        (2, "value", 8, ("value", 7, 8)),
        (5, "errno", 12, ("errno", "EINVAL", "ENOMEM")),
        (3, "si_code", 2, ("si_code", "SEGV_MAPERR", "SEGV_ACCERR")),
        (3, "signal", 7, ("signal", "SIGSEGV", "SIGBUS")),
        (1, "livelock", 1, ("livelock", False, True)),
    ],
)
def test_each_field(index: int, field: str, value: int, difference: tuple[str, Any, Any]) -> None:
    emulated, host = both(*TOUCHED)
    ops = emulated.ops.copy()
    ops[field][index] = value
    found = keys(oracle.compare(replace(emulated, ops=ops), host))
    assert (f"tasks[0].ops[{index}]", *difference) in found


def test_faults_and_not_the_other_counters() -> None:
    emulated, host = both(*TOUCHED)
    ops = emulated.ops.copy()
    ops["counters"][1] += 1
    ops["handled"][1] = 1
    found = oracle.compare(replace(emulated, ops=ops), host)
    assert keys(found) == [("tasks[0].ops[1]", "faults", 1, 2)]


def test_outcomes_that_are_missing() -> None:
    emulated, host = both(*TOUCHED)
    found = oracle.compare(replace(emulated, ops=emulated.ops[:-1]), host)
    assert keys(found) == [("tasks[0]", "next", "tasks[0].ops[5] round 0", "no more outcomes")]


def test_maps_and_stuck_tasks() -> None:
    emulated, host = both(*TOUCHED)
    lines = ["100000000000-100000003000 rw-p 00000000"]
    other = replace(emulated, maps={"t0": lines}, note_maps={(0, 4, 0): lines}, stuck=("t0",))
    assert [d.what for d in oracle.compare(other, host).differences] == [
        "stuck", "maps_lines", "maps t0",
    ]  # fmt: skip


def test_how_memory_is_cut() -> None:
    emulated, host = both(*TOUCHED)
    lines = ["100000000000-100000002000 rw-p 00000000", "100000002000-100000004000 rw-p 00000000"]
    found = oracle.compare(replace(emulated, maps={"t0": lines}), host)
    # Somebody touched it, so newer kernels may have merged what 5.1 had not.
    excused = [entry.exception for entry in found.excused]
    assert excused or [d.what for d in found.differences] == ["maps t0"]
    swapped = oracle.compare(emulated, replace(host, maps={"t0": lines}))
    assert [d.what for d in swapped.differences] == ["maps t0"]


def test_swapped() -> None:
    emulated, host = both(*TOUCHED)
    ops = emulated.ops.copy()
    ops["value"][2] = 8
    found = oracle.compare(replace(emulated, ops=ops), host).swapped()
    assert keys(found) == [("tasks[0].ops[2]", "value", 8, 7)]


class TestAddressesThatTheKernelChose:
    """Of 2 MiB or more, newer kernels align: there nothing lies where 5.1 has it."""

    ALIGNED: Final[dict[str, Any]] = {"op": "mmap", "length": 1 << 21, "id": "a"}
    SMALL: Final[dict[str, Any]] = {"op": "mmap", "length": PAGE, "id": "b"}

    def test_are_relative(self) -> None:
        ops = [self.SMALL, self.ALIGNED, op("write", "a", value=3), op("read", "a+0x8"),
               op("mprotect", "a+0x1000", length=PAGE, prot="r"),
               mmap(1, addr="a+0x4000", id="c"), op("write", "c", value=1)]  # fmt: skip
        emulated, host = both(*ops)
        if oracle.host().version >= (6, 7):
            assert emulated.ops["ret"][1] != host.ops["ret"][1]
        found = oracle.compare(emulated, host)
        assert (found.differences, found.cut) == ([], "")

    def test_what_is_mapped_there_must_be_the_same(self) -> None:
        emulated, host = both(self.SMALL, self.ALIGNED)
        lines = [line.replace("rw-p", "r--p") for line in emulated.maps["t0"]]
        found = oracle.compare(replace(emulated, maps={"t0": lines}), host)
        assert [d.what for d in found.differences] == ["maps t0"]

    def test_naming_one_by_number_ends_the_comparison(self) -> None:
        emulated, host = both(self.SMALL, self.ALIGNED)
        if emulated.ops["ret"][1] == host.ops["ret"][1]:
            return
        ops = [self.SMALL, self.ALIGNED, op("write", int(emulated.ops["ret"][1]), value=1)]
        found = oracle.compare(*both(*ops, op("read", "b")))
        assert (found.differences, found.cut) == ([], "tasks[0].ops[2]")

    def test_moving_to_it(self) -> None:
        move = op("mremap", BASE, old_length=PAGE, new_length=2 * PAGE, flags=["maymove", "fixed"],
                  new_addr="a+0x1000", id="c")  # fmt: skip
        ops = [self.SMALL, self.ALIGNED, mmap(1), op("write", value=3), move, op("read", "c")]
        emulated, host = both(*ops)
        found = oracle.compare(emulated, host)
        assert (found.differences, found.cut) == ([], "")
        # Not to where the program wanted it, but next to it.
        changed = host.ops.copy()
        changed["ret"][4] += PAGE
        found = oracle.compare(emulated, replace(host, ops=changed))
        assert found.differences[0].what == "ret"

    def test_moving_to_a_number_there_ends_the_comparison(self) -> None:
        emulated, host = both(self.SMALL, self.ALIGNED)
        if emulated.ops["ret"][1] == host.ops["ret"][1]:
            return
        move = op("mremap", BASE, old_length=PAGE, new_length=PAGE, flags=["maymove", "fixed"],
                  new_addr=int(emulated.ops["ret"][1]))  # fmt: skip
        found = oracle.compare(*both(self.SMALL, self.ALIGNED, mmap(1), move, op("read", "b")))
        assert (found.differences, found.cut) == ([], "tasks[0].ops[3]")

    def test_another_address_space_has_its_own(self) -> None:
        ops = [self.SMALL, self.ALIGNED, {"op": "exec"}, mmap(1), op("write", value=1)]
        found = oracle.compare(*both(*ops))
        assert (found.differences, found.cut) == ([], "")


def test_an_address_space_knows_its_parents_past_only() -> None:
    # The parent protects after the fork: no excuse for a fault in the child.
    child = [
        {"op": "await", "name": "protected"},
        op("write", "p", value=3),
        {"op": "post", "name": "done"},
    ]
    first = [
        mmap(), op("write", value=1), {"op": "fork", "child": "c"},
        op("mprotect", length=PAGE, prot="r"), op("mprotect", length=PAGE, prot="rw"),
        {"op": "post", "name": "protected"}, {"op": "await", "name": "done"},
    ]  # fmt: skip
    given = spfemu.Program.from_dict(
        {
            "format": "spfemu-program/1",
            "tasks": [{"name": "t0", "ops": first}, {"name": "c", "start": "fork", "ops": child}],
        }
    )
    emulated = spfemu.run(
        oracle.for_host(given, oracle.host()), engine="reference", handler="classic"
    )
    host = spfemu.run(given, engine="kernel")
    assert oracle.compare(emulated, host).differences == []
    ops = host.ops.copy()
    place = int(np.flatnonzero((ops["task"] == 1) & (ops["op"] == 18))[0])
    ops["counters"][place, FAULTS] = 0
    assert [d.what for d in oracle.compare(emulated, replace(host, ops=ops)).differences] == [
        "faults"
    ]


def test_counting_only_what_was_settled() -> None:
    given = program([mmap(1, prot="r"), op("read"), op("write", value=1)])
    emulated = spfemu.run(
        oracle.for_host(given, oracle.host()), engine="reference", handler="classic"
    )
    host = spfemu.run(given, engine="kernel", settings={"counting": "stat"})
    assert host.ops["counters"][2, FAULTS] == 0
    assert oracle.compare(emulated, host).differences == []


def test_other_programs_and_runs_without_outcomes() -> None:
    emulated, host = both(*TOUCHED)
    with pytest.raises(ProgramError, match="different programs"):
        oracle.compare(both(mmap())[0], host)
    with pytest.raises(ProgramError, match="without outcomes"):
        oracle.compare(emulated, replace(host, ops=host.ops[:0]))


class TestExpectations:
    def expect(self, op_index: int, **expect: Any) -> list[tuple[Any, ...]]:
        ops = [dict(entry) for entry in TOUCHED]
        ops[op_index]["expect"] = expect
        result = spfemu.run(program(ops), engine="kernel")
        return [(d.what, d.expected, d.actual) for d in spfemu.check(result)]

    def test_what_is_compared(self) -> None:
        assert self.expect(0, ret=BASE, errno=None) == []
        assert self.expect(0, ret=BASE + 1) == [("ret", BASE + 1, BASE)]
        assert self.expect(2, value=8) == [("value", 8, 7)]
        assert self.expect(3, signal="SIGBUS") == [("signal", "SIGBUS", "SIGSEGV")]
        assert self.expect(5, errno="ENOMEM") == [("errno", "ENOMEM", "EINVAL")]
        counters = {"faults": 2, "spf": 2, "minor-faults": 7}
        assert self.expect(1, counters=counters) == [("counters faults", 2, 1)]

    def test_what_is_the_emulators_own(self) -> None:
        assert self.expect(3, si_code="SEGV_ACCERR", handled="spf") == []
        assert self.expect(3, livelock=True, signal=None, counters={"faults": 1000}) == []

    def test_of_a_touch_as_a_whole(self) -> None:
        touch = op("touch", length=3 * PAGE, expect={"counters": {"faults": 3}})
        assert spfemu.check(spfemu.run(program([mmap(), touch]), engine="kernel")) == []
        touch = {**touch, "expect": {"counters": {"faults": 2}}}
        found = spfemu.check(spfemu.run(program([mmap(), touch]), engine="kernel"))
        assert [(d.what, d.expected, d.actual) for d in found] == [("counters faults", 2, 3)]

    def test_what_newer_kernels_do_is_excused(self) -> None:
        toggled = [op("mprotect", length=2 * PAGE, prot=prot) for prot in ("r", "rw")]
        touch = op("touch", length=2 * PAGE)
        again = {**touch, "expect": {"counters": {"faults": 2}}}
        write = op("write", value=1, expect={"counters": {"faults": 1}})
        result = spfemu.run(
            program([mmap(), touch, *toggled, again, *toggled, write]), engine="kernel"
        )
        found = oracle.check(result)
        assert found.differences == []
        if oracle.host().version >= (6, 1):
            assert [entry.exception for entry in found.excused] == ["mprotect-spares-faults"] * 2
        # One fault too few is explained for two pages, three are not.
        again = {**touch, "expect": {"counters": {"faults": 3}}}
        result = spfemu.run(program([mmap(), touch, *toggled, again]), engine="kernel")
        assert [d.what for d in spfemu.check(result)] == ["counters faults"]

    def test_made_for_another_arch(self) -> None:
        given = program([mmap(expect={"errno": None})], expect_for={"arch": "arm64"})
        with pytest.raises(ProgramError, match="made for arch arm64; this run has arch x86"):
            spfemu.check(spfemu.run(given, engine="kernel"))
