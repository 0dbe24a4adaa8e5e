"""How the explorer chooses schedules: what is left out, drawn, mutated and told from outside."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import pytest

import spfemu
from spfemu import Program
from spfemu.cli.demo import race_program

PROGRAMS: Final = Path(spfemu.__file__).parent / "data/catalogue"


def explored(program: Program, **settings: Any) -> dict[str, Any]:
    return spfemu.explore(program, variants_default="fixed", **settings)


def found(exploration: dict[str, Any]) -> set[tuple[str, str, str]]:
    return {(one["invariant"], one["what"], one["entry"]) for one in exploration["violations"]}


@pytest.mark.parametrize("mutants", [[], ["A6"], ["A7"], ["A8a"], ["A8b"], ["A24a"]])
def test_the_reduction_leaves_nine_of_ten_schedules_out_and_finds_the_same(
    mutants: list[str],
) -> None:
    some = explored(race_program(), mutants=mutants)
    every = explored(race_program(), mutants=mutants, reduction=False)
    assert (some["complete"], every["complete"]) == (True, True)
    assert found(some) == found(every)
    assert bool(found(some)) == bool(mutants)
    assert some["schedules"] * 10 <= every["schedules"]


@pytest.mark.parametrize(
    ("entry", "program"),
    [("B7", "copy_beside_registration"), ("A26", "split"), ("C3", "refused_write")],
)
def test_without_a_bound_every_order_is_covered(entry: str, program: str) -> None:
    loaded = Program.load(PROGRAMS / f"{program}.json")
    cured = explored(loaded, preemptions="all", schedules=200_000)
    assert (cured["complete"], cured["redundant"], cured["violations"]) == (True, 0, [])
    assert cured["settings"]["preemptions"] == "all"
    how = {"mutants": [entry]} if entry.startswith("A") else {"variants": {entry: "v12"}}
    broken = explored(loaded, preemptions="all", schedules=200_000, **how)
    assert broken["complete"]
    assert {one["entry"] for one in broken["violations"]} == {entry}


@pytest.mark.parametrize("strategy", ["random", "pct", "coverage"])
def test_drawn_schedules_find_a_missing_check_and_depend_on_the_seed_alone(strategy: str) -> None:
    settings: dict[str, Any] = {"strategy": strategy, "mutants": ["A7"], "schedules": 3000}
    first = explored(race_program(), seed=1, **settings)
    assert {one["entry"] for one in first["violations"]} == {"A7"}
    assert first == explored(race_program(), seed=1, **settings)
    assert first["steps"] != explored(race_program(), seed=2, **settings)["steps"]
    for one in first["violations"]:
        again = explored(race_program(), mutants=["A7"], replay=one["token"])
        assert [(one["invariant"], one["what"])] == [
            (same["invariant"], same["what"]) for same in again["violations"]
        ]


def test_pct_is_made_for_bugs_of_some_depth() -> None:
    for depth in (1, 2, 5):
        exploration = explored(race_program(), strategy="pct", depth=depth, schedules=100)
        assert (exploration["settings"]["depth"], exploration["violations"]) == (depth, [])
    # One constraint, no change of priorities: each task runs until it waits.
    assert explored(race_program(), strategy="pct", schedules=1)["settings"]["depth"] == 3


def test_a_schedule_told_from_outside_is_run_as_told() -> None:
    def guided(schedule: list[int]) -> dict[str, Any]:
        return explored(race_program(), strategy="guided", schedule=schedule, mutants=["A24a"])

    assert (guided([])["schedules"], guided([])["violations"]) == (1, [])
    # The writer comes first and looks up the VMA; the unmapper comes in at one moment or another.
    broken = [nth for nth in range(120) if guided([1, *[0] * nth, 1])["violations"]]
    assert broken
    (violation,) = guided([1, *[0] * broken[0], 1])["violations"]
    assert violation["entry"] == "A24a"
    again = explored(race_program(), mutants=["A24a"], replay=violation["token"])
    assert again["violations"] == [violation]
    # With one other task any number but 0 means it, and what lies beyond the end means nothing.
    same = guided([3, *[0] * broken[0], 7, *[0] * 5000])
    assert same["violations"] == [violation]


@pytest.mark.parametrize(
    ("choices", "steps", "message"),
    [
        (None, 5, "2 choices of the token were never come to, cut short after 5 steps"),
        ("2zz70zz70", 1_000_000, "2 choices of the token were never come to"),
        ("105", 1_000_000, "at choice 0 the token takes task 6 of 2 that can go on"),
    ],
    ids=["cut short", "too late", "nobody"],
)
def test_a_token_that_does_not_lead_through_the_program_is_an_error(
    choices: str | None, steps: int, message: str
) -> None:
    (found, *_) = explored(race_program(), mutants=["A7"])["violations"]
    head, _, own = found["token"].rpartition("-")
    with pytest.raises(spfemu.EngineError) as error:
        explored(race_program(), mutants=["A7"], replay=f"{head}-{choices or own}", steps=steps)
    told = "replay: the token does not lead through this program: "
    assert str(error.value) == told + message
