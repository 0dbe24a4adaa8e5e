"""The recorded order: everything that conflicts is ordered, and little else is waited for."""

from __future__ import annotations

from dataclasses import dataclass

from hypothesis import given
from hypothesis import strategies as st

from spfemu.importers.order import Clocks, Mark, Trail

PAGE = 4096


@dataclass(frozen=True)
class Step:
    """One operation of a task: on a page, on a range of pages, or on everything."""

    task: int
    kind: str
    page: int
    length: int

    def conflicts(self, other: Step) -> bool:
        if "all" in (self.kind, other.kind):
            return True
        first, second = self.page, other.page
        if self.kind == other.kind == "access":
            return first == second
        near = 1 if self.kind == other.kind == "range" else 0  # ranges side by side may merge
        return first < second + other.length + near and second < first + self.length + near


STEPS = st.lists(
    st.builds(
        lambda task, kind, page, length: Step(task, kind, page, 1 if kind == "access" else length),
        st.integers(0, 4),
        st.sampled_from(["access", "access", "access", "range", "range", "all"]),
        # Near the edge of a region of 512 pages, and far apart.
        st.sampled_from([0, 1, 2, 3, 509, 510, 511, 512, 513, 5000]),
        st.integers(1, 5),
    ),
    max_size=40,
)


def ordered(steps: list[Step]) -> tuple[list[Mark], list[list[Mark]]]:
    """The marks of the steps and what each has to await."""
    clocks, trail = Clocks(), Trail()
    counts = [0] * 5
    marks, awaits = [], []
    for step in steps:
        mark = (step.task, counts[step.task])
        counts[step.task] += 1
        start, end = step.page * PAGE, (step.page + step.length) * PAGE
        if step.kind == "access":
            awaits.append(clocks.waits(*mark, trail.at_page(step.page)))
            trail.page_done(step.page, mark)
        elif step.kind == "range":
            awaits.append(clocks.waits(*mark, trail.at_range(start, end)))
            trail.range_done(start, end, mark)
        else:
            awaits.append(clocks.waits(*mark, trail.at_all()))
            trail.all_done(mark)
        marks.append(mark)
    return marks, awaits


def come_before(marks: list[Mark], awaits: list[list[Mark]]) -> list[set[Mark]]:
    """For each step, all that program order and the awaits put before it."""
    before: dict[Mark, set[Mark]] = {}
    for mark, needed in zip(marks, awaits, strict=True):
        known: set[Mark] = set()
        for other in [*needed, *([(mark[0], mark[1] - 1)] if mark[1] else [])]:
            known |= before[other] | {other}
        before[mark] = known
    return [before[mark] for mark in marks]


@given(STEPS)
def test_all_that_conflicts_keeps_its_order(steps: list[Step]) -> None:
    marks, awaits = ordered(steps)
    before = come_before(marks, awaits)
    for later, step in enumerate(steps):
        for earlier, other in enumerate(steps[:later]):
            if step.conflicts(other):
                assert marks[earlier] in before[later]


@given(STEPS)
def test_no_await_is_implied_by_the_others(steps: list[Step]) -> None:
    marks, awaits = ordered(steps)
    before = dict(zip(marks, come_before(marks, awaits), strict=True))
    for mark, needed in zip(marks, awaits, strict=True):
        own = before[mark[0], mark[1] - 1] if mark[1] else set()
        for one in needed:
            others = [other for other in needed if other != one]
            assert one not in own.union(*(before[other] | {other} for other in others))


@given(STEPS)
def test_only_what_conflicts_is_awaited(steps: list[Step]) -> None:
    marks, awaits = ordered(steps)
    at = dict(zip(marks, steps, strict=True))
    for mark, needed in zip(marks, awaits, strict=True):
        for other in needed:
            assert other[0] != mark[0]
            # An operation on everything comes after the latest of each task, whatever that was.
            assert at[mark].kind == "all" or at[mark].conflicts(at[other])


def test_a_child_knows_what_its_starter_knew() -> None:
    clocks = Clocks()
    assert clocks.waits(1, 4, {(0, 7)}) == [(0, 7)]
    clocks.starts(2, (1, 5))
    assert clocks.waits(2, 0, {(0, 7), (1, 5), (1, 6)}) == [(1, 6)]


def test_what_is_long_ago_costs_awaits_not_order() -> None:
    clocks = Clocks()
    for index in range(500):
        assert clocks.waits(1, index, {(0, index)}) == [(0, index)]
    # Task 1 knew all that, but when it knew which is no longer kept.
    assert clocks.waits(2, 0, {(1, 10), (0, 5)}) == [(0, 5), (1, 10)]
    assert clocks.waits(3, 0, {(1, 499), (0, 5)}) == [(1, 499)]


def test_huge_ranges_cost_what_was_touched_in_them() -> None:
    trail = Trail()
    trail.page_done(1 << 30, (0, 1))
    trail.page_done((1 << 34) + 5, (1, 2))
    assert trail.at_range(0, 1 << 47) == {(0, 1), (1, 2)}
    trail.range_done(0, 1 << 45, (2, 0))
    assert trail.at_page(1 << 30) == {(2, 0)}
    assert trail.at_page((1 << 34) + 5) == {(1, 2)}
