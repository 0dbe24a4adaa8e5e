"""Swap: who brings a page back, what comes with it, who shares it, when the device is full."""

from __future__ import annotations

from typing import Any

import pytest

from spfemu.program import Program, System, TaskBuilder
from spfemu.program.model import Swap
from spfemu.reference import run
from spfemu.testing import differential
from tests.reference.arches import X86
from tests.reference.play import A, P, Played, play

MAJOR = {"faults": 1, "major-faults": 1, "pgfault": 2, "pgmajfault": 1}
ALONE = {**MAJOR, "pgfault": 1}
SPF = {"faults": 1, "minor-faults": 1, "spf": 1, "speculative_pgfault": 1}


def swapped(ops: Any, *, pages: int = 24, keep_cache: bool = False, **swap: Any) -> Played:
    """Writes pages, swaps them out, and then does `ops`; the outcomes are of `ops` alone."""

    def all_ops(t: TaskBuilder) -> None:
        t.mmap(pages * P, addr=A, flags=("private", "anonymous", "fixed"))
        t.touch(A, pages * P, value=7)
        t.swap_out(A, pages * P, keep_cache=keep_cache)
        ops(t)

    swap = {"size": 100 * P, **swap}
    played = play(all_ops, system=System(swap=Swap(**swap)), threads=swap.pop("threads", 2))
    return Played(played.result, played.outcomes[pages + 2 :], played.maps)


def cached(played: Played) -> list[int]:
    """The pages of a touch that were not read from the device."""
    return [o["access"] for o in played.outcomes if "pgmajfault" not in o["counters"]]


@pytest.mark.parametrize(("access", "value"), [("read", 7), ("write", None)])
def test_a_page_comes_back_by_the_classic_handler_in_two_rounds(
    access: str, value: int | None
) -> None:
    played = swapped(lambda t: getattr(t, access)(A))
    assert (played[0]["handled"], played[0]["counters"]) == ("classic", MAJOR)
    assert played[0]["value"] == value


def test_readahead_makes_its_neighbours_speculative() -> None:
    played = swapped(lambda t: t.touch(A + 8 * P, 3 * P, access="read"))
    assert [o["counters"] for o in played.outcomes] == [MAJOR, SPF, SPF]


def test_one_page_alone_is_read_in_one_round() -> None:
    def ops(t: TaskBuilder) -> None:
        t.sysctl("vm.page-cluster", 0)
        t.read(A)

    assert swapped(ops).last["counters"] == ALONE


def test_a_page_in_the_swap_cache_is_writable_at_once() -> None:
    def ops(t: TaskBuilder) -> None:
        t.write(A, 8)
        t.read(A + P)
        t.write(A + P, 9)
        t.touch(A, 2 * P, access="read")

    played = swapped(ops, keep_cache=True)
    assert [o["counters"] for o in played.outcomes] == [SPF, SPF, SPF, {}, {}]
    assert [o["value"] for o in played.outcomes[-2:]] == [8, 9]


def test_a_synchronous_device_is_read_speculatively() -> None:
    played = swapped(lambda t: t.touch(A, 2 * P, access="read"), kind="synchronous")
    assert [o["counters"] for o in played.outcomes] == [{**SPF, "pgmajfault": 1}] * 2


def test_around_the_address_it_looks_both_ways() -> None:
    # Eight at first: three before and four after page 10; 15, with no hit since, has half of that.
    def ops(t: TaskBuilder) -> None:
        t.read(A + 10 * P)
        t.read(A + 15 * P)
        t.touch(A, 24 * P, access="read")

    played = swapped(ops)
    assert played[1]["counters"] == MAJOR
    present = [o["access"] for o in played.outcomes[2:] if not o["counters"]]
    assert present == [10, 15]
    ahead = [o["access"] for o in played.outcomes[2:] if o["counters"] == SPF]
    assert set(range(7, 15)) - {10} | {16, 17} <= set(ahead)
    assert 18 not in ahead


def test_around_the_slot_it_takes_the_aligned_window() -> None:
    # Page 10 is in slot 11: slots 8 to 15.
    def ops(t: TaskBuilder) -> None:
        t.read(A + 10 * P)
        t.touch(A + 7 * P, 8 * P, access="read")

    played = swapped(ops, vma_ra_enabled=False)
    assert cached(played) == list(range(8))


def test_the_device_bounds_readahead() -> None:
    for readahead, rounds in ((1, ALONE), (2, MAJOR)):
        played = swapped(lambda t: t.touch(A, 2 * P, access="read"), readahead=readahead)
        assert played[0]["counters"] == rounds
        assert ("pgmajfault" in played[1]["counters"]) == (readahead == 1)


def test_a_full_device_leaves_pages_where_they_are() -> None:
    # Three slots and the header: pages 3 and 4 stay.
    played = swapped(lambda t: t.touch(A, 5 * P, access="read"), pages=5, size=4 * P)
    assert [bool(o["counters"]) for o in played.outcomes] == [True, True, True, False, False]


def test_no_device_leaves_everything() -> None:
    played = swapped(lambda t: t.touch(A, 5 * P, access="read"), pages=5, size=0)
    assert not any(o["counters"] for o in played.outcomes)


def test_slots_come_back_when_pages_are_unmapped() -> None:
    def ops(t: TaskBuilder) -> None:
        for _ in range(5):
            t.madvise(A, 3 * P, "dontneed")
            t.touch(A, 3 * P, value=1)
            t.swap_out(A, 3 * P)
        t.touch(A, 3 * P, access="read")

    played = swapped(ops, pages=3, size=4 * P)
    assert [o["value"] for o in played.outcomes[-3:]] == [1, 1, 1]
    assert "major-faults" in played[-3]["counters"]


def test_a_range_has_to_be_aligned_and_nothing_else() -> None:
    def ops(t: TaskBuilder) -> None:
        t.swap_out(A + 1, P)
        t.swap_out(0, X86.task_size)
        t.swap_out((1 << 64) - P, (1 << 64) - 1)
        t.swap_out(A - P, 0)

    assert swapped(ops).errnos() == ["EINVAL", None, None, None]


def test_a_page_in_the_swap_cache_that_another_process_maps_stays() -> None:
    page = {"addr": hex(A), "length": P}
    obj = {
        "format": "spfemu-program/1",
        "tasks": [
            {"ops": [
                {"op": "mmap", **page, "flags": ["private", "anonymous", "fixed"]},
                {"op": "write", "addr": hex(A), "value": 7},
                {"op": "swap_out", **page},
                {"op": "fork", "child": "c"},
                {"op": "read", "addr": hex(A)},
                {"op": "post", "name": "mapped"},
                {"op": "wait", "child": "c"},
            ]},
            {"name": "c", "start": "fork", "ops": [
                {"op": "await", "name": "mapped"},
                {"op": "swap_out", **page},
                {"op": "read", "addr": hex(A)},
            ]},
        ],
    }  # fmt: skip
    program = Program.from_dict(obj)
    differential(program, engines=("reference", "native", "vtime"))
    result = run(program, arch=X86)
    last = result.outcome(result.task_ops(1)[-1])
    assert (last["value"], last["counters"].get("minor-faults")) == (7, 1)
