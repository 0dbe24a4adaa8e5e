"""Each entry of the catalogue with the smallest program that shows it, explored completely.

With everything cured no schedule of the program breaks an invariant; with the one bug, some do, and
the report names the entry. The numbers of schedules are exact: who changes the number of accesses
that the protocol makes changes them, and only has to make sure that the search is still complete
and finds the same.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import pytest

import spfemu
from spfemu import Program
from spfemu.engines import core_list

PROGRAMS: Final = Path(__file__).parent / "catalogue"


@dataclass(frozen=True)
class Case:
    """An entry, a file in ``tests/catalogue``, and what a search of it comes to."""

    entry: str
    program: str
    preemptions: int
    cured: int
    """Schedules with everything cured."""
    broken: int
    """Schedules with this bug alone."""
    invariants: set[str] = field(default_factory=set)
    """What the bug breaks; nothing if no schedule can show it."""


VARIANTS: Final = (
    Case("B1", "two_drops", 2, 439, 719, {"sequence"}),
    Case("B2", "write_against_munmap", 1, 299, 301, {"use-after-free"}),
    Case("B3", "write_against_munmap", 1, 299, 301, {"use-after-free"}),
    Case("B8", "write_against_table_move", 1, 513, 494, {"lost-store"}),
    Case("C1", "second_fault_against_munmap", 2, 3608, 9125, {"use-after-free"}),
    Case("C2", "fetch_of_data", 0, 2, 2, {"livelock"}),
    Case("C3", "refused_write", 0, 2, 2, {"signal"}),
    # The refusal was right when the access began.
    Case("C9", "write_against_remapping", 2, 2890, 2814),
    Case("L1", "stale_read_beside_unmapping", 1, 2067, 2063, {"lost-store"}),
    Case("L2", "swap_in_past_the_cache", 1, 451, 305, {"lost-store"}),
    Case("N1", "write_against_mremap", 1, 199, 374, {"lost-store"}),
)
MUTANTS: Final = (Case("A2", "swap_in_against_mprotect", 1, 318, 319, {"readahead-window"}),)

variants = pytest.mark.parametrize("case", VARIANTS, ids=lambda case: case.entry)


def explored(case: Case, **settings: Any) -> dict[str, Any]:
    program = Program.load(PROGRAMS / f"{case.program}.json")
    found = spfemu.explore(program, preemptions=case.preemptions, **settings)
    assert found["complete"]
    return found


def invariants(found: dict[str, Any]) -> set[str]:
    return {violation["invariant"] for violation in found["violations"]}


def entries(found: dict[str, Any]) -> set[str]:
    return {violation["entry"] for violation in found["violations"]}


def listed(what: str, entry: str) -> set[str]:
    """What the catalogue says that an entry breaks."""
    (oracle,) = (one["oracle"] for one in core_list(what) if one["entry"] == entry)
    return set(oracle.split(", "))


@variants
def test_nothing_breaks_when_everything_is_cured(case: Case) -> None:
    found = explored(case, variants_default="fixed")
    assert (found["schedules"], found["violations"]) == (case.cured, [])


@variants
def test_a_bug_of_v12_is_found_and_named(case: Case) -> None:
    found = explored(case, variants_default="fixed", variants={case.entry: "v12"})
    assert (found["schedules"], invariants(found)) == (case.broken, case.invariants)
    assert entries(found) == ({case.entry} if case.invariants else set())
    assert case.invariants <= listed("variants", case.entry)


@variants
def test_a_bug_is_named_beside_all_others(case: Case) -> None:
    found = explored(case)
    assert None not in entries(found)
    assert case.entry in entries(found) or not case.invariants


@pytest.mark.parametrize("case", MUTANTS, ids=lambda case: case.entry)
def test_a_check_that_is_removed_is_missed(case: Case) -> None:
    cured = explored(case, variants_default="fixed")
    assert (cured["schedules"], cured["violations"]) == (case.cured, [])
    found = explored(case, variants_default="fixed", mutants=[case.entry])
    assert (found["schedules"], invariants(found)) == (case.broken, case.invariants)
    assert entries(found) == {case.entry}


def test_every_variant_has_a_case() -> None:
    assert [case.entry for case in VARIANTS] == [entry["entry"] for entry in core_list("variants")]


@pytest.mark.deep
def test_a_refusal_by_an_unlinked_vma_cannot_be_seen() -> None:
    # C9 with one preemption more: t1 finds the read-only VMA, t0 replaces it, t1 refuses.
    (case,) = (case for case in VARIANTS if case.entry == "C9")
    program = Program.load(PROGRAMS / f"{case.program}.json")
    found = spfemu.explore(program, preemptions=3, variants_default="fixed", variants={"C9": "v12"})
    assert found["complete"]
    assert found["violations"] == []
