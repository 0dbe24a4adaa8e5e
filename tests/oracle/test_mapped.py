"""What is mapped after some calls is what the host's own maps say."""

from __future__ import annotations

from hypothesis import assume, given, settings
from hypothesis import strategies as st

import spfemu
from spfemu import Program, ProgramError, Result
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
@given(programs(tasks=1, host=True))
def test_is_what_the_host_says(program: Program) -> None:
    try:
        result = spfemu.run(program, engine="kernel")
    except ProgramError:
        assume(False)
    assume(not result.stuck)
    assert_covers(result)


def assert_covers(result: Result) -> None:
    """Nothing is mapped there that our account does not have; it has no more at the edges."""
    history = History(result)
    space = history.spaces.of_process(0)
    account = mapped(reversed(history.before(history.end, space)))
    lines = [parsed_maps_line(line) for line in result.maps["t0"]]
    for start, end, _, _ in lines:
        assert account.meets(start, start + PAGE)
        assert account.meets(end - PAGE, end)
    for page in touched_pages(history):
        is_there = any(start <= page < end for start, end, _, _ in lines)
        assert account.meets(page, page + PAGE) == is_there


def touched_pages(history: History) -> set[int]:
    """Where each call began and ended."""
    ends = {call.address + offset for call in history.calls for offset in (0, call.length)}
    return {page & ~(PAGE - 1) for page in ends}
