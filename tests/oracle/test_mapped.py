"""What is mapped after some calls is what the host's own maps say."""

from __future__ import annotations

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

import spfemu
from spfemu import Program, ProgramError
from spfemu.comparing import parsed_maps_line
from spfemu.oracle.history import History
from spfemu.oracle.mapped import Ranges, mapped, page_up
from spfemu.testing import programs
from tests.oracle.play import BASE, PAGE, mmap, op
from tests.oracle.play import program as of

changes = st.lists(st.tuples(st.booleans(), st.integers(0, 20), st.integers(0, 20)), max_size=12)


@given(changes=changes, start=st.integers(0, 20), end=st.integers(0, 20))
def test_ranges_are_a_set_of_addresses(
    changes: list[tuple[bool, int, int]], start: int, end: int
) -> None:
    ranges, plain = Ranges(), set()
    for adds, low, high in changes:
        if adds:
            ranges.add(low, high)
            plain |= set(range(low, high))
        else:
            ranges.remove(low, high)
            plain -= set(range(low, high))
    assert ranges.meets(start, end) == bool(plain & set(range(start, end)))


def test_the_page_after() -> None:
    assert [page_up(address) for address in (0, 1, PAGE - 1, PAGE, PAGE + 1)] == [
        0, PAGE, PAGE, PAGE, 2 * PAGE,
    ]  # fmt: skip


@settings(max_examples=100)
@given(programs(host=True))
def test_is_what_the_host_says(program: Program) -> None:
    try:
        result = spfemu.run(program, engine="kernel")
    except ProgramError:
        assume(False)
    assert_is_what_the_host_says(result)


@pytest.mark.parametrize("flags", [["maymove", "fixed"], ["maymove", "fixed", "dontunmap"]])
def test_the_holes_of_a_range_are_not_moved(flags: list[str]) -> None:
    # Before: p.qq....  oooooooo, and p..qq... goes over the o. Older kernels refuse to.
    target = hex(BASE + 16 * PAGE)
    ops = [
        mmap(1),
        mmap(2, addr=hex(BASE + 3 * PAGE)),
        op("madvise", hex(BASE + 3 * PAGE), length=PAGE, advice="dontfork"),
        mmap(8, addr=target, id="o"),
        {"op": "mremap", "addr": hex(BASE), "old_length": 8 * PAGE, "new_length": 8 * PAGE,
         "flags": flags, "new_addr": target},
        op("munmap", "o", length=PAGE),
    ]  # fmt: skip
    assert_is_what_the_host_says(spfemu.run(of(ops), engine="kernel"))


def test_advice_that_is_refused_keeps_nothing_from_children() -> None:
    ops = [
        mmap(4),
        op("madvise", hex(BASE + 1), length=PAGE, advice="dontfork"),
        {"op": "fork", "child": "c", "wait": True},
    ]
    tasks = [{"name": "t0", "ops": ops}, {"name": "c", "start": "fork", "ops": []}]
    program = Program.from_dict({"format": "spfemu-program/1", "tasks": tasks})
    assert_is_what_the_host_says(spfemu.run(program, engine="kernel"))


@pytest.mark.parametrize("length", ["32T", "256T"])
@pytest.mark.parametrize("flag", ["shared", "private"])
def test_what_is_left_by_an_mmap_that_cannot_be_had(flag: str, length: str) -> None:
    ops = [mmap(4), mmap(length=length, flags=[flag, "anonymous", "fixed"], id="q")]
    assert_is_what_the_host_says(spfemu.run(of(ops), engine="kernel"))


def assert_is_what_the_host_says(result: spfemu.Result) -> None:
    history = History(result)
    names = [task.name for task in history.program.tasks]
    spaces = {name: history.spaces.of_process(names.index(name)) for name in result.maps}
    for name, lines in result.maps.items():
        space, task = spaces[name], history.program.tasks[names.index(name)]
        if task.start == "vfork" and [*spaces.values()].count(space) > 1:
            continue  # it ended in its parent's, whose maps these are no more
        account = mapped(history, history.end, space)
        assert_same(account, [parsed_maps_line(line)[:2] for line in lines], ends_of_calls(history))


def assert_same(account: Ranges, ranges: list[tuple[int, int]], pages: set[int]) -> None:
    for start, end in ranges:
        assert account.meets(start, start + PAGE)
        assert account.meets(end - PAGE, end)
    for page in pages:
        is_there = any(start <= page < end for start, end in ranges)
        assert account.meets(page, page + PAGE) == is_there


def ends_of_calls(history: History) -> set[int]:
    """The pages at which each call began and ended."""
    ends = {call.address + offset for call in history.calls for offset in (0, call.length)}
    return {page & ~(PAGE - 1) for page in ends}
