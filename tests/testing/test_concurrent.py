"""Programs whose tasks race, and schedules, drawn and made smaller together."""

from __future__ import annotations

from typing import Final

import pytest
from hypothesis import Phase, find, given, settings
from hypothesis import strategies as st

from spfemu import Program, ProgramError
from spfemu.cli.demo import race_program
from spfemu.testing import assert_unbroken, concurrent_programs, schedules


@given(concurrent_programs(tasks=3), schedules())
def test_no_schedule_of_a_cured_kernel_breaks_anything(
    program: Program, schedule: list[int]
) -> None:
    assert_unbroken(program, schedule, variants_default="fixed")


@given(concurrent_programs(arch="powerpc"))
def test_programs_are_programs(program: Program) -> None:
    assert Program.from_dict(program.to_dict()) == program
    assert sum(task.start is None for task in program.tasks) >= 2


def broken(program: Program, schedule: list[int], mutant: str) -> bool:
    try:
        assert_unbroken(program, schedule, mutants=[mutant], variants_default="fixed")
    except AssertionError:
        return True
    return False


SEARCH: Final = settings(
    max_examples=1000,
    deadline=None,
    database=None,
    derandomize=True,
    phases=[Phase.generate, Phase.shrink],
)


def test_a_program_and_its_schedule_are_made_small_together() -> None:
    # A26: splitting a VMA without a reference for its new half.
    drawn = st.tuples(concurrent_programs(), schedules())
    program, schedule = find(drawn, lambda both: broken(both[0], both[1], "A26"), settings=SEARCH)
    ops = [op["op"] for task in program.to_dict()["tasks"] for op in task["ops"]]
    # The smallest with a munmap has five, the smallest with a fork seven.
    assert len(ops) <= 7, ops
    # Every interleaving shows it.
    assert schedule == []


def test_a_schedule_is_made_small() -> None:
    # A8a: page tables are freed without waiting for those that walk them with interrupts off.
    race = race_program()
    schedule = find(schedules(), lambda one: broken(race, one, "A8a"), settings=SEARCH)
    # The writer begins, and the unmapper comes in between.
    assert 2 <= sum(number != 0 for number in schedule) <= 4, schedule
    with pytest.raises(AssertionError, match=r"use-after-free: (.|\n)*replay='e1-"):
        assert_unbroken(race, schedule, mutants=["A8a"], variants_default="fixed")


def test_numbers_out_of_range_are_refused() -> None:
    for call, message in (
        (lambda: concurrent_programs(tasks=1), "concurrent_programs: tasks: value 1"),
        (lambda: concurrent_programs(max_ops=0), "concurrent_programs: max_ops: value 0"),
        (lambda: schedules(max_switches=-1), "schedules: max_switches: value -1"),
    ):
        with pytest.raises(ProgramError, match=message):
            call()
