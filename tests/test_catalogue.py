"""Each entry of the catalogue with the smallest program that shows it, explored completely.

With everything cured no schedule of the program breaks an invariant; with the one bug, some do, and
the report names the entry. The numbers of schedules are exact: who changes the number of accesses
that the protocol makes changes them, and only has to make sure that the search is still complete
and finds the same.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import pytest

import spfemu
from spfemu import Program
from spfemu.engines import core_list
from spfemu.exploring import MEMORY_MODELS

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
    Case("B1", "two_drops", 2, 203, 335, {"sequence"}),
    Case("B1", "drop_against_giving_up", 2, 192, 320, {"sequence"}),
    Case("B1", "truncation_against_mprotect", 2, 264, 518, {"sequence"}),
    Case("B2", "write_against_munmap", 1, 56, 58, {"use-after-free"}),
    Case("B3", "write_against_munmap", 1, 56, 58, {"use-after-free"}),
    Case("B4", "fault_on_a_moving_page", 1, 383, 385, {"use-after-free"}),
    Case("B5", "swap_in_against_munmap", 1, 65, 67, {"use-after-free"}),
    Case("B6", "copy_beside_mprotect_with_notifier", 1, 45, 45, {"notifier-balance"}),
    Case("B7", "copy_beside_registration", 1, 23, 20, {"notifier-balance"}),
    Case("B8", "write_against_table_move", 1, 74, 73, {"lost-store"}),
    # The zap waits for the lock, and who gets it after that gives up with interrupts off.
    Case("B9", "write_against_munmap", 2, 648, 646),
    Case("C1", "second_fault_against_munmap", 2, 685, 738, {"use-after-free"}),
    Case("C2", "fetch_of_data", 0, 1, 1, {"livelock"}),
    Case("C3", "refused_write", 0, 1, 1, {"signal"}),
    Case("C4", "write_against_trimming", 1, 48, 50, {"rmap"}),
    Case("C5", "write_against_mbind", 1, 37, 29, {"use-after-free"}),
    # The refusal was right when the access began.
    # C6 as C9; C7: what has read a page never goes on to copy it; C8 is of powerpc's entry (below).
    Case("C6", "write_against_remapping", 2, 524, 513),
    Case("C7", "swap_in_past_the_cache", 1, 63, 63),
    Case("C8", "write_against_munmap", 1, 56, 56),
    Case("C9", "write_against_remapping", 2, 524, 514),
    Case("L1", "stale_read_beside_unmapping", 1, 400, 400, {"lost-store"}),
    Case("L2", "swap_in_past_the_cache", 1, 63, 59, {"lost-store"}),
    Case("L3", "give_up_what_a_child_has", 0, 2, 2, {"lost-store"}),
    Case("L4", "growth_against_munmap", 1, 47, 56, {"mapcount", "use-after-free"}),
    Case("L5", "migration_against_table_move", 2, 441, 427, {"use-after-free"}),
    Case("N1", "write_against_mremap", 1, 26, 33, {"lost-store"}),
    Case("N1", "write_against_mremap_of_locked", 1, 24, 35, {"lost-store"}),
)

MUTANTS: Final = (
    Case("A1c", "fork_of_two_mappings", 0, 1, 1, {"sequence"}),
    Case("A1d", "fork_without_memory", 0, 1, 1, {"sequence"}),
    Case("A2", "swap_in_against_mprotect", 1, 37, 39, {"readahead-window"}),
    Case("A3", "write_at_mremap_target", 1, 38, 39, {"rss-count"}),
    Case("A4", "write_against_mremap", 1, 26, 28, {"lost-store"}),
    Case("A6", "write_against_munmap", 2, 648, 623, {"mapcount"}),
    Case("A7", "write_against_munmap", 2, 648, 624, {"mapcount", "rss-count", "use-after-free"}),
    Case("A8a", "write_against_munmap", 1, 56, 55, {"use-after-free"}),
    Case("A8b", "write_against_munmap", 2, 648, 652, {"use-after-free"}),
    Case("A9", "cow_against_first_write", 1, 35, 35, {"deadlock"}),
    Case("A13", "first_write_beside_munmap", 1, 36, 54, {"use-after-free"}),
    # The cleared node and the PTE lock keep faults out.
    Case("A14", "write_against_munmap", 2, 648, 605),
    Case("A15", "write_against_split", 1, 42, 43, {"vma-bounds"}),
    Case("A16", "write_against_mlock", 1, 36, 37, {"mlocked"}),
    Case("A17", "read_of_what_reclaim_has", 1, 41, 41, {"lock-balance"}),
    Case("A18", "file_read_against_munmap", 1, 39, 43, {"mapped-outside-vma"}),
    # No caller looks at what a lock that failed has published.
    Case("A22", "write_against_munmap", 2, 648, 648),
    # A look-up that lost its way gives up, or sees so in the bounds.
    Case("A23", "look_up_against_rebalancing", 2, 379, 353),
    Case("A24a", "write_against_munmap", 1, 56, 57, {"use-after-free"}),
    Case("A24b", "write_against_munmap", 1, 56, 54, {"use-after-free"}),
    Case("A25a", "look_up_against_munmap", 1, 39, 39, {"refcount"}),
    Case("A25b", "look_up_against_munmap", 1, 39, 39, {"refcount"}),
    Case("A26", "split", 0, 1, 1, {"refcount"}),
    Case("A28", "merge_below_another", 0, 1, 1, {"sequence"}),
    Case("A29", "unmap_file", 0, 1, 1, {"file-open"}),
    Case("A30", "mprotect_of_locked", 0, 1, 1, {"fault-while-odd"}),
    # W2 and W3 only save work.
    Case("A31", "kernel_write_against_munmap", 2, 368, 639),
)
FOUND_BY_CHANCE: Final = ("A1a", "A1b")
"""In 10,000 random schedules: the complete search, two preemptions of three tasks, takes 145,215
schedules for A1a, 145,942 for A1b and 150,652 with everything cured."""
IN_RUST: Final = ("A10", "A11a", "A11b", "A11c", "A12", "A27")
"""With programs in ``rust/core/tests/unit/explore``: A27 in ``programs.rs``, the others in
``huge_pages.rs``."""

BARRIERS: Final = (
    ("M1", "write_against_trimming", {"rmap"}, {"armv8"}),
    ("M2", "write_against_munlock", {"mlocked"}, {"armv8", "power"}),
    ("M3", "write_against_munlock", {"mlocked"}, {"armv8", "power"}),
    ("M4", "look_up_against_rebalancing", {"none"}, set[str]()),
    ("M4", "write_against_trimming", {"none"}, set[str]()),
    ("M5", "write_against_trimming", {"none"}, set[str]()),
    ("M6", "read_of_a_new_page", {"lost-store"}, {"armv8"}),
)
"""Barriers (SPF_V12 1.4): the mutant without it, a program, what breaks, and on which models."""

variants = pytest.mark.parametrize("case", VARIANTS, ids=lambda case: case.entry)
mutants = pytest.mark.parametrize("case", MUTANTS, ids=lambda case: case.entry)
ALL: Final = (*VARIANTS, *MUTANTS)
both = pytest.mark.parametrize("case", ALL, ids=lambda case: case.entry)


def explored(case: Case, **settings: Any) -> dict[str, Any]:
    program = Program.load(PROGRAMS / f"{case.program}.json")
    settings = {"memory_model": "sc", **settings}
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


@both
def test_nothing_breaks_when_everything_is_cured(case: Case) -> None:
    found = explored(case, variants_default="fixed")
    assert (found["schedules"], found["violations"]) == (case.cured, [])


@pytest.mark.parametrize("model", [model for model in MEMORY_MODELS if model != "sc"])
@pytest.mark.parametrize("place", sorted({(case.program, case.preemptions) for case in ALL}))
def test_nothing_breaks_in_weak_memory_either(place: tuple[str, int], model: str) -> None:
    found = explored(Case("", *place, 0, 0), variants_default="fixed", memory_model=model)
    assert found["violations"] == []


@pytest.mark.parametrize("model", MEMORY_MODELS)
def test_a_store_is_seen_once_its_operation_is_over(model: str) -> None:
    # t0:  copies p and writes it; its last operation
    # t1:                                                reads p: the new value
    again, go = {"op": "await", "name": "go"}, {"op": "post", "name": "go"}
    fork, p = {"op": "fork", "child": "c"}, {"op": "mmap", "length": 4096, "id": "p"}
    first, second = ({"op": "write", "addr": "p", "value": value} for value in (1, 2))
    tasks = [
        {"name": "t0", "ops": [p, first, fork, go, second]},
        {"name": "t1", "ops": [again, {"op": "read", "addr": "p"}]},
        {"name": "c", "start": "fork", "ops": []},
    ]
    program = Program.loads(json.dumps({"format": "spfemu-program/1", "tasks": tasks}))
    found = spfemu.explore(program, variants_default="fixed", preemptions=1, memory_model=model)
    assert (found["complete"], found["violations"]) == (True, [])


def test_a_token_is_of_one_memory_model() -> None:
    case = Case("A7", "write_against_munmap", 2, 0, 0)
    settings: dict[str, Any] = {"variants_default": "fixed", "mutants": ["A7"]}
    (finding, *_) = explored(case, memory_model="tso", **settings)["violations"]
    program = Program.load(PROGRAMS / f"{case.program}.json")
    again = spfemu.explore(program, memory_model="tso", replay=finding["token"], **settings)
    assert again["violations"] == [finding]
    for other in ("sc", "armv8"):
        with pytest.raises(spfemu.ProgramError, match="made for another program, or with other"):
            spfemu.explore(program, memory_model=other, replay=finding["token"], **settings)


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


@mutants
def test_a_missing_check_is_found_and_named(case: Case) -> None:
    found = explored(case, variants_default="fixed", mutants=[case.entry])
    assert (found["schedules"], invariants(found)) == (case.broken, case.invariants)
    assert entries(found) == ({case.entry} if case.invariants else set())
    assert (case.invariants or {"none"}) <= listed("mutants", case.entry)


def test_a_stack_that_grows_tears_the_index_of_a_classic_fault() -> None:
    case = Case("C4", "write_against_growth", 1, 47, 46, {"rmap"})
    test_nothing_breaks_when_everything_is_cured(case)
    test_a_bug_of_v12_is_found_and_named(case)


def test_a_page_taken_out_at_the_old_place_is_written_at_the_new_one() -> None:
    # t0:                         moves the table ..                         unmaps the old place
    # t1:  has read the old PMD ..                       unmaps, flushes the old place
    # t2:                                     writes the new place               and again
    case = Case("L5", "swap_out_against_table_move", 2, 23233, 21871, {"use-after-free"})
    test_nothing_breaks_when_everything_is_cured(case)
    test_a_bug_of_v12_is_found_and_named(case)


@pytest.mark.parametrize("mutants", [[], ["A1a"], ["A1b"]], ids=["neither", "A1a", "A1b"])
def test_a_store_beside_a_fork_is_lost_without_the_bracket_and_with_one_that_ends_early(
    mutants: list[str],
) -> None:
    # t0:  write-protects p in fork  ..                       flushes  reads: the copy
    # t1:                      write fault: copies p ..  maps the copy
    # t2:                                           writes p by its TLB
    program = Program.load(PROGRAMS / "cow_against_fork.json")
    found = spfemu.explore(
        program, variants_default="fixed", mutants=mutants, strategy="pct", seed=0
    )
    assert [violation["entry"] for violation in found["violations"]] == mutants
    assert invariants(found) == ({"lost-store"} if mutants else set())
    assert found["schedules"] == 10_000


@pytest.mark.parametrize("model", MEMORY_MODELS)
@pytest.mark.parametrize("barrier", BARRIERS, ids=lambda barrier: barrier[0])
def test_a_missing_barrier_is_found_where_the_machine_reorders(
    barrier: tuple[str, str, set[str], set[str]], model: str
) -> None:
    entry, program, broken, models = barrier
    # A complete search for nothing takes long on POWER.
    case = Case(entry, program, 2 if model == "power" and model not in models else 3, 0, 0)
    how: dict[str, Any] = {"variants_default": "fixed", "memory_model": model}
    found = explored(case, mutants=[entry], **how)
    assert invariants(found) == (broken if model in models else set())
    assert entries(found) == ({entry} if model in models else set())
    assert explored(case, **how)["violations"] == []
    (known,) = (one for one in core_list("mutants") if one["entry"] == entry)
    assert broken == set(known["oracle"].split(", "))
    assert models == set(re.findall(r"\((\w+)\)", known["models"]))


def test_every_entry_has_a_case() -> None:
    cases = dict.fromkeys(case.entry for case in VARIANTS)
    assert list(cases) == [entry["entry"] for entry in core_list("variants")]
    known = [case.entry for case in MUTANTS] + [*FOUND_BY_CHANCE, *IN_RUST]
    known += dict.fromkeys(entry for entry, *_ in BARRIERS)
    assert sorted(known) == sorted(entry["entry"] for entry in core_list("mutants"))


def test_what_the_bump_of_the_zap_and_the_node_test_do_for_each_other() -> None:
    # A5: alone the bump is one too many for munmap, which has cleared the node (B1's cure takes it
    # away); without the node test it leaves A6's window, unless the node is looked at as soon as
    # the sequence is read (C9's cure); a use after free takes both, and is put down to C9.
    for bump, early_look, found_as in (
        ("fixed", "fixed", {"A6"}),
        ("fixed", "v12", {"A6", "C9"}),
        ("v12", "fixed", set()),
        ("v12", "v12", {"A6", "C9"}),
    ):
        for mutants in ([], ["A6"]):
            found = spfemu.explore(
                Program.load(PROGRAMS / "write_against_munmap.json"),
                variants_default="fixed",
                variants={"B1": bump, "C9": early_look},
                mutants=mutants,
            )
            assert found["complete"]
            assert entries(found) == (found_as if mutants else set())


@pytest.mark.parametrize("keys", [True, False])
@pytest.mark.parametrize("choice", ["v12", "fixed"])
@pytest.mark.parametrize("engine", ["reference", "native", "vtime", "explore"])
def test_powerpc_without_keys_handles_every_fault_twice(
    engine: str, choice: str, keys: bool
) -> None:
    program = Program.loads(
        json.dumps(
            {
                "format": "spfemu-program/1",
                "page_size": 65536,
                "system": {"config": {"PPC_MEM_KEYS": keys}},
                "tasks": [
                    {
                        "name": "t0",
                        "ops": [
                            {"op": "mmap", "length": "192K", "id": "p"},
                            {"op": "write", "addr": "p", "value": 1},
                            {"op": "clone", "child": "t1"},
                            {"op": "write", "addr": "p+64K", "value": 2},
                            {"op": "post", "name": "written"},
                        ],
                    },
                    {"name": "t1", "start": "clone", "ops": [{"op": "await", "name": "written"}]},
                ],
            }
        )
    )
    counters = spfemu.run(program, engine=engine, arch="powerpc", variants={"C8": choice}).counters
    assert counters["speculative_pgfault"] == 1
    assert counters["spf"] == (1 if keys or choice == "fixed" else 0)


@pytest.mark.parametrize(
    ("program", "bugs"),
    [
        # t1 finds the read-only VMA, t0 replaces it, t1 refuses: alone, and by a VMA unlinked.
        ("write_against_remapping", ["C6"]),
        ("write_against_remapping", ["C9"]),
        ("write_against_remapping", ["C6", "C9"]),
        ("write_against_munmap", ["B9"]),
    ],
)
def test_with_three_preemptions_nothing_breaks_either(program: str, bugs: list[str]) -> None:
    found = spfemu.explore(
        Program.load(PROGRAMS / f"{program}.json"),
        preemptions=3,
        variants_default="fixed",
        variants=dict.fromkeys(bugs, "v12"),
    )
    assert found["complete"]
    assert found["violations"] == []
