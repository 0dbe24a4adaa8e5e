"""A finding in a program that is padded with what has nothing to do with it, and what is left."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import pytest

import spfemu
from spfemu import Minimised, Program, minimising

PROGRAMS: Final = Path(spfemu.__file__).parent / "data/catalogue"
V12: Final[dict[str, Any]] = {}


@dataclass(frozen=True)
class Case:
    """An entry, a program of the catalogue that shows it, and with what."""

    entry: str
    invariant: str
    program: str
    preemptions: int
    settings: dict[str, Any] = field(default_factory=dict)


def alone(entry: str) -> dict[str, Any]:
    """Everything else cured."""
    how = {"mutants": [entry]} if entry.startswith("A") else {"variants": {entry: "v12"}}
    return {"variants_default": "fixed", **how}


CASES: Final = (
    Case("B2", "use-after-free", "write_against_munmap", 1, V12),
    Case("N1", "lost-store", "write_against_mremap", 1, V12),
    Case("A7", "mapcount", "write_against_munmap", 1, alone("A7")),
    Case("L1", "lost-store", "stale_read_beside_unmapping", 1, alone("L1")),
    Case("C1", "use-after-free", "second_fault_against_munmap", 2, alone("C1")),
    Case("A9", "deadlock", "cow_against_first_write", 1, alone("A9")),
    Case("C2", "livelock", "fetch_of_data", 0, alone("C2")),
)
A7: Final = CASES[2]


def padded(name: str) -> dict[str, Any]:
    """The program with mappings, reads, rounds, expectations and a task that nobody asked for."""
    obj: dict[str, Any] = json.loads((PROGRAMS / f"{name}.json").read_text())
    first = obj["tasks"][0]["ops"]
    first[:0] = [
        {"op": "mmap", "length": "64K", "prot": "r", "id": "x"},
        {"op": "repeat", "count": 3, "ops": [{"op": "read", "addr": "x+0x3000"}]},
        {"op": "compute", "ns": 5, "expect": {"handled": "none"}},
    ]
    first.append({"op": "munmap", "addr": "x", "length": "64K"})
    late = [{"op": "await", "name": "late"}, {"op": "read", "addr": "x+0x5000"}]
    obj["tasks"].append({"name": "late", "start": "clone", "ops": late})
    first += [{"op": "clone", "child": "late"}, {"op": "post", "name": "late"}]
    first.append({"op": "wait", "child": "late"})
    obj["files"] = {"unused": {"length": "64K"}}
    obj["system"] = {"nodes": 1, **obj.get("system", {})}
    return obj


def found_in(program: Program, case: Case, **how: Any) -> dict[str, Any] | None:
    """The finding of the case, if a search has it."""
    exploration = spfemu.explore(program, **case.settings, **how)
    for violation in exploration["violations"]:
        if (violation["invariant"], violation["entry"]) == (case.invariant, case.entry):
            return dict(violation)
    return None


def minimised(case: Case, obj: dict[str, Any], **how: Any) -> Minimised:
    program = Program.from_dict(obj)
    finding = found_in(program, case, **how)
    assert finding is not None
    return spfemu.minimise(program, finding, **case.settings, **how)


def nr_ops(ops: list[dict[str, Any]]) -> int:
    return sum(1 + nr_ops(op.get("ops", [])) for op in ops)


def size(obj: dict[str, Any]) -> int:
    return sum(nr_ops(task["ops"]) for task in obj["tasks"])


def with_one_less(obj: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The program without one operation, or without one task, whether or not that is a program."""
    for number, task in enumerate(obj["tasks"]):
        for index in range(len(task["ops"])):
            less = json.loads(json.dumps(obj))
            del less["tasks"][number]["ops"][index]
            yield less
        less = json.loads(json.dumps(obj))
        del less["tasks"][number]
        yield less


def assert_minimal(small: Minimised, case: Case) -> None:
    for less in with_one_less(small.program.to_dict()):
        try:
            program = Program.from_dict(less)
        except spfemu.ProgramError:
            continue
        assert found_in(program, case, **small.search) is None, less


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.entry)
def test_what_has_nothing_to_do_with_a_finding_is_left_out(case: Case) -> None:
    obj = padded(case.program)
    small = minimised(case, obj, preemptions=case.preemptions)
    left = small.program.to_dict()
    catalogue = json.loads((PROGRAMS / f"{case.program}.json").read_text())
    assert (small.operations, small.operations_before) == (size(left), size(obj))
    assert small.operations < size(catalogue)  # which has a note at least
    assert "late" not in {task["name"] for task in left["tasks"]}
    assert not {"files", "system"} & set(left)
    assert "expect" not in json.dumps(left)
    assert (small.preemptions, small.fewest, small.minimal) == (case.preemptions, True, True)
    assert (small.finding["invariant"], small.finding["entry"]) == (case.invariant, case.entry)
    assert small.finding == found_in(small.program, case, **small.search)
    assert small.finding == found_in(small.program, case, replay=small.finding["token"])
    assert_minimal(small, case)


def test_the_smallest_program_for_the_page_that_stays_counted() -> None:
    # t0:  munmap takes the PTE ..
    # t1:                           write fault: maps a page where no VMA is any more
    left = minimised(A7, padded(A7.program)).program.to_dict()
    p = {"op": "mmap", "length": 8192, "flags": ["private", "anonymous"], "id": "p"}
    assert left["tasks"] == [
        {
            "name": "t0",
            "ops": [
                p,
                {"op": "write", "addr": "p", "value": 1},
                {"op": "post", "name": "go"},
                {"op": "munmap", "addr": "p", "length": 8192},
            ],
        },
        {
            "name": "t1",
            "ops": [
                {"op": "await", "name": "go"},
                {"op": "write", "addr": "p+0x1000", "value": 2},
            ],
        },
    ]


def test_the_same_comes_out_each_time() -> None:
    first, second = (minimised(A7, padded(A7.program)) for _ in range(2))
    assert first == second


def test_fewest_preemptions_come_before_fewest_operations() -> None:
    # With two preemptions, neither the post nor the await is needed.
    settings = {**alone("A7"), "preemptions": 2}
    short = padded(A7.program)
    for task in short["tasks"]:
        task["ops"] = [op for op in task["ops"] if op.get("name") != "go"]
    shorter = minimised(A7, short, preemptions=2)
    assert (shorter.preemptions, shorter.operations) == (2, 4)
    finding = found_in(Program.from_dict(padded(A7.program)), A7, preemptions=2)
    assert finding is not None
    longer = spfemu.minimise(Program.from_dict(padded(A7.program)), finding, **settings)
    assert (longer.preemptions, longer.operations) == (1, 6)


def test_lengths_become_as_small_as_they_can_be() -> None:
    # The page that cannot be executed is the first one.
    obj = json.loads((PROGRAMS / "fetch_of_data.json").read_text())
    (mapping,) = (op for op in obj["tasks"][0]["ops"] if op["op"] == "mmap")
    mapping["length"] = "256K"
    small = minimised(CASES[-1], obj)
    lengths = [op["length"] for op in small.program.to_dict()["tasks"][0]["ops"] if "length" in op]
    assert lengths == [4096]


@pytest.mark.parametrize("limit", [1, 20_000])
def test_what_was_drawn_at_random_stays_with_its_search_where_dfs_does_not_find_it(
    limit: int,
) -> None:
    program = Program.from_dict(padded(A7.program))
    how: dict[str, Any] = {"strategy": "pct", "schedules": 2000, "seed": 1}
    finding = found_in(program, A7, **how)
    assert finding is not None
    small = spfemu.minimise(program, finding, limit=limit, **A7.settings, **how)
    assert small.fewest == (limit > 1)
    assert small.search == (how if limit == 1 else {"preemptions": 1, "schedules": limit})
    assert (small.operations, small.preemptions) == (6, 1) if limit > 1 else small.preemptions >= 1
    assert small.finding == found_in(small.program, A7, replay=small.finding["token"])
    assert small.operations <= 6


@dataclass
class CtrlC:
    """Ctrl-C comes in the search after so many."""

    after: int

    def explore(self, *arguments: Any, **settings: Any) -> dict[str, Any]:
        self.after -= 1
        if self.after < 0:
            raise KeyboardInterrupt
        return spfemu.explore(*arguments, **settings)


def test_what_takes_three_tasks_and_luck(monkeypatch: pytest.MonkeyPatch) -> None:
    # All of it takes minutes: each time that it is found, the explorer looks for it with fewer
    # preemptions. dfs does not find it in 20,000 schedules; pct does, in the program and in a
    # smaller one, and then Ctrl-C comes.
    case = Case("A1a", "lost-store", "cow_against_fork", 2, alone("A1a"))
    obj = json.loads((PROGRAMS / f"{case.program}.json").read_text())
    how: dict[str, Any] = {"strategy": "pct", "schedules": 2000}
    found: list[dict[str, Any]] = []

    def explore(program: Program, **settings: Any) -> dict[str, Any]:
        if len(found) == 2:
            raise KeyboardInterrupt
        exploration = spfemu.explore(program, **settings)
        found.extend(exploration["violations"])
        return exploration

    monkeypatch.setattr(minimising, "explore", explore)
    finding = {"invariant": case.invariant, "entry": case.entry}
    small = spfemu.minimise(Program.from_dict(obj), finding, **case.settings, **how)
    assert (small.fewest, small.minimal, small.search) == (False, False, how)
    assert small.preemptions >= case.preemptions
    assert small.operations < small.operations_before
    assert small.finding == found_in(small.program, case, replay=small.finding["token"])


class TestInterrupt:
    def test_the_smallest_so_far_is_returned(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(minimising, "explore", CtrlC(8).explore)
        small = minimised(A7, padded(A7.program))
        assert not small.minimal
        assert 6 < small.operations < small.operations_before
        assert small.finding == found_in(small.program, A7, replay=small.finding["token"])

    def test_before_it_was_found_again_there_is_nothing_to_return(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(minimising, "explore", CtrlC(0).explore)
        with pytest.raises(KeyboardInterrupt):
            minimised(A7, padded(A7.program))

    def test_progress_can_interrupt_too(self) -> None:
        shares: list[float] = []

        def progress(share: float) -> None:
            shares.append(share)
            if share > 0.5:
                raise KeyboardInterrupt

        program = Program.from_dict(padded(A7.program))
        finding = found_in(program, A7)
        assert finding is not None
        small = spfemu.minimise(program, finding, progress=progress, **A7.settings)
        assert not small.minimal
        assert shares == sorted(shares)
        assert small.operations < small.operations_before


class TestErrors:
    def test_a_finding_that_the_program_does_not_show(self) -> None:
        program = Program.from_dict(padded(A7.program))
        finding = found_in(program, A7)
        assert finding is not None
        message = r'finding "mapcount" \(A6\): not found again \(allowed: a finding of this program'
        with pytest.raises(spfemu.EngineError, match=message):
            spfemu.minimise(program, {**finding, "entry": "A6"}, **A7.settings)
        # With the check there it does not break.
        with pytest.raises(spfemu.EngineError, match="not found again"):
            spfemu.minimise(program, finding, variants_default="fixed")
        # A token says nothing of how it was found; dfs without preemptions does not find it.
        how: dict[str, Any] = {"replay": finding["token"], **A7.settings}
        with pytest.raises(spfemu.EngineError, match="not found again"):
            spfemu.minimise(program, finding, preemptions=0, **how)
        assert spfemu.minimise(program, finding, **how).preemptions == 1

    def test_what_is_no_finding(self) -> None:
        program = Program.from_dict(padded(A7.program))
        for wrong in ({}, None, {"invariant": "mapcount"}):
            with pytest.raises(spfemu.EngineError, match=r"finding: value .* one of the vio"):
                spfemu.minimise(program, wrong)  # type: ignore[arg-type]

    def test_what_explore_would_refuse(self) -> None:
        program = Program.from_dict(padded(A7.program))
        finding = {"invariant": "mapcount", "entry": "A7", "token": ""}
        with pytest.raises(spfemu.EngineError, match='mutant "Z9"'):
            spfemu.minimise(program, finding, mutants=["Z9"])
        with pytest.raises(spfemu.EngineError, match="limit: value 0"):
            spfemu.minimise(program, finding, limit=0)
