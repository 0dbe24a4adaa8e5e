"""What can happen besides interleaving: found where it is let happen, and only there."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import pytest

import spfemu
from spfemu import Program
from spfemu.exploring import HAZARDS

CATALOGUE: Final = Path(spfemu.__file__).parent / "data/catalogue"

FORK: Final = CATALOGUE / "fork_of_two_mappings.json"

PREFETCHED: Final = """
{"format": "spfemu-program/1", "tasks": [
  {"name": "t0", "ops": [
    {"op": "mmap", "length": 4096, "id": "p"},
    {"op": "write", "addr": "p", "value": 1},
    {"op": "fork", "child": "child"},
    {"op": "post", "name": "go"},
    {"op": "munmap", "addr": "p", "length": 4096}]},
  {"name": "t1", "ops": [
    {"op": "await", "name": "go"},
    {"op": "await", "name": "written"},
    {"op": "read", "addr": "p"}]},
  {"name": "child", "start": "fork", "ops": [
    {"op": "await", "name": "go"},
    {"op": "write", "addr": "p", "value": 2},
    {"op": "post", "name": "written"}]}]}
"""
"""L1, with a thread that reads only once the child has written: by then the PTE is gone."""

EVICTED: Final = """
{"format": "spfemu-program/1", "tasks": [
  {"name": "t0", "ops": [
    {"op": "mmap", "length": 4096, "id": "p"},
    {"op": "write", "addr": "p", "value": 1},
    {"op": "post", "name": "go"},
    {"op": "await", "name": "warm"},
    {"op": "await", "name": "hot"},
    {"op": "fork", "child": "child"},
    {"op": "read", "addr": "p"}]},
  {"name": "t1", "ops": [
    {"op": "await", "name": "go"},
    {"op": "write", "addr": "p", "value": 1},
    {"op": "post", "name": "warm"},
    {"op": "await", "name": "hot"},
    {"op": "write", "addr": "p", "value": 2}]},
  {"name": "t2", "ops": [
    {"op": "await", "name": "warm"},
    {"op": "write", "addr": "p", "value": 1},
    {"op": "post", "name": "hot"},
    {"op": "write", "addr": "p", "value": 3}]},
  {"name": "child", "start": "fork", "ops": []}]}
"""
"""A1a, where no TLB is cold: t1's has to lose the page to see what fork has done to its PTE."""


def found(exploration: dict[str, Any]) -> set[tuple[str, str | None]]:
    return {(one["invariant"], one["entry"]) for one in exploration["violations"]}


def test_a_fork_runs_out_of_memory_that_there_is() -> None:
    program = Program.load(FORK)
    settings: dict[str, Any] = {"variants_default": "fixed", "mutants": "A1d", "preemptions": 1}
    without = spfemu.explore(program, **settings)
    assert without["complete"]
    assert found(without) == set()
    assert found(spfemu.explore(program, hazards="failed-allocation", **settings)) == {
        ("sequence", "A1d")
    }


def test_a_translation_is_looked_up_before_a_wait() -> None:
    program = Program.loads(PREFETCHED)
    settings: dict[str, Any] = {
        "variants_default": "fixed", "variants": {"L1": "v12"}, "preemptions": 2,
    }  # fmt: skip
    without = spfemu.explore(program, **settings)
    assert without["complete"]
    assert found(without) == set()
    assert found(spfemu.explore(program, hazards="tlb-refill", **settings)) == {
        ("lost-store", "L1")
    }


def test_a_hot_translation_is_lost() -> None:
    program = Program.loads(EVICTED)
    settings: dict[str, Any] = {
        "variants_default": "fixed", "mutants": "A1a", "strategy": "pct", "schedules": 20_000,
        "memory_model": "sc", "seed": 1,
    }  # fmt: skip
    assert found(spfemu.explore(program, **settings)) == set()
    assert found(spfemu.explore(program, hazards="tlb-eviction", **settings)) == {
        ("lost-store", "A1a")
    }


@pytest.mark.parametrize("path", sorted(CATALOGUE.glob("*.json")), ids=lambda path: path.stem)
def test_nothing_breaks_that_is_cured(path: Path) -> None:
    cured = spfemu.explore(
        Program.load(path), variants_default="fixed", preemptions=1, hazards="all"
    )
    assert cured["complete"]
    assert found(cured) == set()


@pytest.mark.parametrize("strategy", ["random", "pct", "coverage"])
def test_every_strategy_has_them_and_tokens_too(strategy: str) -> None:
    program = Program.load(FORK)
    settings: dict[str, Any] = {
        "variants_default": "fixed", "mutants": "A1d", "hazards": ["failed-allocation"],
    }  # fmt: skip
    drawn = spfemu.explore(program, strategy=strategy, schedules=500, **settings)
    assert found(drawn) == {("sequence", "A1d")}
    [violation] = drawn["violations"]
    again = spfemu.explore(program, replay=violation["token"], **settings)
    assert again["violations"] == [violation]
    assert "the allocation fails" in [step["what"] for step in violation["timeline"]]
    del settings["hazards"]
    with pytest.raises(spfemu.ProgramError, match="with other settings"):
        spfemu.explore(program, replay=violation["token"], **settings)


@pytest.mark.parametrize("name", HAZARDS)
@pytest.mark.parametrize("stem", ["write_against_munmap", "write_against_mremap"])
def test_the_reduction_misses_nothing(name: str, stem: str) -> None:
    program = Program.load(CATALOGUE / f"{stem}.json")
    reduced, whole = (
        spfemu.explore(program, preemptions=1, hazards=name, reduction=reduction)
        for reduction in (True, False)
    )
    assert reduced["complete"]
    assert whole["complete"]
    assert found(reduced) == found(whole)
    assert reduced["schedules"] < whole["schedules"]


def test_names() -> None:
    program = Program.load(FORK)
    given = spfemu.explore(program, hazards=["softirq", "tlb-refill", "softirq"])
    assert given["settings"]["hazards"] == ["tlb-refill", "softirq"]
    assert spfemu.explore(program, hazards="all")["settings"]["hazards"] == list(HAZARDS)
    with pytest.raises(spfemu.EngineError, match=r"^hazard .fire. \(allowed: tlb-eviction, "):
        spfemu.explore(program, hazards="fire")
