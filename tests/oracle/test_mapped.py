"""What is mapped after some calls is what the host's own maps say."""

from __future__ import annotations

from hypothesis import assume, given, settings
from hypothesis import strategies as st

import spfemu
from spfemu import Program, ProgramError
from spfemu.comparing import parsed_maps_line
from spfemu.oracle.history import History
from spfemu.oracle.mapped import Ranges, mapped, page_up
from spfemu.testing import programs
from tests.oracle.play import PAGE

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
    history = History(result)
    names = [task.name for task in program.tasks]
    for name, lines in result.maps.items():
        space = history.spaces.of_process(names.index(name))
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
