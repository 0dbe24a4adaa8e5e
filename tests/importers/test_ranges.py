"""The range map against an array."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from spfemu.importers.ranges import RangeMap

CHANGES = st.lists(
    st.tuples(st.integers(0, 30), st.integers(0, 30), st.one_of(st.none(), st.integers(0, 3)))
)


@given(CHANGES, st.integers(0, 30), st.integers(0, 30))
def test_says_what_an_array_says(
    changes: list[tuple[int, int, int | None]], start: int, end: int
) -> None:
    model: list[int | None] = [None] * 40
    ranges = RangeMap[int]()
    for low, high, value in changes:
        if low > high:
            continue
        model[low:high] = [value] * (high - low)
        if value is None:
            ranges.clear(low, high)
        else:
            ranges.set(low, high, value)
    assert [ranges.get(address) for address in range(40)] == model
    pieces = list(ranges.copy().items(start, end))
    assert all(start <= low < high <= end for low, high, _ in pieces)
    assert all(one[1] <= two[0] for one, two in pairwise(pieces))
    found: list[int | None] = [None] * 40
    for low, high, value in pieces:
        found[low:high] = [value] * (high - low)
    assert found[start:end] == model[start:end]
